"""``ipse verify``: whether two pictures show one person."""

from __future__ import annotations

import json
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
    ReportPath,
    Turned,
    make_reader,
    printable,
    wrote,
)
from ipse.errors import DataError, ImageError

if TYPE_CHECKING:
    from ipse.gallery.index import FaceRecord, Reader


def verify(
    a: Annotated[Path, typer.Argument(help="A photograph.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another.", show_default=False)],
    threshold: Annotated[
        float | None, typer.Option(help="The largest distance that counts as the same person; by default see above.")
    ] = None,
    gallery: GalleryPath = DEFAULT_GALLERY,
    report: ReportPath = None,
    as_json: AsJson = False,
    encoder: EncoderName = None,
    detector: DetectorFile = None,
    turned: Turned = False,
) -> None:
    """Compare the faces of two photographs.

    The distance is 0 for equal pictures and grows with every difference. The threshold is that of the gallery, if there
    is one made with the same encoder, and otherwise the one that the encoder's author recommends. Where a photograph
    shows several people, the two most alike are compared.

    Examples:
      ipse verify passport.jpg selfie.jpg

      ipse verify a.jpg b.jpg --json && echo same

    Exit status: 0 the same person, 3 another person, 2 wrong input, 1 the machine failed.
    """
    reader = make_reader(encoder, detector, turned=turned)
    limit, source = (threshold, "given") if threshold is not None else _threshold(gallery, reader)
    ours, theirs = _faces(a, reader), _faces(b, reader)
    pairs = [(_distance(x, y, reader), x, y) for x in ours for y in theirs]
    distance, x, y = min(pairs, key=lambda pair: pair[0])
    same = distance <= limit
    if report:
        _report(report, (a, x), (b, y), distance, limit, same)
    if as_json:
        sides = [
            {"path": printable(path), "faces": len(faces), "box": [round(edge, 1) for edge in face.box],
             "quality": round(face.quality, 3), "reasons": list(face.reasons)}
            for path, faces, face in ((a, ours, x), (b, theirs, y))
        ]  # fmt: skip
        record = {"same": same, "distance": round(distance, 4), "threshold": limit, "threshold_from": source}
        typer.echo(json.dumps({**record, "a": sides[0], "b": sides[1]}, indent=2))
    else:
        margin = abs(distance - limit) / limit
        surely = "" if margin > 0.15 else ", but close to the threshold: look for yourself"
        verdict = "The same person" if same else "Different people"
        typer.echo(f"{verdict}{surely}. Distance {distance:.3f}, threshold {limit:.3f} ({source}).")
        for path, faces, face in ((a, ours, x), (b, theirs, y)):
            if len(faces) > 1:
                typer.echo(f"{printable(path)}: {len(faces)} faces; the one most alike was compared.")
            for reason in face.reasons:
                typer.echo(f"{printable(path)}: {reason}")
        if report:
            typer.echo(wrote(report))
    if not same:
        raise typer.Exit(NO)


def _threshold(gallery: Path, reader: Reader) -> tuple[float, str]:
    from ipse.gallery import EncoderSpec, Gallery

    if (gallery / "gallery.json").exists():
        found = Gallery.open(gallery)
        value = found.threshold().value
        if found.encoder.fingerprint == reader.encoder.fingerprint and value is not None:
            return value, f"{found.threshold().source}, {printable(gallery)}"
    value = EncoderSpec.of(reader.encoder).threshold
    if value is None:
        raise DataError(
            f"Nobody has said which distance means the same person for {reader.encoder.name}.",
            "Give --threshold, or calibrate a gallery: ipse gallery calibrate.",
        )
    return value, f"of the encoder {reader.encoder.name}"


def _faces(path: Path, reader: Reader) -> list[FaceRecord]:
    from ipse.gallery.index import Entry

    if path.is_dir():
        raise ImageError(f"{path} is a folder.", "Name one photograph.", reason="directory")
    reading = reader.read(Entry(path, "photo"))
    if reading.problem:
        raise ImageError(f"{path}: {reading.problem}", reason=reading.reason)
    if not reading.faces:
        raise DataError(
            f"No face was found in {path}.",
            "Use a picture in which it is seen from the front, whole and not too small.",
        )
    return list(reading.faces)


def _distance(x: FaceRecord, y: FaceRecord, reader: Reader) -> float:
    import numpy as np

    if reader.encoder.metric == "cosine":
        return float(1 - x.vector @ y.vector)
    return float(np.linalg.norm(x.vector - y.vector))


def _report(
    report: Path, a: tuple[Path, FaceRecord], b: tuple[Path, FaceRecord], distance: float, limit: float, same: bool
) -> None:
    from ipse.gallery.report import Card, Page, Section, write_report

    cards = [
        Card(face.crop, lines=[f"quality {face.quality:.2f}"], file=path, caution=face.reasons) for path, face in (a, b)
    ]
    cards.append(Card(None, "The same person" if same else "Different people", distance=distance, threshold=limit))
    notes = ["The bar is longer the closer two faces are; the mark in its middle is the threshold."]
    title = "The same person" if same else "Different people"
    facts = [(f"{distance:.3f}", "distance"), (f"{limit:.3f}", "threshold")]
    lede = f"{printable(a[0])} and {printable(b[0])}"
    write_report(Page(title, lede, facts, [Section("Compared", cards=cards)], notes), report)
