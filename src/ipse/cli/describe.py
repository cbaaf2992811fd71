"""``ipse describe``: what can be seen of the people in photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ipse.cli.recognizing import (
    NO,
    AsJson,
    DetectorFile,
    ReportPath,
    Turned,
    count,
    make_detector,
    printable,
    progress,
    wrote,
)
from ipse.errors import ImageError

if TYPE_CHECKING:
    from ipse.attributes import AttributeRecognizer, Told
    from ipse.faces import Detector, Face, Quality
    from ipse.gallery.index import Entry
    from ipse.gallery.report import Card, Page

_CROP_SIDE = 160


class _Seen(NamedTuple):
    """A face, and what is told of it."""

    face: Face
    quality: Quality
    crop: bytes
    told: dict[str, Told]


class _File(NamedTuple):
    """A file with its faces, or the reason why it cannot be used."""

    path: Path
    faces: list[_Seen]
    reason: str = ""
    problem: str = ""


def describe(
    places: Annotated[list[Path], typer.Argument(help="Photographs, and folders of them.", show_default=False)],
    network: Annotated[str, typer.Option(help="A network by name, or the ONNX file of your own.")] = "attributes-world",
    report: ReportPath = None,
    as_json: AsJson = False,
    detector: DetectorFile = None,
    turned: Turned = False,
) -> None:
    """Tell what can be seen of every face: age, hair, glasses, expression and the like, each with how sure it is.

    The network has learned from people who do not exist. What it says of a face is a guess about a picture, not a fact
    about a person: who somebody is, how they feel or where they come from cannot be seen.

    Examples:
      ipse describe party.jpg

      ipse describe photos/ --report page.html     a page with pictures

      ipse describe photos/ --json | jq .faces     one line of JSON per file, then one with the summary

    Exit status: 0 a face was described, 3 none was found, 2 wrong input, 1 the machine failed.
    """
    from ipse.attributes import AttributeRecognizer
    from ipse.gallery.index import Listing

    recognizer, finder = AttributeRecognizer(network), make_detector(detector, turned=turned)
    entries = list(Listing(places))
    files: list[_File] = []
    with progress("Reading photographs") as tell:
        for entry in entries:
            files.append(_read(entry, finder, recognizer))
            tell(len(files), len(entries))
            if as_json:
                typer.echo(json.dumps(_json(files[-1])))
    faces = sum(len(file.faces) for file in files)
    if report:
        from ipse.gallery.report import write_report

        write_report(_page(files, places, recognizer), report)
    if as_json:
        problems = sum(bool(file.problem) for file in files)
        summary = {"files": len(files), "faces": faces, "problems": problems, "network": recognizer.name}
        typer.echo(json.dumps({"summary": {**summary, "fingerprint": recognizer.fingerprint}}))
    else:
        _print(files)
        if report:
            typer.echo(wrote(report))
    if not faces:
        raise typer.Exit(NO)


def _read(entry: Entry, finder: Detector, recognizer: AttributeRecognizer) -> _File:
    from ipse.faces import assess
    from ipse.gallery.index import decoded, face_crop

    try:
        if entry.kind == "problem":
            raise ImageError(entry.problem, reason="unreadable")
        if entry.kind == "video":
            raise ImageError("Videos are not described.", "Describe pictures taken out of it.", reason="unsupported")
        image = decoded(entry.path)
    except ImageError as error:
        return _File(entry.path, [], error.reason, str(error))
    faces = finder.detect(image)
    parts = zip(faces, assess(image, faces), recognizer.recognize(image, faces), strict=True)
    return _File(entry.path, [_Seen(f, quality, face_crop(image, f, _CROP_SIDE), told) for f, quality, told in parts])


def _json(file: _File) -> dict[str, Any]:
    record: dict[str, Any] = {"path": printable(file.path)}
    if file.problem:
        return {**record, "reason": file.reason, "problem": file.problem, "faces": []}
    faces = [
        {
            "box": [round(value, 1) for value in seen.face.box],
            "score": round(seen.face.score, 3),
            "quality": round(seen.quality.overall, 3),
            "reasons": list(seen.quality.reasons),
            "attributes": {name: told.to_json() for name, told in seen.told.items()},
        }
        for seen in file.faces
    ]
    return {**record, "faces": faces}


def _print(files: list[_File]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for file in files:
        said = file.problem or ("" if file.faces else "no face")
        console.print(Text.assemble((printable(file.path), "bold"), f": {said}" if said else ""), soft_wrap=True)
        for number, seen in enumerate(file.faces, 1):
            x, y = ((seen.face.box[i] + seen.face.box[i + 2]) / 2 for i in (0, 1))
            console.print(Text(f"  face {number}, at {x:.0f}, {y:.0f}", style="dim"))
            for line in _lines(seen):
                console.print(Text(f"    {line}"), soft_wrap=True)
            for reason in seen.quality.reasons:
                console.print(Text(f"    ! {reason}", style="yellow"))
    total = sum(len(file.faces) for file in files)
    console.print(f"{count(len(files), 'file')}, {count(total, 'face')}.")


def _page(files: list[_File], places: list[Path], recognizer: AttributeRecognizer) -> Page:
    from ipse.gallery.report import Page, Section

    cards = [_card(file, seen) for file in files for seen in file.faces]
    sections = [Section("Faces", cards=cards)] if cards else []
    if empty := [file for file in files if not file.faces and not file.problem]:
        rows = [(printable(file.path), "no face") for file in empty]
        sections.append(Section(f"Without a face — {len(empty):,}", rows=rows, folded=True))
    if problems := [file for file in files if file.problem]:
        rows = [(printable(file.path), file.problem) for file in problems]
        sections.append(Section(f"Not usable — {len(problems):,}", rows=rows))
    facts = [
        (f"{len(files):,}", "file" if len(files) == 1 else "files"),
        (f"{len(cards):,}", "face" if len(cards) == 1 else "faces"),
        (f"{len(recognizer.attributes):,}", "attributes of each"),
    ]
    notes = [
        "Percentages say how often such an answer was right for people who do not exist, whom the network has learned "
        "from; of photographs it may be wrong more often. Age is told with one standard deviation.",
        f"Network: {recognizer.name} ({recognizer.fingerprint[:12]}).",
        "This page contains pictures of people: handle it as you would their photographs.",
    ]
    lede = "Described: " + ", ".join(printable(place) for place in places)
    return Page("What can be seen of these faces", lede, facts, sections, notes)


def _card(file: _File, seen: _Seen) -> Card:
    from ipse.gallery.report import Card

    return Card(seen.crop, lines=_lines(seen), file=file.path, caution=seen.quality.reasons)


def _lines(seen: _Seen) -> list[str]:
    """What is told of a face, what cannot be seen last."""
    return [told.text for told in sorted(seen.told.values(), key=lambda told: told.value is None)]
