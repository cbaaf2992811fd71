"""``ipse find --text``: the pictures of a folder that words describe."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ipse.cli.recognizing import NO, count, printable, progress, wrote
from ipse.cli.training import needs

WORDS = Path("runs/words/words.safetensors")
"""Where `ipse train words` leaves the network."""

# What the terminal shows, and a report, whose crops have this height.
_LINES, _CARDS, _CROP = 10, 60, 192
# Pictures that are encoded together.
_BATCH = 64


def find_text(text: str, places: Sequence[Path], words: Path, report: Path | None, as_json: bool) -> None:
    """Rank the pictures of some places by how well a text describes them.

    Every picture is taken for the crop of one person. Files that cannot be read are named and stop nothing.
    """
    import numpy as np

    with needs():
        from ipse.training.plip import open_words
    from ipse.errors import ImageError
    from ipse.gallery.index import Listing
    from ipse.images import read_image

    network = open_words(words)
    wanted = network.encode_texts([text])[0]
    entries = list(Listing(places))
    paths: list[Path] = []
    scores: list[Any] = []
    problems: list[tuple[Path, str]] = []
    with progress("Reading pictures") as tell:
        for start in range(0, len(entries), _BATCH):
            pictures = []
            for entry in entries[start : start + _BATCH]:
                try:
                    # At once: a batch of photographs as they come is gigabytes.
                    pictures.append(network.fitted(read_image(entry.path)))
                    paths.append(Path(entry.path))
                except ImageError as error:
                    problems.append((Path(entry.path), str(error)))
            scores.append(network.encode_pictures(pictures) @ wanted)
            tell(min(start + _BATCH, len(entries)), len(entries))
    likeness = np.concatenate(scores) if scores else np.empty(0, np.float32)
    order = np.argsort(-likeness, kind="stable")
    ranked = [(paths[row], float(likeness[row])) for row in order]
    if report:
        _write(text, ranked, problems, report)
    if as_json:
        for path, score in ranked:
            typer.echo(json.dumps({"path": printable(path), "score": round(score, 4)}))
        typer.echo(json.dumps({"summary": {"text": text, "pictures": len(ranked), "problems": len(problems)}}))
    else:
        for path, score in ranked[:_LINES]:
            typer.echo(f"{score:6.3f}  {printable(path)}")
        for path, problem in problems:
            typer.echo(f"{printable(path)}: {problem}", err=True)
        typer.echo(f"{count(len(ranked), 'picture')}, {count(len(problems), 'file')} not usable.")
        if report:
            typer.echo(wrote(report))
    if not ranked:
        raise typer.Exit(NO)


def _write(text: str, ranked: Sequence[tuple[Path, float]], problems: Sequence[tuple[Path, str]], report: Path) -> None:
    from ipse.gallery.report import Card, Page, Section, write_report

    cards = [
        Card(_crop(path), f"{place}. {score:.3f}", file=path) for place, (path, score) in enumerate(ranked[:_CARDS], 1)
    ]
    sections: list[Any] = [Section("Best first", cards=cards, more=len(ranked) - len(cards))]
    if problems:
        sections.append(Section("Not usable", rows=[(printable(path), told) for path, told in problems]))
    facts = [(f"{len(ranked):,}", "pictures"), (f"{len(problems):,}", "not usable")]
    notes = [
        "The number is the cosine between picture and text: it orders, and says nothing by itself.",
        "This page contains pictures of people: handle it as you would their photographs.",
    ]
    write_report(Page(f"“{text}”", "Pictures by how well the words describe them.", facts, sections, notes), report)


def _crop(path: Path) -> bytes:
    from PIL import Image

    from ipse.images import read_image, resize

    picture = read_image(path)
    height, width = picture.shape[:2]
    file = io.BytesIO()
    small = resize(picture, max(1, round(width * _CROP / height)), _CROP) if height > _CROP else picture
    Image.fromarray(small).save(file, "JPEG", quality=85)
    return file.getvalue()
