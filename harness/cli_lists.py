"""Commands that say what there is: topologies, plans, kinds of fault, and what this machine can do."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.text import Text

from harness.cli_options import RunsOption, TopologyArgument, console

commands = typer.Typer()


@commands.command()
def topologies() -> None:
    """List the topologies that come with the harness."""
    from harness.topology.drawing import describe
    from harness.topology.loader import library_topologies, load_topology

    for name in library_topologies():
        console.print(Text(f"{name:18} {describe(load_topology(name))}"), soft_wrap=True)


@commands.command()
def show(topology: TopologyArgument) -> None:
    """Draw a topology: its switches, hosts and addresses."""
    from harness.topology.drawing import draw
    from harness.topology.loader import load_topology

    print(draw(load_topology(topology)))  # noqa: T201  # a drawing must not be wrapped


@commands.command()
def plans() -> None:
    """List the fault plans that come with the harness, and the kinds of fault."""
    from harness.nemesis.kinds import KINDS
    from harness.nemesis.plan_loader import library_plans, load_plan

    for name in library_plans():
        console.print(Text(f"{name:24} {load_plan(name).title}"), soft_wrap=True)
    console.print("\nkinds of fault:")
    for kind in KINDS.values():
        console.print(Text(f"{kind.name:24} {kind.summary}"), soft_wrap=True)


@commands.command()
def faults() -> None:
    """List the kinds of fault: how a plan says them, what they need, and whether this machine has it."""
    from harness.faults_view import show_faults

    show_faults(console)


@commands.command()
def doctor(runs: RunsOption = Path("runs")) -> None:
    """Say what this machine can do, and what to do about the rest."""
    from harness.doctor import examine, show_findings
    from harness.doctor_finding import possible

    findings = examine(runs)
    show_findings(console, findings)
    raise typer.Exit(0 if possible(findings) else 3)
