"""``ipse evaluate``: how well features find their people, under a named protocol."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse.cli.recognizing import NO, AsJson, ReportPath, printable, progress, wrote
from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.measure import Retrieval


def evaluate(
    query: Annotated[
        Path | None, typer.Argument(help="Features of the queries: .npz, .safetensors or .parquet.", show_default=False)
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Argument(help="Features of the gallery; without it, each image against all others.", show_default=False),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="What is compared with what; --protocols lists them.", show_default=False)
    ] = None,
    protocols: Annotated[bool, typer.Option("--protocols", help="List the protocols and exit.")] = False,
    metric: Annotated[str, typer.Option(help="cosine or l2.")] = "cosine",
    features: Annotated[str, typer.Option(help="Name of the array of features in the files.")] = "features",
    rerank: Annotated[bool, typer.Option(help="Re-rank by k-reciprocal encoding.")] = False,
    memory: Annotated[float, typer.Option(min=0.1, help="MiB of distances held at a time.")] = 64,
    report: ReportPath = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate features: mAP, CMC and mINP with 95 % intervals over people.

    A file holds an array `features` of one row per image, and beside it one array per thing that is known of the
    images: `person`, and what the protocol needs, such as `camera` or `clothes`.

    Examples:
      ipse evaluate query.npz gallery.npz --protocol market1501

      ipse evaluate query.npz gallery.npz --protocol ltcc-changed --rerank --report page.html

      ipse evaluate faces.parquet --metric l2 --json

    Exit status: 0 evaluated, 3 no query has anything to find, 2 wrong input, 1 the machine failed.
    """
    from ipse.measure import PROTOCOLS, Features
    from ipse.measure import evaluate as run
    from ipse.measure.tables import read_features

    if protocols:
        for one in PROTOCOLS.values():
            typer.echo(f"{one.name:<22}{one.about}")
        return
    if query is None:
        raise DataError("There are no features to evaluate.", "Name a file, or see ipse evaluate --help.")
    chosen = protocol or ("all" if gallery else "leave-one-out")
    if chosen not in PROTOCOLS:
        raise DataError(f"There is no protocol {chosen!r}.", f"There are: {', '.join(PROTOCOLS)}.")
    if metric not in ("cosine", "l2"):
        raise DataError(f"There is no metric {metric!r}.", "There are: cosine, l2.")
    ours, query_columns = read_features(query, features)
    query_columns.setdefault("image", _numbers(len(ours)))
    theirs, gallery_columns = (ours, query_columns) if gallery is None else read_features(gallery, features)
    try:
        if rerank:
            from ipse.gallery.rerank import KReciprocal

            source: Any = KReciprocal(ours, theirs, metric, memory_mib=memory)  # type: ignore[arg-type]
        else:
            source = Features(ours, theirs, metric, ranks_only=True)  # type: ignore[arg-type]
        with progress("Evaluating") as tell:
            result = run(source, query_columns, gallery_columns, chosen, memory_mib=memory, on_progress=tell)
    except ValueError as error:
        raise DataError(str(error), "See what the files hold.") from error
    record = _record(result, rerank)
    if report:
        _write(record, report, [query, *([gallery] if gallery else [])])
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        _print(record)
        if report:
            typer.echo(wrote(report))
    if not len(result):
        raise typer.Exit(NO)


def _numbers(count: int) -> Any:
    import numpy as np

    return np.arange(count)


def _record(result: Retrieval, rerank: bool) -> dict[str, Any]:
    """The result as JSON values."""
    figures = result.figures() if len(result) else {}
    return {
        "protocol": result.protocol.name,
        "about": result.protocol.about,
        "reranked": rerank,
        "queries": len(result),
        "people": len(set(result.person.tolist())),
        "figures": {
            name: {"value": value, "ci95": None if math.isnan(low) else [low, high]}
            for name, (value, low, high) in figures.items()
        },
        "notes": list(result.notes),
    }


def _rows(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, f"{100 * figure['value']:.2f} %", "{:.2f} – {:.2f}".format(*(100 * end for end in figure["ci95"])))
        if figure["ci95"]
        else (name, f"{100 * figure['value']:.2f} %", "")
        for name, figure in record["figures"].items()
    ]


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{record['protocol']}{', re-ranked' if record['reranked'] else ''}: {record['queries']:,} queries of "
        f"{record['people']:,} people"
    )
    if record["figures"]:
        table = Table("Figure", box=None, pad_edge=False, header_style="bold")
        table.add_column("Value", justify="right")
        table.add_column("95 % over people", justify="right")
        for row in _rows(record):
            table.add_row(*row)
        console.print(table)
    for note in record["notes"]:
        console.print(note, highlight=False)


def _write(record: dict[str, Any], report: Path, files: list[Path]) -> None:
    from ipse.gallery.report import Page, Section, write_report

    facts = [(f"{record['queries']:,}", "queries"), (f"{record['people']:,}", "people")]
    facts += [(value, name) for name, value, _ in _rows(record) if name in ("mAP", "rank-1")]
    shown = [(name, f"{value}   ({ends})" if ends else value) for name, value, ends in _rows(record)]
    sections = [Section("Figures", "In brackets, 95 % bootstrap intervals over people.", rows=shown)] if shown else []
    if record["notes"]:
        sections.append(Section("Left out", " ".join(record["notes"])))
    lede = f"{record['about']} {', '.join(map(printable, files))}{'; re-ranked' if record['reranked'] else ''}."
    notes = [
        "mAP is the mean of the precisions at the hits; the definitions in brackets are those of other papers.",
    ]
    write_report(Page(f"Evaluation: {record['protocol']}", lede, facts, sections, notes), report)
