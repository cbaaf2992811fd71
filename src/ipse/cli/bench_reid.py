"""``ipse bench reid``: an encoder on photographs of people, with all that needs no training."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse.cli.recognizing import NO, AsJson, printable, progress, wrote
from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.gallery.reid import Photographs, Seen
    from ipse.gallery.report import Card, Section
    from ipse.measure import Retrieval

FIGURES = ("mAP", "rank-1", "rank-5", "mINP")
"""Columns of the table."""
# Pictures of an answer, and sides of their squares on the page in pixels.
_SHOWN, _SIDE = 5, 158


def reid(
    folder: Annotated[
        Path, typer.Argument(help="Photographs as published, or a data set of ipse world dataset.", show_default=False)
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="What is compared with what, and so how the folder lies: market1501, msmt17, cuhk03-np, "
            "occluded-duke, occluded-reid, ltcc-general, ltcc-changed, world-within-look or world-across-looks."
        ),
    ] = "market1501",
    encoder: Annotated[
        str, typer.Option(help="By name, or a file of ipse train encoder or ipse export.")
    ] = "body-world",
    split: Annotated[
        str | None,
        typer.Option(
            help="Cut this split into queries and gallery, in place of the published ones.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of features, figures and the page.")] = Path("out/reid"),
    lists: Annotated[int, typer.Option(min=0, help="Queries whose answers the page shows, from worst to best.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Measure an encoder on photographs of people, plain and with methods that need no training.

    Every photograph is encoded whole, once; a run that was stopped goes on. Then the same features are searched in
    ten ways: by cosine; averaged with the mirror image; centralized by neighbors (pose2id); expanded by neighbors;
    by way of pictures in the same clothes (faim); re-ranked (kreciprocal); the mirror image, centralization and
    re-ranking together; and these without each. Every way is told with intervals over people, and with how far it is
    ahead of the cosine on the same queries.

    Without published queries and gallery the split val is cut: the first picture of every person in every camera is
    a query. The protocol then says which pictures a query must not see.

    Examples:
      ipse bench reid Market-1501-v15.09.15

      ipse bench reid market1501 --encoder runs/market1501/market1501.safetensors --split val

      ipse bench reid bodies --protocol world-across-looks     people of the world in other clothes

    Exit status: 0 measured, 3 no query has anything to find, 2 wrong input, 1 the machine failed.
    """
    from ipse._files import write_whole
    from ipse.encoders import open_encoder
    from ipse.gallery.reid import WAYS, measure, open_photographs, see

    photographs = open_photographs(folder, protocol, split)
    made = open_encoder(encoder)
    with progress("Encoding photographs") as told:
        seen = see(photographs, made, out / "features", told)
    results: dict[str, Retrieval] = {}
    left_out: dict[str, str] = {}
    with progress("Searching") as told:
        for number, (name, way) in enumerate(WAYS.items(), 1):
            try:
                results[name] = measure(photographs, seen, way)
            except ValueError as error:
                if name == "cosine":
                    raise DataError(f"These photographs cannot be searched: {error}") from error
                # Neighbors that a small folder does not have.
                left_out[name] = str(error)
            told(number, len(WAYS))
    record = _record(photographs, results, left_out) | {
        "encoder": made.name, "fingerprint": made.fingerprint, "folder": printable(folder),
    }  # fmt: skip
    name = f"{protocol}-{made.name}"
    text = json.dumps(record, indent=2)
    write_whole(out / f"{name}.json", f"{text}\n".encode())
    page = _write(record, photographs, seen, results, out / f"{name}.html", lists)
    if as_json:
        typer.echo(text)
    else:
        _print(record)
        typer.echo(wrote(page))
    if not len(results["cosine"]):
        raise typer.Exit(NO)


def _record(photographs: Photographs, results: Mapping[str, Retrieval], left_out: Mapping[str, str]) -> dict[str, Any]:
    """The figures as JSON values."""
    from ipse.measure import compare

    cosine, ways = results["cosine"], {}
    for name, result in results.items() if len(cosine) else ():
        figures = {
            figure: {"value": value, "ci95": None if math.isnan(low) else [low, high]}
            for figure, (value, low, high) in result.figures().items()
        }
        ways[name] = {"figures": figures}
        if name != "cosine" and figures["mAP"]["ci95"]:
            ahead, interval = compare(result, cosine)
            ways[name]["mAP_ahead"] = {"value": ahead, "ci95": list(interval)}
    return {
        "protocol": photographs.protocol,
        "about": photographs.about,
        "queries": len(cosine),
        "gallery": len(photographs.gallery),
        "people": len(set(cosine.person.tolist())),
        "ways": ways,
        "left_out": dict(left_out),
        "notes": list(cosine.notes),
    }


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _ahead(way: Mapping[str, Any]) -> str:
    """By how many points a way is ahead of the cosine, with its interval."""
    if "mAP_ahead" not in way:
        return ""
    low, high = way["mAP_ahead"]["ci95"]
    return f"{100 * way['mAP_ahead']['value']:+.2f} ({100 * low:+.2f}, {100 * high:+.2f})"


def _print(record: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{record['encoder']} on {record['protocol']}: {record['queries']:,} queries of {record['people']:,} people "
        f"against {record['gallery']:,} pictures; {record['about']}",
        highlight=False,
    )
    if record["ways"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("Way", no_wrap=True)
        for figure in FIGURES:
            table.add_column(figure, justify="right", no_wrap=True)
        table.add_column("ahead of cosine", justify="right", no_wrap=True)
        for name, way in record["ways"].items():
            table.add_row(name, *(_percent(way["figures"][figure]["value"]) for figure in FIGURES), _ahead(way))
        console.print(table)
        console.print("In per cent; ahead in points of mAP, with 95 % intervals over people.")
    for name, reason in record["left_out"].items():
        console.print(f"{name} is left out: {reason}", highlight=False)
    for note in record["notes"]:
        console.print(note, highlight=False)


def _write(
    record: Mapping[str, Any],
    photographs: Photographs,
    seen: Seen,
    results: Mapping[str, Retrieval],
    path: Path,
    lists: int,
) -> Path:
    """The page: the table, and answers of some queries."""
    from ipse.gallery.report import Page, Section, write_report

    facts = [(f"{record['queries']:,}", "queries"), (f"{record['people']:,}", "people")]
    facts.append((f"{record['gallery']:,}", "pictures in the gallery"))
    rows = []
    for name, way in record["ways"].items():
        figures = " · ".join(f"{figure} {_percent(way['figures'][figure]['value'])} %" for figure in FIGURES)
        ahead = _ahead(way)
        rows.append((name, " · ".join(filter(None, [figures, ahead]))))
    sections = [
        Section(
            "Ways",
            "At the end, how many points of mAP each is ahead of the cosine, with its 95 % interval over people.",
            rows=rows,
        ),
        *_answers(photographs, seen, results, lists),
    ]
    if record["left_out"] or record["notes"]:
        reasons = [f"{name}: {reason}" for name, reason in record["left_out"].items()]
        sections.append(Section("Left out", " ".join([*reasons, *record["notes"]])))
    lede = f"{record['encoder']} on {record['folder']}: {record['about']}."
    notes = ["Pictures that the protocol ignores for a query are not among its answers."]
    return write_report(Page(f"Re-identification: {record['protocol']}", lede, facts, sections, notes), path)


def _answers(photographs: Photographs, seen: Seen, results: Mapping[str, Retrieval], lists: int) -> list[Section]:
    """Queries from the worst to the best by cosine, each with its nearest pictures by cosine and by all together."""
    import numpy as np

    from ipse.gallery.reid import WAYS, ranked, search
    from ipse.gallery.report import Section

    cosine = results["cosine"]
    order = cosine.values()["mAP"].argsort(kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(lists, len(order))).round().astype(int))]
    people = photographs.columns["person"]
    shown = [name for name in ("cosine", "together") if name in results]
    sources = {name: search(photographs, seen, WAYS[name]) for name in shown} if len(chosen) else {}
    sections = []
    for number in chosen:
        asked = int(cosine.query[number])
        row = photographs.query[asked]
        found, cards = [], []
        for name in shown:
            found.append(f"{name} {_percent(results[name].values()['mAP'][number])} %")
            cards.append(_card(photographs, row, f"asked, {name}"))
            for place, answer in enumerate(ranked(photographs, sources[name], asked, _SHOWN), 1):
                kind = "right" if people[answer] == people[row] else "wrong"
                cards.append(_card(photographs, answer, f"{place}: {kind}", kind))
        sections.append(Section(f"Person {people[row]}", f"Average precision: {', '.join(found)}.", cards))
    return sections


def _card(photographs: Photographs, row: int, title: str, kind: str = "") -> Card:
    """A photograph, linked to its file where it has one."""
    from ipse.gallery.report import Card

    image = photographs.images[row]
    return Card(_square(image, kind), title, file=image if isinstance(image, Path) else None)


def _square(image: Path | bytes, kind: str = "") -> bytes:
    """A JPEG that shows a whole picture in a square, with an edge that says whether it is right."""
    from PIL import Image

    from ipse.images import contact_sheet

    color = {"right": (44, 122, 75), "wrong": (176, 60, 50)}.get(kind, (200, 198, 192))
    sheet = contact_sheet([image], cell=(_SIDE - 8, _SIDE - 8), gap=4, background=(236, 234, 229))
    edge = Image.new("RGB", (sheet.width + 6, sheet.height + 6), color)
    edge.paste(sheet, (3, 3))
    file = io.BytesIO()
    edge.save(file, "JPEG", quality=85)
    return file.getvalue()
