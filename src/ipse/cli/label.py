"""``ipse label``: the few questions that name everybody on some photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipse.cli.recognizing import (
    DEFAULT_GALLERY,
    NO,
    AsJson,
    DetectorFile,
    EncoderName,
    GalleryPath,
    KeyFile,
    Turned,
    Workers,
    count,
    index_of,
    make_reader,
    open_gallery,
    printable,
    progress,
)
from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.gallery import Gallery
    from ipse.gallery.index import Photo, Reader
    from ipse.gallery.labeling import Asked, Labeling, Sight

_CROP_SIDE = 256
"""As `ipse enroll` has it: crops that may have to be encoded again are kept larger than those of reports."""


def label(
    places: Annotated[list[Path], typer.Argument(help="Folders and photographs.", show_default=False)],
    gallery: GalleryPath = DEFAULT_GALLERY,
    most: Annotated[int, typer.Option(min=0, help="Questions at most; 0 asks none and tells what is sure.")] = 30,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Where the two faces of a question are drawn.", show_default="question.png"),
    ] = None,
    take_sure: Annotated[bool, typer.Option("--sure", help="Enroll what is sure without an answer, too.")] = False,
    as_json: AsJson = False,
    workers: Workers = None,
    key_file: KeyFile = None,
    encoder: EncoderName = None,
    detector: DetectorFile = None,
    turned: Turned = False,
) -> None:
    """Name the people on photographs by answering few questions.

    Faces that are surely of somebody are labeled without a word; you are asked about those that decide most. Each
    question names two files and draws both faces side by side. Whoever is none of those who are known gets a name from
    you. At the end, faces with answers are enrolled. Every answer is kept at once: break off with q or Ctrl-C, and
    the next run goes on.

    Answers: y the same person, n another, s skip, q stop and enroll.

    Examples:
      ipse label holiday/                 with the people of ./ipse-gallery, or with nobody

      ipse label holiday/ --most 10       ten questions

      ipse label holiday/ --most 0        what can be said without asking

    Exit status: 0 faces were found, 3 none, 2 wrong input, 1 the machine failed.
    """
    from ipse.gallery.index import Listing
    from ipse.gallery.labeling import ANSWERS, Labeling

    reader = make_reader(encoder, detector, turned=turned)
    known = open_gallery(gallery, reader, key_file, create=True)
    with index_of(known, reader) as index:
        with progress("Reading photographs") as tell:
            run = index.update(Listing(places), workers=workers, on_progress=tell)
        photos = list(index.photos(run))
    talk = Labeling(known, photos, known.path / ANSWERS)
    asked = _talk(talk, most, picture or Path("question.png"))
    if talk.machine is not None and talk.machine.people:
        talk.machine.learn()
    chosen = talk.named()
    if take_sure:
        for name, sights in talk.sure().items():
            chosen.setdefault(name, []).extend(sights)
    reread = make_reader(encoder, detector, turned=turned, crop_side=_CROP_SIDE)
    enrolled = _enroll(known, reread, chosen, workers) if chosen else 0
    record = {
        "faces": len(talk.sights),
        "questions": asked,
        "enrolled": enrolled,
        "answered": _json(talk.named()),
        "sure": _json(talk.sure()),
        "open": talk.open,
    }
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        sure = sum(map(len, talk.sure().values()))
        typer.echo(
            f"{count(len(talk.sights), 'face')} not enrolled before: {count(enrolled, 'face')} enrolled after "
            f"{count(asked, 'question')}, {sure:,} {'sure' if not take_sure else 'of them sure'} without an answer, "
            f"{talk.open:,} left open."
        )
    if not talk.sights:
        raise typer.Exit(NO)


def _talk(talk: Labeling, most: int, picture: Path) -> int:
    """Ask until there are enough answers, nothing is left, or somebody stops; gives the number of answers."""
    done = 0
    while done < most and (asked := talk.ask()) is not None:
        try:
            going = _one(talk, asked, picture)
        except (typer.Abort, EOFError, KeyboardInterrupt):
            going = False
        if not going:
            break
        done += 1
    return done


def _one(talk: Labeling, asked: Asked, picture: Path) -> bool:
    """One question; False where somebody stops."""
    try:
        asked.picture().save(picture)
    except OSError as error:
        raise DataError(
            f"{picture} cannot be written: {error.strerror or error}.", "Name another --picture."
        ) from error
    typer.echo(f"\n{printable(asked.sight.photo.path)}   (drawn in {printable(picture)})", err=True)
    if asked.person is None:
        said = typer.prompt("  Who is it? A name, s to skip, q to stop", default=talk.new_name(), err=True).strip()
        if said == "q":
            return False
        if said == "s":
            talk.skip(asked)
        else:
            talk.name(asked, said)
        return True
    if asked.source:
        typer.echo(f"{printable(asked.source)}", err=True)
    while True:
        said = typer.prompt(f"  The same person, {asked.person}? y/n/s/q", err=True).strip().lower()[:1]
        if said == "q":
            return False
        if said == "s":
            talk.skip(asked)
            return True
        if said in ("y", "n"):
            talk.answer(asked, said == "y")
            return True


def _enroll(known: Gallery, reader: Reader, chosen: Mapping[str, Sequence[Sight]], workers: int | None) -> int:
    """Enroll faces, read once more for larger crops; gives how many."""
    from ipse.gallery.enrolling import Enrollment, Used, commit
    from ipse.gallery.index import Listing, PhotoIndex
    from ipse.gallery.labeling import box_of

    paths = list(dict.fromkeys(sight.photo.path for sights in chosen.values() for sight in sights))
    with PhotoIndex(None, reader) as index:
        run = index.update(Listing(paths), workers=workers)
        read: dict[str, Photo] = {photo.sha256: photo for photo in index.photos(run)}

    def used(sight: Sight) -> Used:
        again = read.get(sight.photo.sha256)
        faces = again.reading.faces if again else ()
        return Used(sight.photo, next((face for face in faces if box_of(face) == box_of(sight.face)), sight.face))

    people = [Enrollment(name, [used(sight) for sight in sights], ()) for name, sights in chosen.items()]
    enrolled = commit(people, known, add=True)
    known.keep_snapshot()
    return enrolled


def _json(sights: Mapping[str, Sequence[Sight]]) -> dict[str, list[str]]:
    return {name: [printable(sight.photo.path) for sight in found] for name, found in sights.items()}
