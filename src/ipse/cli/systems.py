"""``ipse systems``: the catalogue with its evidence."""

from __future__ import annotations

import dataclasses
import json

import typer

from ipse import catalogue


def systems(
    as_json: bool = typer.Option(False, "--json", help="Print JSON, for programs."),
    room: str = typer.Option("", "--room", help="Only the systems of this room."),
) -> None:
    """List the published systems that work here, with their evidence."""
    available = catalogue.figures()
    entries = [entry for entry in catalogue.systems() if room in ("", entry.room)]
    if as_json:
        rows = [dataclasses.asdict(e) | {"figures": catalogue.evidence_of(e, available)} for e in entries]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("Room", "System", "Year", "Status", "Evidence", box=None, pad_edge=False, header_style="bold")
    for entry in entries:
        shown = [_figure(figure) for figure in catalogue.evidence_of(entry, available)]
        table.add_row(
            entry.room,
            f"{entry.name}\n[dim]{entry.paper}[/dim]",
            str(entry.year),
            entry.status,
            "\n".join(shown) or f"[dim]{', '.join(entry.evidence)}[/dim]",
        )
    console = Console()
    if entries:
        console.print(table)
    else:
        console.print("No system is in the catalogue yet." if not room else f"No system is in the room {room}.")


def _figure(figure: dict[str, object]) -> str:
    return f"{figure['name']} {figure['value']:.4g} {figure['unit']}".rstrip()
