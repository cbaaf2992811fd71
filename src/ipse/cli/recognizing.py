"""What the recognizing verbs share: the gallery they work on, how they read, how they tell how far they are."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipse.errors import DataError, GalleryError

if TYPE_CHECKING:
    from ipse.faces import Detector
    from ipse.gallery import Gallery
    from ipse.gallery.index import PhotoIndex, Reader

INDEX = "photographs.sqlite"
"""The name of the index of photographs in a gallery's folder."""

GalleryPath = Annotated[
    Path,
    typer.Option("--gallery", "-g", envvar="IPSE_GALLERY", help="The gallery's folder.", show_default="ipse-gallery"),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", envvar="IPSE_KEY_FILE", help="A file with the passphrase of a protected gallery."),
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        envvar="IPSE_ENCODER",
        help="Another encoder by name (face-world, body-world), or a face network as ONNX file (ArcFace layout).",
    ),
]
DetectorFile = Annotated[
    Path | None,
    typer.Option(
        "--detector",
        envvar="IPSE_DETECTOR",
        help="A face detector as ONNX file (SCRFD or YuNet) in place of the built-in one.",
    ),
]
Turned = Annotated[
    bool,
    typer.Option("--turned", help="Where there is no upright face, look for faces on their side or on their head."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ReportPath = Annotated[
    Path | None, typer.Option("--report", help="Write a page that shows everything, such as page.html.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes that read pictures; one per core by default.")
]

DEFAULT_GALLERY = Path("ipse-gallery")
NO = 3
"""Exit status of a verb that ran well and whose answer is no: another person, nobody found, nothing enrolled."""


def make_reader(
    encoder: str | None = None,
    detector: Path | None = None,
    *,
    turned: bool = False,
    every: float = 1.0,
    crop_side: int = 112,
) -> Reader:
    """The reader that the options ask for."""
    from ipse.encoders import DlibFaceEncoder, open_encoder
    from ipse.gallery.index import Reader

    made = open_encoder(encoder or DlibFaceEncoder.name, threads=1)
    return Reader(made, make_detector(detector, turned=turned), every=every, crop_side=crop_side)


def make_detector(detector: Path | None = None, *, turned: bool = False) -> Detector:
    """The detector that the options ask for."""
    from ipse.faces import HogDetector, OnnxDetector

    return OnnxDetector(detector, turned=turned) if detector else HogDetector(turned=turned)


def read_key(key_file: Path | None) -> str | None:
    """The passphrase in a file, without the line's end; None without a file."""
    if key_file is None:
        return None
    try:
        key = key_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The key file {key_file} cannot be read: {error}.", "Check the path.") from error
    if not key:
        raise DataError(f"The key file {key_file} is empty.", "Write the passphrase into it.")
    return key


def open_gallery(
    path: Path, reader: Reader | None = None, key_file: Path | None = None, *, create: bool = False
) -> Gallery:
    """Open the gallery, asking for the passphrase where it needs one and somebody is there to ask.

    Raises
    ------
    GalleryError
        If there is none and it is not to be created; the hint says how to begin.
    """
    from ipse.gallery import Gallery, UncalibratedWarning

    # The verbs say in their own words how sure the threshold is.
    warnings.simplefilter("ignore", UncalibratedWarning)
    key = read_key(key_file)
    if create and reader is not None and not (path / "gallery.json").exists():
        return Gallery.create(path, reader.encoder, key=key, exist_ok=True)
    try:
        gallery = Gallery.open(path, reader.encoder if reader else None, key=key)
    except GalleryError as error:
        if error.reason != "missing":
            raise
        raise GalleryError(
            f"There is no gallery in {path} yet.",
            "Make one by enrolling somebody: ipse enroll NAME PHOTOS, or name another with --gallery.",
            reason="missing",
        ) from error
    if gallery.protected and key is None and sys.stdin.isatty():
        key = typer.prompt(f"Key of {path}", hide_input=True, err=True)
        gallery = Gallery.open(path, reader.encoder if reader else None, key=key)
    return gallery


def index_of(gallery: Gallery, reader: Reader) -> PhotoIndex:
    """The gallery's index of photographs; that of a protected gallery is in memory, for it holds plain vectors."""
    from ipse.gallery.index import PhotoIndex

    writable = os.access(gallery.path, os.W_OK)
    return PhotoIndex(gallery.path / INDEX if writable and not gallery.protected else None, reader)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the remaining time on the error stream, where that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def printable(path: Path | str) -> str:
    """A path as text that can be printed whatever bytes are in its name; shown from here where it lies below."""
    text = str(path)
    with_here = os.path.join(os.getcwd(), "")
    return text.removeprefix(with_here).encode("utf-8", "replace").decode()


def wrote(report: Path) -> str:
    """The line that says where a report is."""
    return f"Report: {report.resolve().as_uri()}"


def count(number: int, one: str, many: str = "") -> str:
    """A number and its noun: ``1 photograph``, ``1,200 photographs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
