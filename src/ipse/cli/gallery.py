"""``ipse gallery``: see, calibrate, move and clear what is remembered."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse.cli.recognizing import (
    DEFAULT_GALLERY,
    INDEX,
    AsJson,
    DetectorFile,
    EncoderName,
    GalleryPath,
    KeyFile,
    ReportPath,
    count,
    make_reader,
    open_gallery,
    printable,
    read_key,
    wrote,
)
from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.gallery import Gallery

gallery = typer.Typer(
    no_args_is_help=True, add_completion=False, help="See, calibrate, move and clear what is remembered."
)

Name = Annotated[str, typer.Argument(help="Who.", show_default=False)]


@gallery.command("list")
def list_people(folder: GalleryPath = DEFAULT_GALLERY, as_json: AsJson = False) -> None:
    """List everybody who is enrolled.

    Examples:
      ipse gallery list

      ipse gallery list --json | jq -r '.people[].name'
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    opened = open_gallery(folder)
    people = opened.people()
    threshold = opened.threshold()
    if as_json:
        record = {
            "encoder": dataclasses.asdict(opened.encoder),
            "protected": opened.protected,
            "threshold": dataclasses.asdict(threshold),
            "people": [dataclasses.asdict(person) for person in people],
        }
        typer.echo(json.dumps(record, indent=2))
        return
    console = Console()
    table = Table("Name", "Templates", "May be used to", "Enrolled", box=None, pad_edge=False, header_style="bold")
    for person in people:
        table.add_row(
            Text(person.name), f"{person.templates:,}", ", ".join(person.purposes) or "nothing", person.enrolled[:10]
        )
    if people:
        console.print(table)
    total = sum(person.templates for person in people)
    protected = ", protected by a key" if opened.protected else ""
    console.print(
        f"{count(len(people), 'person', 'people')}, {count(total, 'template')} of {opened.encoder.name}{protected}."
    )
    if threshold.value is not None:
        console.print(f"Threshold {threshold.value:.3f} ({threshold.source}).")
    if threshold.note:
        console.print(Text(threshold.note, style="dim"))


@gallery.command()
def show(
    name: Name,
    folder: GalleryPath = DEFAULT_GALLERY,
    report: ReportPath = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show what is remembered of a person, and which pictures do not fit the others.

    Examples:
      ipse gallery show Ada

      ipse gallery show Ada --report ada.html      with the crops
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    opened = open_gallery(folder, key_file=key_file)
    person = opened.person(name)
    fused = opened.fuse(name)
    rows = [
        {
            "source": entry.get("source", ""),
            "date": entry.get("date", ""),
            "quality": round(float(quality), 3),
            "distance": round(float(distance), 3),
            "odd": fused.rejected.get(i, ""),
        }
        for i, (entry, quality, distance) in enumerate(
            zip(person.provenance, person.quality, fused.distances, strict=True)
        )
    ]
    if report:
        _report_person(report, person.name, rows, opened)
    if as_json:
        typer.echo(json.dumps({"name": person.name, "consent": dict(person.consent), "templates": rows}, indent=2))
        return
    table = Table("From", "Date", "Quality", "From the middle", "", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(
            Text(printable(row["source"]) or "–"),
            row["date"][:10] or "–",
            f"{row['quality']:.2f}",
            f"{row['distance']:.2f}",
            "does not fit the others" if row["odd"] else "",
        )
    console = Console()
    console.print(Text(person.name, style="bold"))
    console.print(table)
    purposes = person.consent.get("purposes", {})
    allowed = ", ".join(purpose for purpose, is_allowed in purposes.items() if is_allowed) or "nothing"
    source = f" ({person.consent['source']})" if person.consent.get("source") else ""
    console.print(Text(f"May be used to: {allowed}{source}."))
    if report:
        typer.echo(wrote(report))


def _report_person(report: Path, name: str, rows: list[dict[str, Any]], opened: Gallery) -> None:
    from ipse.gallery.report import Card, Page, Section, write_report

    limit = opened.threshold().value
    cards = [
        Card(
            crop,
            f"quality {row['quality']:.2f}",
            distance=row["distance"],
            threshold=limit,
            file=Path(row["source"]) if row["source"] else None,
            caution=["Does not fit the others."] if row["odd"] else [],
        )
        for row, crop in zip(rows, opened.crops(name), strict=True)
    ]
    page = Page(name, "What is remembered.", [(f"{len(rows):,}", "templates")], [Section("Templates", cards=cards)])
    write_report(page, report)


@gallery.command()
def calibrate(
    fpir: Annotated[
        float, typer.Option(help="The share of strangers, over 0 and under 1, that may be taken for somebody.")
    ] = 0.01,
    folder: GalleryPath = DEFAULT_GALLERY,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Find the threshold for this gallery: the distance up to which a face is taken for somebody.

    Everybody who is enrolled plays the stranger to all others; the threshold is what no more than the wanted share of
    them would pass. It is stored, and `ipse find` uses it from then on. Run it again when many people have been added.

    Examples:
      ipse gallery calibrate                 at most 1 stranger of 100 is taken for somebody

      ipse gallery calibrate --fpir 0.001    stricter: fewer false alarms, more people missed
    """
    if not 0 < fpir < 1:
        raise DataError(f"The share of strangers lies between 0 and 1, not at {fpir:g}.", "Such as: --fpir 0.01")
    found = open_gallery(folder, key_file=key_file).calibrate(fpir)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    low, high = found.ci95
    typer.echo(f"Threshold {found.threshold:.3f} (95 % interval {low:.3f} to {high:.3f}), stored with the gallery.")
    typer.echo(
        f"Of {found.strangers:,} people who played strangers, at most {100 * fpir:g} % came nearer; the true share is "
        f"below {100 * found.fpir_upper:.2g} % at 95 % confidence."
    )
    if found.note:
        typer.echo(found.note)


@gallery.command()
def forget(
    names: Annotated[list[str], typer.Argument(help="Who is to be forgotten.", show_default=False)],
    folder: GalleryPath = DEFAULT_GALLERY,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Forget people for good: names, vectors, crops and what the index of photographs has of them.

    No file of the gallery holds anything of them afterwards. Photographs, exports, reports and backups are yours to
    delete.

    Examples:
      ipse gallery forget Ada

      ipse gallery forget Ada Ben --yes      without asking, such as in a script
    """
    from ipse.gallery.labeling import ANSWERS, forget_answers

    opened = open_gallery(folder, key_file=key_file)
    if not yes:
        typer.confirm(f"Forget {', '.join(names)} for good?", abort=True, err=True)
    dropped = _forget_in_index(opened, names)
    templates = opened.forget(*names)
    forget_answers(opened.path / ANSWERS, names)
    if as_json:
        typer.echo(json.dumps({"forgotten": names, "templates": templates, "index_files": dropped}))
        return
    typer.echo(
        f"Forgotten: {', '.join(names)} ({count(templates, 'template')}; "
        f"{count(dropped, 'file')} dropped from the index of photographs)."
    )


def _forget_in_index(opened: Gallery, names: list[str]) -> int:
    """Drop from the index what shows these people. It goes first: afterwards nobody knows their faces."""
    import numpy as np

    from ipse.gallery.index import PhotoIndex, Reader

    path = opened.path / INDEX
    people = [opened.person(name) for name in names] if path.exists() else []
    if not people:
        return 0
    templates = np.concatenate([person.templates for person in people])
    limits = [value for value in (opened.threshold().value, opened.encoder.threshold) if value is not None]
    # Rather a stranger's picture read again than a trace left.
    limit = 1.1 * max(limits, default=float("inf"))

    def shown(vectors: np.ndarray) -> np.ndarray:
        if vectors.shape[1] != templates.shape[1]:
            return np.ones(len(vectors), bool)
        if opened.encoder.metric == "cosine":
            unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            return (1 - unit @ templates.T).min(axis=1) <= limit
        square = (vectors**2).sum(1)[:, None] + (templates**2).sum(1) - 2 * vectors @ templates.T
        return square.min(axis=1) <= limit**2

    with PhotoIndex(path, Reader()) as index:
        return index.drop_people(shown)


@gallery.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write, such as people.parquet.", show_default=False)],
    names: Annotated[
        list[str] | None, typer.Argument(help="Only these people; everybody by default.", show_default=False)
    ] = None,
    folder: GalleryPath = DEFAULT_GALLERY,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Write people to one portable file: vectors in plain form, crops, provenance and consent.

    Examples:
      ipse gallery export people.parquet

      ipse gallery export ada.parquet Ada
    """
    templates = open_gallery(folder, key_file=key_file).export(file, names or None)
    if as_json:
        typer.echo(json.dumps({"file": printable(file), "templates": templates}))
        return
    typer.echo(f"{count(templates, 'template')} written to {printable(file)}. It is not protected: keep it safe.")


@gallery.command("import")
def import_people(
    file: Annotated[Path, typer.Argument(help="What `ipse gallery export` wrote.", show_default=False)],
    folder: GalleryPath = DEFAULT_GALLERY,
    add: Annotated[bool, typer.Option("--add", help="Add to people who are enrolled already.")] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Bring the people of an export into a gallery; all of them or, on an error, none.

    Examples:
      ipse gallery import people.parquet

      ipse gallery import people.parquet --gallery other --add
    """
    from ipse.gallery import Gallery

    opened = Gallery.import_(file, folder, key=read_key(key_file), add=add)
    people = opened.people()
    if as_json:
        typer.echo(json.dumps({"people": len(people), "templates": len(opened)}))
        return
    typer.echo(
        f"{printable(folder)} now holds {count(len(people), 'person', 'people')}, {count(len(opened), 'template')}."
    )


@gallery.command()
def migrate(
    folder: GalleryPath = DEFAULT_GALLERY,
    encoder: EncoderName = None,
    detector: DetectorFile = None,
    drop: Annotated[bool, typer.Option("--drop", help="Leave out templates that cannot be encoded again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a gallery to another encoder: the stored crops are encoded again.

    Without --encoder it moves to the built-in one. Calibrate afterwards: distances of two encoders have nothing in
    common.

    Examples:
      ipse gallery migrate --encoder arcface.onnx
    """
    reader = make_reader(encoder, detector)
    moved = open_gallery(folder).migrate(reader.encoder, drop=drop)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(moved), indent=2))
        return
    typer.echo(f"{count(moved.templates, 'template')} encoded again by {reader.encoder.name}.")
    if moved.dropped:
        typer.echo(f"Left out: {', '.join(f'{name} ({n})' for name, n in sorted(moved.dropped.items()))}.")
    if moved.to_enroll_again:
        typer.echo(f"To be enrolled again: {', '.join(moved.to_enroll_again)}.")
    typer.echo("Next: ipse gallery calibrate")


@gallery.command()
def rekey(
    folder: GalleryPath = DEFAULT_GALLERY,
    key_file: KeyFile = None,
    new_key_file: Annotated[
        Path | None, typer.Option("--new-key-file", help="A file with the passphrase from now on; without it, none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Protect a gallery with a passphrase, change it, or take it away.

    With a key, stored vectors are turned by a secret rotation: whoever copies the folder cannot compare them with any
    face. The index of photographs holds plain vectors, so it is deleted and kept in memory only from then on. Whoever
    loses the key loses the gallery.

    Examples:
      ipse gallery rekey --new-key-file key.txt                       protect

      ipse gallery rekey --key-file key.txt --new-key-file new.txt    change

      ipse gallery rekey --key-file key.txt                           take the protection away
    """
    opened = open_gallery(folder, key_file=key_file)
    new = read_key(new_key_file)
    opened.rekey(read_key(key_file), new)
    if new is not None:
        for suffix in ("", "-journal"):
            (opened.path / f"{INDEX}{suffix}").unlink(missing_ok=True)
    if as_json:
        typer.echo(json.dumps({"protected": opened.protected}))
        return
    typer.echo(f"{printable(folder)} is {'protected by the new key' if new is not None else 'not protected any more'}.")
