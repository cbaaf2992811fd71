"""``ipse cluster``: sort the faces of a folder into people, without knowing anybody."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
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
    index_of,
    make_reader,
    open_gallery,
    printable,
    progress,
    wrote,
)
from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.gallery.index import FaceRecord, Photo, PhotoIndex
    from ipse.gallery.report import Page

# Groups and faces of each that a report shows, and groups that the terminal shows.
_GROUPS, _SHOWN, _LINES = 200, 36, 25


def cluster(
    places: Annotated[list[Path], typer.Argument(help="Folders, photographs and videos.", show_default=False)],
    gallery: GalleryPath = DEFAULT_GALLERY,
    near: Annotated[
        float | None,
        typer.Option(help="The largest mean distance within a group; smaller makes more and purer groups."),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.04, help="Seconds between the frames of a video that are looked at.")
    ] = 1.0,
    report: ReportPath = None,
    as_json: AsJson = False,
    workers: Workers = None,
    key_file: KeyFile = None,
    encoder: EncoderName = None,
    detector: DetectorFile = None,
    turned: Turned = False,
) -> None:
    """Sort the faces of photographs and videos into people.

    Nobody needs to be enrolled. Faces are put together while they are alike on average; whoever is in the gallery is
    called by name. What has been read is remembered in the gallery's folder, so that the next run, and `ipse find`,
    read only what is new.

    Examples:
      ipse cluster photos/ --report people.html    a page with one section per person

      ipse cluster photos/ --near 0.45             stricter, where different people are mixed

      ipse cluster photos/ --json                  which file shows which group

    Exit status: 0 faces were found, 3 none, 2 wrong input, 1 the machine failed.
    """
    import numpy as np

    from ipse.gallery.cluster import cluster as group_vectors
    from ipse.gallery.index import Listing
    from ipse.gallery.sightings import vector_of

    reader = make_reader(encoder, detector, turned=turned, every=every)
    known = open_gallery(gallery, reader, key_file, create=True)
    limit = near or known.encoder.threshold or known.threshold().value
    if limit is None:
        raise DataError(
            f"Nobody has said which distance means the same person for {reader.encoder.name}.", "Give --near."
        )
    listing = Listing(places)
    problems: list[tuple[Path, str]] = []
    files: Counter[str] = Counter()
    with index_of(known, reader) as index:
        with progress("Reading photographs") as tell:
            run = index.update(listing, workers=workers, on_progress=tell)
        vectors, quality = [], []
        for photo in index.photos(run):
            files["all"] += 1
            if photo.reading.problem:
                problems.append((photo.path, photo.reading.problem))
            elif not photo.reading.faces:
                files["without a face"] += 1
            for group in _appearances(photo, limit):
                vectors.append(vector_of(group, known.encoder.metric))
                quality.append(max(face.quality for face in group))
        labels = (
            group_vectors(np.stack(vectors), near=limit, metric=known.encoder.metric, quality=np.array(quality))
            if vectors
            else np.empty(0, int)
        )
        sizes = np.bincount(labels) if len(labels) else np.empty(0, int)
        names = _names(vectors, labels, known) if len(known) and vectors else {}
        groups = _members(index, run, limit, labels)
    record = {
        "near": limit,
        "faces": len(labels),
        "groups": [
            {
                "group": group + 1,
                "name": names.get(group, ""),
                "faces": int(sizes[group]),
                "files": [printable(path) for path in groups[group].files],
            }
            for group in range(len(sizes))
        ],
        "problems": [{"path": printable(path), "problem": text} for path, text in problems],
    }
    if report:
        from ipse.gallery.report import write_report

        write_report(_page(places, record, groups, files, problems), report)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        _print(record, files)
        if report:
            typer.echo(wrote(report))
    if not len(labels):
        raise typer.Exit(NO)


class _Group:
    """The files of a group, and the faces that a report shows."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.faces: list[tuple[FaceRecord, Photo]] = []


def _appearances(photo: Photo, near: float) -> list[list[FaceRecord]]:
    from ipse.gallery.sightings import appearances

    return appearances(photo.reading, near)


def _members(index: PhotoIndex, run: int, near: float, labels: Any) -> dict[int, _Group]:
    """Go through the index again, now that every face has its group; pictures are kept of as many as are shown."""
    groups: dict[int, _Group] = defaultdict(_Group)
    following: Iterator[int] = iter(labels.tolist())
    for photo in index.photos(run):
        for faces in _appearances(photo, near):
            label = next(following)
            group = groups[label]
            if not group.files or group.files[-1] != photo.path:
                group.files.append(photo.path)
            if label < _GROUPS and len(group.faces) < _SHOWN:
                group.faces.append((max(faces, key=lambda face: face.quality), photo))
    return groups


def _names(vectors: list[Any], labels: Any, gallery: Any) -> dict[int, str]:
    """What the gallery calls each group: the name that most of its faces get, if any."""
    import numpy as np

    votes: dict[int, Counter[str]] = defaultdict(Counter)
    step = 4096
    for start in range(0, len(vectors), step):
        answers = gallery.search(np.stack(vectors[start : start + step]), 1)
        for label, answer in zip(labels[start : start + step].tolist(), answers, strict=True):
            votes[label][answer.name if answer.known else ""] += 1
    return {label: counted.most_common(1)[0][0] for label, counted in votes.items()}


def _title(group: dict[str, Any]) -> str:
    return group["name"] or f"Person {group['group']}"


def _print(record: dict[str, Any], files: Counter[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    several = [group for group in record["groups"] if group["faces"] > 1]
    table = Table("Who", "Faces", "Files", "Such as", box=None, pad_edge=False, header_style="bold")
    for group in several[:_LINES]:
        table.add_row(
            _title(group), f"{group['faces']:,}", f"{len(group['files']):,}", Text(Path(group["files"][0]).name)
        )
    if several:
        console.print(table)
    if len(several) > _LINES:
        console.print(f"… and {len(several) - _LINES:,} more; --report or --json shows them.")
    once = len(record["groups"]) - len(several)
    console.print(
        f"{count(files['all'], 'file')}, {count(record['faces'], 'face')}: "
        f"{count(len(several), 'person', 'people')} seen more than once, {once:,} once; "
        f"{count(files['without a face'], 'file')} without a face, "
        f"{len(record['problems']):,} not usable."
    )


def _page(
    places: list[Path],
    record: dict[str, Any],
    groups: dict[int, _Group],
    files: Counter[str],
    problems: list[tuple[Path, str]],
) -> Page:
    from ipse.gallery.report import Card, Page, Section

    def cards(number: int) -> list[Card]:
        return [
            Card(face.crop, file=photo.path, caution=face.reasons, lines=[f"at {_at(face)}"] if face.time else [])
            for face, photo in groups[number].faces
        ]

    sections = []
    several = [group for group in record["groups"] if group["faces"] > 1]
    for group in several[:_GROUPS]:
        title = f"{_title(group)} — {count(group['faces'], 'face')} in {count(len(group['files']), 'file')}"
        shown = cards(group["group"] - 1)
        sections.append(Section(title, cards=shown, more=group["faces"] - len(shown)))
    once = [group for group in record["groups"] if group["faces"] == 1]
    if once:
        shown = [card for group in once if group["group"] <= _GROUPS for card in cards(group["group"] - 1)]
        text = "Faces that are like no other: people who were photographed once, or pictures too poor to tell."
        sections.append(Section(f"Seen once — {len(once):,}", text, cards=shown, more=len(once) - len(shown)))
    if problems:
        rows = [(printable(path), text) for path, text in problems[:_GROUPS]]
        more = len(problems) - len(rows)
        sections.append(Section(f"Not usable — {len(problems):,}", "These files were left out.", rows=rows, more=more))
    facts = [
        (f"{files['all']:,}", "files"),
        (f"{record['faces']:,}", "faces"),
        (f"{len(several):,}", "people seen more than once"),
        (f"{len(once):,}", "once"),
        (f"{files['without a face']:,}", "files without a face"),
    ]
    notes = [
        f"Faces are together while their mean distance is under {record['near']:.2f}. Give a smaller --near where "
        "different people are mixed, a larger one where one person is split.",
        "This page contains pictures of people: handle it as you would their photographs.",
    ]
    lede = "Sorted: " + ", ".join(printable(place) for place in places)
    return Page("People in these photographs", lede, facts, sections, notes)


def _at(face: FaceRecord) -> str:
    from ipse.gallery.video import clock

    return clock(face.time or 0.0)
