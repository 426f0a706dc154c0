"""Commands about a Docker engine: Compose projects, images, ensembles that run already, and what dead runs left."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from harness.cli_options import TopologyArgument, console
from harness.errors import UsageError

commands = typer.Typer()


@commands.command()
def compose(
    topology: TopologyArgument,
    write: Annotated[bool, typer.Option("--write", help="Write compose/NAME.yml instead of printing it.")] = False,
) -> None:
    """Print a topology's Compose file."""
    from harness.compose import compose_file
    from harness.topology.loader import load_topology

    loaded = load_topology(topology)
    text = compose_file(loaded)
    if not write:
        print(text, end="")  # noqa: T201  # for a file or a pipe
        return
    path = Path("compose", f"{loaded.name}.yml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path)  # noqa: T201  # as `report` does


@commands.command()
def up(topology: TopologyArgument) -> None:
    """Bring a topology up with Docker Compose; say who leads, how to reach it and how to break it."""
    import time

    from harness.testbed.engine import connect_engine
    from harness.topology.drawing import draw
    from harness.topology.loader import load_topology

    loaded = load_topology(topology)
    with contextlib.closing(connect_engine()) as client:
        from harness.compose_project import ComposeProject, wait_until_serving
        from harness.compose_view import how_to_use

        project = ComposeProject(loaded.name, client)
        print(draw(loaded))  # noqa: T201  # a drawing must not be wrapped
        begun = time.monotonic()
        project.up(loaded, lambda line: console.print(Text(line), soft_wrap=True))
        took = time.monotonic() - begun
        print(how_to_use(loaded, wait_until_serving(project), took), end="")  # noqa: T201  # a table, likewise


@commands.command()
def down(topology: TopologyArgument) -> None:
    """Remove what `zkchaos up` made: containers, networks and data."""
    from harness.testbed.engine import connect_engine
    from harness.topology.loader import load_topology

    with contextlib.closing(connect_engine()) as client:
        from harness.compose_project import ComposeProject

        project = ComposeProject(topology, client)
        if not project.exists():  # then it must be a topology at least, and may be a file
            project = ComposeProject(load_topology(topology).name, client)
        project.down()
    console.print(f"{project.topology_name} is down", highlight=False)


@commands.command()
def image(
    zookeeper: Annotated[
        list[str] | None, typer.Option(help="A server of this version; may be said several times.")
    ] = None,
    helper: Annotated[bool, typer.Option("--helper", help="The helper container, for users without root.")] = False,
    toxiproxy: Annotated[bool, typer.Option("--toxiproxy", help="A TCP proxy that delays and cuts.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Of the newest Debian packages.")] = False,
) -> None:
    """Make images on the Docker engine, without any registry; all three if none is named."""
    from harness.testbed.engine import connect_engine

    def tell(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    with contextlib.closing(connect_engine()) as client:
        from harness.images.make import make_images

        for made in make_images(client, zookeeper or (), tell, helper=helper, toxiproxy=toxiproxy, fresh=fresh):
            tell(str(made))


@commands.command()
def attach(
    name: Annotated[str, typer.Argument(help="A Compose project, a topology that is up, or a label as key=value.")],
    heal: Annotated[bool, typer.Option(help="Restore every link and start every server first.")] = False,
) -> None:
    """Look at an ensemble of containers that runs already, and let `zkchaos fault` break it."""
    from harness.attach import remember, show

    show(console, name, heal=heal)
    remember(name)


@commands.command()
def fault(
    kind: Annotated[str, typer.Argument(help="A kind of fault, as `zkchaos plans` lists them.")],
    target: Annotated[str, typer.Argument(help="As in a plan: net1, zk2, zk2:net1, leader, `a follower`, minority.")],
    for_: Annotated[str | None, typer.Option("--for", help="How long; 10s if not said.")] = None,
    name: Annotated[str | None, typer.Option("--on", help="What to break; else what was attached last.")] = None,
    helper: Annotated[bool, typer.Option("--helper", help="Through the helper container, also as root.")] = False,
) -> None:
    """Break an attached ensemble once, prove it, and heal it."""
    from harness.attach import break_once, remembered
    from harness.topology.duration import parse_duration

    try:
        seconds = parse_duration(for_) if for_ is not None else None
    except ValueError as problem:
        raise UsageError(str(problem), where="--for") from problem
    break_once(console, remembered() if name is None else name, kind, target, seconds, helper=helper)


@commands.command()
def clean() -> None:
    """Remove what dead runs left on the Docker engine, and nothing else."""
    from harness.testbed.engine import connect_engine

    with contextlib.closing(connect_engine()) as client:
        from harness.testbed.leftovers import Leftover, remove_leftovers

        removed: list[Leftover] = []

        def tell(thing: Leftover) -> None:
            removed.append(thing)
            console.print(Text(f"removed {thing}"), soft_wrap=True)

        for kept in remove_leftovers(client, tell):
            console.print(Text(f"kept {kept}"), soft_wrap=True)
    if not removed:
        console.print("dead runs have left nothing")
