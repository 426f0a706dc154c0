"""From a declarative TOML file to a checked record, or to one line that says what is wrong with it.

Topologies and fault plans are read alike. The schema is a pydantic model whose fields carry, as their description,
the words for what is allowed there; an error then has the file, the key, the value found and those words.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from harness.errors import UsageError

#: Largest file that is read, bytes. A plan of the most steps has about 100 kB.
MAX_FILE_BYTES = 256 * 1024

#: Longest value that an error repeats.
_SHOWN = 60

_POSITION = re.compile(r"^(.*?) ?\(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class Table(BaseModel):
    """A TOML table of a schema: no unknown keys, no conversion between types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


T = TypeVar("T", bound=Table)


def refused(reason: str, *, key: str = "") -> PydanticCustomError:
    """The error for a validator of a schema to raise when it can say itself what is wrong.

    Args:
        reason: about the value that the validator was given; or, with `key`, the whole of what is wrong.
        key: where in that value, a table.
    """
    # The reason is a parameter, not the template, because braces in a template are placeholders.
    return PydanticCustomError("refused", "{reason}", {"reason": reason, "key": key})


def read_text(path: Path, error: type[UsageError]) -> str:
    """The text of a declarative file.

    Raises:
        UsageError: (of the kind `error`) it cannot be read, is no regular file, is too large, or is not UTF-8.
    """
    where = one_line(str(path))
    try:
        if not path.is_file():
            what = "this is not a file" if path.exists() else "there is no such file"
            raise error(what, where=where)
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as problem:
        raise error(f"the file cannot be read: {problem.strerror}", where=where) from problem
    except ValueError as problem:  # a NUL in the path
        raise error(f"this is not the name of a file: {problem}", where=where) from problem
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(error, where)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(
            f"byte 0x{data[problem.start]:02x} is not UTF-8",
            where=f"{where}:{line}",
            next_step="save the file as UTF-8 text",
        ) from problem


def parse_document(text: str, source_name: str, schema: type[T], error: type[UsageError]) -> T:
    """The checked content of a TOML text.

    Args:
        text: the whole file.
        source_name: what errors call the file.
        schema: what is allowed; its fields' descriptions are the words for it.
        error: the kind of error to raise.

    Raises:
        UsageError: (of the kind `error`) not TOML, with line and column; or not what the schema allows, with the key.
    """
    where = one_line(source_name)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise _too_large(error, where)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise error("the values are nested too deeply", where=where) from None
    except ValueError as problem:  # a TOMLDecodeError, or a number of too many digits
        raise _syntax_error(problem, text, where, error) from None
    try:
        return schema.model_validate(document)
    except ValidationError as problem:
        raise _schema_error(problem, where, schema, error) from None


def key_path(parts: Iterable[str | int]) -> str:
    """`server[2].switches[0]`, for the parts `("server", 2, "switches", 0)`; items are counted from 0."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            path += ("." if path else "") + (part if bare else _shortened(json.dumps(part, ensure_ascii=False)))
    return one_line(path)


def value_text(value: object) -> str:
    """A TOML value on one line, shortened, as an error shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _shortened(json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        scalar = all(isinstance(item, str | int | float) for item in value)
        inside = ", ".join(value_text(item) for item in value)
        return f"[{inside}]" if scalar and len(inside) <= _SHOWN else f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a table"
    try:
        return _shortened(str(value))
    except ValueError:  # an integer of more digits than Python writes
        return "a very large integer"


def nearest(word: str, words: Iterable[str]) -> str:
    """`did you mean "net1"? ` where one of `words` is close to `word`, else nothing."""
    found = difflib.get_close_matches(word[:100], list(words), n=1, cutoff=0.6)
    return f"did you mean {value_text(found[0])}? " if found else ""


def allowed_words(words: Iterable[str]) -> str:
    """`"net1", "net2"`, for a list of the words that are allowed somewhere."""
    return ", ".join(value_text(word) for word in words)


def one_line(text: str) -> str:
    """The text without characters that would break or hide a line of a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _shortened(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _too_large(error: type[UsageError], where: str) -> UsageError:
    return error(f"the file is larger than the {MAX_FILE_BYTES // 1024} KiB that are read", where=where)


def _syntax_error(problem: ValueError, text: str, where: str, error: type[UsageError]) -> UsageError:
    if not isinstance(problem, tomllib.TOMLDecodeError):
        return error("a number has too many digits", where=where)
    match = _POSITION.match(str(problem))
    if match is None:
        return error(f"this is not TOML: {one_line(str(problem))}", where=where)
    message, line, column = match.groups()
    if line is None:
        line, column = str(text.count("\n") + 1), str(len(text) - text.rfind("\n"))
    return error(f"this is not TOML: {one_line(message)}", where=f"{where}:{line}:{column}")


def _schema_error(problem: ValidationError, where: str, schema: type[Table], error: type[UsageError]) -> UsageError:
    # A misspelled key is also a missing one: the unknown key is told first, because it is the cause.
    details = sorted(problem.errors(include_url=False), key=lambda d: d["type"] != "extra_forbidden")
    first = details[0]
    field, table = _place(schema, first["loc"])
    what, next_step = _sentence(first, field, table)
    if len(details) > 1:
        next_step += f" (the first of {len(details)} mistakes)"
    inner_key = str(first.get("ctx", {}).get("key", ""))
    key = key_path([*first["loc"], inner_key] if inner_key else first["loc"])
    return error(what, where=f"{where}:{key}", next_step=next_step)


def _sentence(detail: ErrorDetails, field: FieldInfo | None, table: type[BaseModel]) -> tuple[str, str]:
    """What is wrong and what is allowed, for one detail of pydantic's."""
    words = field.description if field and field.description else ""
    if detail["type"] == "extra_forbidden":
        keys = _keys(table)
        key = str(detail["loc"][-1])
        return f"unknown key {value_text(key)}", f"{nearest(key, keys)}allowed keys: {', '.join(keys)}"
    if detail["type"] == "missing":
        return "this key is missing", f"allowed: {words}"
    found = f"found {value_text(detail['input'])}"
    if detail["type"] == "refused":  # a validator of ours, which has said it better
        what = detail["msg"] if detail["ctx"]["key"] else f"{found}: {detail['msg']}"
        return what, f"allowed: {words}"
    return found, f"allowed: {words}"


def _keys(table: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _place(schema: type[BaseModel], location: tuple[str | int, ...]) -> tuple[FieldInfo | None, type[BaseModel]]:
    """The last described field on the way to `location`, and the innermost table that contains it."""
    field: FieldInfo | None = None
    table: type[BaseModel] = schema
    inner: type[BaseModel] | None = schema
    for part in location:
        if isinstance(part, int) or inner is None:
            continue
        table = inner
        by_key = {f.alias or name: f for name, f in table.model_fields.items()}
        if part not in by_key:
            break
        field = by_key[part]
        inner = _table_in(field.annotation)
    return field, table


def _table_in(annotation: object) -> type[BaseModel] | None:
    """The table that a field holds, alone, in a list, or optionally."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _table_in(argument)
        if found is not None:
            return found
    return None
