"""Where the topologies and fault plans that come with the harness lie, and which there are."""

from __future__ import annotations

from pathlib import Path

import harness
from harness.errors import UsageError
from harness.topology.toml_document import nearest, value_text

_SUFFIX = ".toml"


def data_folder(kind: str) -> Path:
    """The folder of `topologies` or `faults`: inside the package where it was installed, beside it in a checkout."""
    package = Path(harness.__file__).parent
    installed = package / "data" / kind
    return installed if installed.is_dir() else package.parent / kind


def library_names(kind: str) -> tuple[str, ...]:
    """The names in the library, sorted."""
    folder = data_folder(kind)
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.stem for path in folder.iterdir() if path.suffix == _SUFFIX))


def locate(kind: str, name_or_path: str, called: str) -> Path:
    """The file that is meant: a bare name is one of the library; anything with a `/` or `.toml` is a path.

    Args:
        kind: `topologies` or `faults`.
        name_or_path: what the user wrote.
        called: `topology` or `fault plan`, for the error.

    Raises:
        UsageError: a bare name that the library does not have; lists those that it has.
    """
    if "/" in name_or_path or name_or_path.endswith(_SUFFIX):
        return Path(name_or_path)
    names = library_names(kind)
    if name_or_path in names:
        return data_folder(kind) / f"{name_or_path}{_SUFFIX}"
    raise UsageError(
        f"there is no {called} called {value_text(name_or_path)}",
        next_step=f"{nearest(name_or_path, names)}the library has: {', '.join(names)}; "
        f"a file of your own is given by its path, as in ./mine{_SUFFIX}",
    )


def name_of(source_name: str) -> str:
    """A short name for what a file declares: its base name, with nothing that a folder's name should not have."""
    base = source_name.rsplit("/", 1)[-1].removesuffix(_SUFFIX)
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in base)
    return plain.strip("-.")[:60] or "unnamed"
