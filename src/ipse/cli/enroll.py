"""``ipse enroll``: remember somebody from photographs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse.cli.recognizing import (
    DEFAULT_GALLERY,
    NO,
    AsJson,
    DetectorFile,
    EncoderName,
    GalleryPath,
    KeyFile,
    ReportPath,
    Turned,
    Workers,
    count,
    make_reader,
    open_gallery,
    printable,
    progress,
    wrote,
)
from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.gallery.enrolling import Enrollment
    from ipse.gallery.report import Page

# Crops that a gallery may have to encode again one day are kept larger than those of reports.
_CROP_SIDE = 256


def enroll(
    name: Annotated[str, typer.Argument(help="Who it is.", show_default=False)] = "",
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photographs, or folders of them.", show_default=False)
    ] = None,
    people: Annotated[
        Path | None, typer.Option("--people", help="A folder with a subfolder of photographs for each person, by name.")
    ] = None,
    gallery: GalleryPath = DEFAULT_GALLERY,
    add: Annotated[bool, typer.Option("--add", help="Add to somebody who is enrolled already.")] = False,
    largest: Annotated[
        bool, typer.Option("--largest", help="Where there are several faces, take the largest.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Take photographs that look like somebody else, too.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", help="A purpose the person consents to, such as recognize or generate; may be repeated."
        ),
    ] = None,
    consent_source: Annotated[str, typer.Option(help="Where the consent is recorded, such as 'form 12'.")] = "",
    report: ReportPath = None,
    as_json: AsJson = False,
    workers: Workers = None,
    key_file: KeyFile = None,
    encoder: EncoderName = None,
    detector: DetectorFile = None,
    turned: Turned = False,
) -> None:
    """Remember a person from one or more photographs.

    Good ones show one face, from the front, in even light; three to five on different days are better than one. Each
    photograph that is not used is named with the reason: no face, several faces and nothing to tell which is meant, or
    a face unlike the others. If at least one is good, the person is enrolled.

    Examples:
      ipse enroll Ada ada1.jpg ada2.jpg             make or extend the gallery in ./ipse-gallery

      ipse enroll Ada more/*.jpg --add              more photographs of somebody who is there

      ipse enroll --people family/                  family/Ada/*.jpg, family/Ben/*.jpg, …

      ipse enroll Ada ada.jpg --allow recognize --allow generate --consent-source "form 12"

    Without --allow, enrolling is taken for consent to be recognized, and no more.

    Exit status: 0 enrolled, 3 no photograph could be used, 2 wrong input, 1 the machine failed.
    """
    from ipse.gallery import enrolling
    from ipse.gallery.index import Listing, PhotoIndex

    sources = _sources(name, photos or [], people)
    reader = make_reader(encoder, detector, turned=turned, crop_side=_CROP_SIDE)
    target = open_gallery(gallery, reader, key_file, create=True)
    if not add:
        _refuse_clashes([who for who, _ in sources], target)
    prepared: list[Enrollment] = []
    # In memory: what is kept of these photographs is what goes into the gallery.
    with PhotoIndex(None, reader) as index:
        places = [place for _, files in sources for place in files]
        with progress("Reading photographs") as tell:
            run = index.update(Listing(places), workers=workers, on_progress=tell)
        read = {photo.path: photo for photo in index.photos(run)}
    for who, files in sources:
        mine = [read[Path(entry.path).absolute()] for entry in Listing(files) if Path(entry.path).absolute() in read]
        one = enrolling.prepare(who, mine, target, add=add, largest=largest)
        prepared.append(enrolling.anyway(one) if anyway else one)
    enrolling.commit(prepared, target, consent=_consent(allow or [], consent_source), add=add)
    target.keep_snapshot()
    if report:
        from ipse.gallery.report import write_report

        write_report(_page(prepared), report)
    if as_json:
        typer.echo(json.dumps([_json(one) for one in prepared], indent=2))
    else:
        _print(prepared)
        if report:
            typer.echo(wrote(report))
    if not any(one.used for one in prepared):
        raise typer.Exit(NO)


def _sources(name: str, photos: Sequence[Path], people: Path | None) -> list[tuple[str, list[Path]]]:
    """Names and where their photographs are."""
    if people is None:
        if not name or not photos:
            raise DataError("Who is to be enrolled, and from what?", "Such as: ipse enroll Ada ada1.jpg ada2.jpg")
        return [(name, list(photos))]
    if name or photos:
        raise DataError("With --people, names come from the subfolders.", "Leave out NAME and PHOTOS.")
    if not people.is_dir():
        raise DataError(f"{people} is not a folder.", "Name a folder with a subfolder for each person.")
    folders = sorted(entry for entry in people.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise DataError(f"{people} has no subfolders.", "It should hold one folder of photographs for each person.")
    return [(folder.name.replace("_", " "), [folder]) for folder in folders]


def _refuse_clashes(names: Sequence[str], gallery: Any) -> None:
    """Say that a name is taken before an hour of reading, not after."""
    from ipse.errors import GalleryError

    for name in names:
        if name in gallery:
            raise GalleryError(
                f"There is somebody called {name!r} already.",
                "If it is the same person, use --add; if not, give another name.",
                reason="name-clash",
            )


def _consent(allow: Sequence[str], source: str) -> dict[str, Any] | None:
    if not allow and not source:
        return None
    purposes = dict.fromkeys(allow or ["recognize"], True)
    return {"purposes": purposes, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "source": source or "command line"}


def _json(one: Enrollment) -> dict[str, Any]:
    return {
        "name": one.name,
        "enrolled": [
            {
                "path": printable(used.photo.path),
                "quality": round(used.face.quality, 3),
                "reasons": list(used.face.reasons),
                "note": used.note,
            }
            for used in one.used
        ],
        "refused": [
            {"path": printable(refused.photo.path), "reason": refused.reason, "text": refused.text}
            for refused in one.refused
        ],
        "warnings": list(one.warnings),
    }


def _print(prepared: Sequence[Enrollment]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for one in prepared:
        mark, style = ("✓", "green") if one.used else ("✗", "red")
        said = f"enrolled from {count(len(one.used), 'photograph')}" if one.used else "not enrolled"
        console.print(Text.assemble((f"{mark} ", style), (one.name, "bold"), f" {said}"), soft_wrap=True)
        for used in one.used:
            if used.note or used.face.reasons:
                text = " ".join([used.note, *used.face.reasons]).strip()
                console.print(Text(f"    {printable(used.photo.path)}: {text}", style="dim"), soft_wrap=True)
        for refused in one.refused:
            console.print(Text(f"  – {printable(refused.photo.path)}: {refused.text}"), soft_wrap=True)
        for warning in one.warnings:
            console.print(Text(f"  ! {warning}", style="yellow"), soft_wrap=True)


def _page(prepared: Sequence[Enrollment]) -> Page:
    from ipse.gallery.report import Card, Page, Section

    sections = []
    for one in prepared:
        cards = [
            Card(
                used.face.crop,
                f"quality {used.face.quality:.2f}",
                [used.note] if used.note else [],
                file=used.photo.path,
                caution=used.face.reasons,
            )
            for used in one.used
        ]
        said = f"enrolled from {count(len(one.used), 'photograph')}" if one.used else "not enrolled"
        sections.append(Section(f"{one.name} — {said}", " ".join(one.warnings), cards=cards))
        if one.refused:
            rejected = [
                Card(refused.face.crop if refused.face else None, lines=[refused.text], file=refused.photo.path)
                for refused in one.refused
            ]
            sections.append(Section(f"{one.name} — not used", cards=rejected))
    used = sum(len(one.used) for one in prepared)
    facts = [
        (f"{sum(bool(one.used) for one in prepared):,}", "enrolled"),
        (f"{used:,}", "photographs used"),
        (f"{sum(len(one.refused) for one in prepared):,}", "not used"),
    ]
    lede = "What the gallery will know these people by. Quality goes from 0 to 1 and weighs each picture."
    notes = ["Templates of faces are biometric data; keep the gallery and this page as you keep the photographs."]
    return Page("Enrolled", lede, facts, sections, notes)
