"""``ipse find``: who is in photographs and videos."""

from __future__ import annotations

import heapq
import itertools
import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse.cli.find_text import WORDS, find_text
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

if TYPE_CHECKING:
    from ipse.gallery import Gallery
    from ipse.gallery.index import Photo
    from ipse.gallery.report import Card, Page
    from ipse.gallery.sightings import Sighting

# What a report shows of each person, of unknown faces, and of each list of files.
_SHOWN, _UNKNOWN_SHOWN, _LISTED = 60, 120, 200
# What the terminal shows.
_LINES = 40


def find(
    places: Annotated[list[Path], typer.Argument(help="Photographs, videos and folders of them.", show_default=False)],
    gallery: GalleryPath = DEFAULT_GALLERY,
    threshold: Annotated[
        float | None,
        typer.Option(help="The largest distance that counts as the same person; by default the gallery's."),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Find by words instead, such as 'a man in a red coat with a backpack'.")
    ] = None,
    words: Annotated[
        Path,
        typer.Option("--words", envvar="IPSE_WORDS", help="The network of pictures and words, for --text."),
    ] = WORDS,
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
    """Find the people of the gallery in photographs and videos.

    Every face that is found is looked up; whoever is not near enough to anybody is unknown, and the nearest is named.
    What has been read is remembered in the gallery's folder by its content: the next run reads only what is new, and a
    run that was stopped goes on where it was. Files that cannot be used are named with the reason and stop nothing.

    Examples:
      ipse enroll Ada ada1.jpg ada2.jpg       first somebody must be known

      ipse find holiday/ --report page.html   who is where, on a page with pictures

      ipse find party.mp4 --every 0.5         when somebody is to be seen in a video

      ipse find photos/ --json | jq .path     one line of JSON per file, then one with the summary

      ipse find bodies/ --text "a man in a red coat with a backpack"     crops of people by words; see ipse train words

    Exit status: 0 somebody was found, 3 nobody, 2 wrong input, 1 the machine failed.
    """
    from ipse.gallery.index import Listing
    from ipse.gallery.sightings import sightings

    if text is not None:
        find_text(text, places, words, report, as_json)
        return
    reader = make_reader(encoder, detector, turned=turned, every=every)
    known = open_gallery(gallery, reader, key_file)
    names = known.names()
    listing = Listing(places)
    outcome = Outcome(known, names, threshold)
    with index_of(known, reader) as index:
        with progress("Reading photographs") as tell:
            run = index.update(listing, workers=workers, on_progress=tell)
        outcome.others = listing.others
        for photo, seen in sightings(index.photos(run), known, threshold=threshold):
            outcome.add(photo, seen)
            if as_json:
                typer.echo(json.dumps(photo_json(photo, seen)))
        for place in places:
            if place.is_dir():
                index.drop_missing(place, run)
    known.keep_snapshot()
    if report:
        from ipse.gallery.report import write_report

        write_report(outcome.page(places), report)
    if as_json:
        typer.echo(json.dumps({"summary": outcome.summary()}))
    else:
        outcome.print()
        if report:
            typer.echo(wrote(report))
    if not outcome.photos_of:
        raise typer.Exit(NO)


def photo_json(photo: Photo, seen: list[Sighting]) -> dict[str, Any]:
    """One file and who is in it, as JSON values."""
    reading = photo.reading
    record: dict[str, Any] = {"path": printable(photo.path), "sha256": photo.sha256}
    if reading.problem:
        return {**record, "reason": reading.reason, "problem": reading.problem, "people": []}
    if reading.seconds is not None:
        record["seconds"] = round(reading.seconds, 2)
    return {**record, "width": reading.width, "height": reading.height, "people": [one.to_json() for one in seen]}


class Outcome:
    """What a search has found: kept small, however many photographs there are."""

    def __init__(self, gallery: Gallery, names: list[str], threshold: float | None) -> None:
        self.gallery = gallery
        self.names = names
        found = gallery.threshold()
        self.threshold = found.value if threshold is None else threshold
        self.note = found.note if threshold is None else "The threshold was given by hand."
        calibration = gallery.calibration()
        # What a handful of people says about strangers is not worth printing.
        self._tells_confidence = calibration is not None and calibration.enough
        self.others: Counter[str] = Counter()
        self.files = self.faces = self.unknown = 0
        self.photos_of: Counter[str] = Counter()
        self.videos_of: Counter[str] = Counter()
        self.without_face: list[Path] = []
        self.without_faces = 0
        self.problems: list[tuple[Path, str]] = []
        self.problem_count = 0
        self.lines: list[tuple[Path, str]] = []
        self._order = itertools.count()
        self._best: dict[str, list[tuple[float, int, Photo, Sighting]]] = defaultdict(list)
        self._near_misses: list[tuple[float, int, Photo, Sighting]] = []

    def add(self, photo: Photo, seen: list[Sighting]) -> None:
        """Take in one file."""
        self.files += 1
        self.faces += len(seen)
        if photo.reading.problem:
            self.problem_count += 1
            _keep(self.problems, (photo.path, photo.reading.problem), _LISTED)
        elif not seen:
            self.without_faces += 1
            _keep(self.without_face, photo.path, _LISTED)
        texts = []
        here: set[str] = set()
        for one in seen:
            nearest = one.answer.nearest
            item = (-nearest.distance if nearest else -9e9, next(self._order), photo, one)
            if one.answer.known:
                here.add(one.answer.name)
                _push(self._best[one.answer.name], item, _SHOWN)
            else:
                self.unknown += 1
                _push(self._near_misses, item, _UNKNOWN_SHOWN)
            texts.append(_said(one))
        counted = self.photos_of if photo.reading.step is None else self.videos_of
        counted.update(here)
        if photo.reading.step is not None:
            # Whoever is only in videos is found too.
            self.photos_of.update(dict.fromkeys(here, 0))
        _keep(self.lines, (photo.path, photo.reading.problem or ", ".join(texts) or "no face"), _LINES)

    def summary(self) -> dict[str, Any]:
        """Counts, as JSON values."""
        return {
            "files": self.files,
            "faces": self.faces,
            "people": {name: {"photos": n, "videos": self.videos_of[name]} for name, n in self.photos_of.most_common()},
            "unknown_faces": self.unknown,
            "without_faces": self.without_faces,
            "problems": self.problem_count,
            "passed_over": dict(self.others),
            "threshold": self.threshold,
            "threshold_note": self.note,
        }

    def print(self) -> None:
        """Tell the terminal."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        # What all paths begin with would only push the rest over the line's end.
        parents = {str(path.parent) for path, _ in self.lines}
        shared = Path(os.path.commonpath(parents)) if len(self.lines) > 1 else None
        title = f"File in {printable(shared)}" if shared and shared != Path.cwd() else "File"
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(Text(title), overflow="fold")
        table.add_column("Who")
        for path, text in self.lines:
            name = path.relative_to(shared) if shared else path
            table.add_row(Text(printable(name)), Text(text))
        if self.lines:
            console.print(table)
        if self.files > len(self.lines):
            console.print(f"… and {self.files - len(self.lines):,} more files; --report or --json shows them.")
        console.print()
        console.print(
            f"{count(self.files, 'file')}, {count(self.faces, 'face')}: "
            f"{count(len(self.photos_of), 'person', 'people')} found, {count(self.unknown, 'face')} unknown, "
            f"{count(self.without_faces, 'file')} without a face, {self.problem_count:,} not usable."
        )
        for name in self.photos_of:
            console.print(Text(f"  {name}: {self._where(name)}"))
        if passed := _passed_over(self.others):
            console.print(Text(passed))
        if self.note:
            console.print(Text(self.note, style="dim"))

    def _where(self, name: str) -> str:
        parts = []
        if self.photos_of[name]:
            parts.append(count(self.photos_of[name], "photograph"))
        if self.videos_of[name]:
            parts.append(count(self.videos_of[name], "video"))
        return " and ".join(parts)

    def page(self, places: list[Path]) -> Page:
        """The report."""
        from ipse.gallery.report import Page, Section

        sections = []
        people = sorted(self.photos_of, key=lambda name: (-self.photos_of[name] - self.videos_of[name], name))
        for name in people:
            items = sorted(self._best[name], key=lambda item: (-item[0], item[1]))
            more = max(0, self.photos_of[name] + self.videos_of[name] - len(items))
            sections.append(
                Section(
                    f"{name} — {self._where(name)}",
                    cards=[_card(i[2], i[3], name, self._tells_confidence) for i in items],
                    more=more,
                )
            )
        if self._near_misses:
            items = sorted(self._near_misses, key=lambda item: (-item[0], item[1]))
            text = (
                "Faces that are not near enough to anybody in the gallery: strangers, or people in a picture too poor "
                "to tell. The nearest comes first; the person named is a guess that did not pass the threshold."
            )
            cards = [_card(i[2], i[3], "", False) for i in items]
            sections.append(Section("Unknown", text, cards=cards, more=self.unknown - len(items)))
        if missing := [name for name in self.names if name not in self.photos_of]:
            text = "Enrolled, and in none of these files."
            rows = [(name, "not found") for name in missing[:_LISTED]]
            sections.append(
                Section(f"Not found — {len(missing):,}", text, rows=rows, more=max(0, len(missing) - _LISTED))
            )
        if self.without_faces:
            text = (
                "Nothing like a face was seen: there is none, or it is turned far aside, covered, very blurred, or "
                "smaller than about 1/20 of the picture's longer side."
            )
            rows = [(printable(path), "no face") for path in self.without_face]
            title = f"Without a face — {self.without_faces:,}"
            sections.append(Section(title, text, rows=rows, more=self.without_faces - len(rows), folded=True))
        if self.problem_count:
            rows = [(printable(path), text) for path, text in self.problems]
            text = "These files were left out; all others were read."
            title = f"Not usable — {self.problem_count:,}"
            sections.append(Section(title, text, rows=rows, more=self.problem_count - len(rows)))
        notes = [
            "The bar is longer the closer a face is; the mark in its middle is the threshold, the distance up to which "
            "two faces are taken for one person. Close to the threshold, look for yourself.",
            self.note,
            _passed_over(self.others),
            "This page contains pictures of people: handle it as you would their photographs.",
        ]
        facts = [
            (f"{self.files:,}", "file" if self.files == 1 else "files"),
            (f"{self.faces:,}", "face" if self.faces == 1 else "faces"),
            (f"{len(self.photos_of):,}", f"of {len(self.names):,} people found"),
            (f"{self.unknown:,}", "unknown"),
            (f"{self.without_faces:,}", "without a face"),
            (f"{self.problem_count:,}", "not usable"),
        ]
        lede = "Searched: " + ", ".join(printable(place) for place in places)
        return Page("Who is in these photographs", lede, facts, sections, [note for note in notes if note])


def _keep(items: list[Any], item: Any, most: int) -> None:
    if len(items) < most:
        items.append(item)


def _push(heap: list[Any], item: Any, most: int) -> None:
    """Keep the nearest: the heap's smallest item is the farthest."""
    if len(heap) < most:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _said(one: Sighting) -> str:
    nearest = one.answer.nearest
    spans = " " + " ".join(map(str, one.spans)) if one.spans else ""
    if nearest is None:
        return f"unknown{spans}"
    if one.answer.known:
        return f"{nearest.name} ({nearest.distance:.2f}){spans}"
    return f"unknown{spans} (nearest {nearest.name}, {nearest.distance:.2f})"


def _card(photo: Photo, one: Sighting, name: str, tells_confidence: bool) -> Card:
    from ipse.gallery.report import Card

    matches = one.answer.matches
    lines = [f"seen {span}" for span in one.spans[:6]]
    if len(one.spans) > 6:
        lines.append(f"… and {len(one.spans) - 6} more times")
    others = [match for match in matches if match.name != name]
    if not one.answer.known and matches:
        others = others[1:]
    lines += [f"{rank}. {match.name} {match.distance:.2f}" for rank, match in enumerate(others, 2)]
    confidence = matches[0].confidence if matches else None
    if confidence is not None and tells_confidence:
        lines.insert(0, f"closer than {100 * confidence:.1f} % of strangers")
    title = "" if one.answer.known else f"nearest: {matches[0].name}" if matches else "unknown"
    distance = matches[0].distance if matches else None
    return Card(one.face.crop, title, lines, distance, one.answer.threshold, photo.path, one.face.reasons)


def _passed_over(others: Counter[str]) -> str:
    if not others:
        return ""
    kinds = ", ".join(f"{number:,} × {suffix or 'without an ending'}" for suffix, number in others.most_common(8))
    return f"Passed over, since their names are not those of pictures or videos: {kinds}."
