"""Whom ``ipse generate --who`` names: photographs, or somebody in a gallery who allows it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ipse.cli.recognizing import make_reader, open_gallery, printable
from ipse.errors import ConsentError, DataError, GalleryError, IpseError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ipse.diffusion import Generated
    from ipse.gallery import Gallery
    from ipse.personalize import Personalized, Personalizer


@dataclass(frozen=True)
class Who:
    """Somebody to show.

    Attributes
    ----------
    title
        As they were named.
    photographs
        (H, W, 3) uint8 each.
    files
        Where these are from; empty for crops of a gallery.
    consent
        What the gallery has recorded; None for photographs of somebody whom it does not know.
    """

    title: str
    photographs: Sequence[npt.NDArray[np.uint8]]
    files: Sequence[Path] = ()
    consent: Mapping[str, Any] | None = None


def resolve(who: str, gallery: Path, key_file: Path | None = None) -> Who:
    """Whom a word of ``--who`` means.

    Parameters
    ----------
    who
        A photograph, several joined by commas, a folder of photographs, or a name in the gallery.
    gallery
        Its folder; there need not be one for photographs. Who is enrolled in it must have allowed to be generated,
        by whatever photographs.
    key_file
        With its passphrase.

    Raises
    ------
    DataError, GalleryError
        If there is nothing and nobody of that name.
    ConsentError
        If the recorded consent does not allow it, or it could not be looked up.
    """
    from ipse.images import image_files, read_image

    there = (gallery / "gallery.json").exists()
    paths = [Path(part) for part in who.split(",")]
    if all(path.exists() for path in paths):
        files = [file for path in paths for file in (sorted(image_files(path)) if path.is_dir() else [path])]
        if not files:
            raise DataError(f"There are no pictures in {printable(who)}.", "Name photographs of the person.")
        photographs = [read_image(file) for file in files]
        known = _enrolled(files, open_gallery(gallery, None, key_file)) if there else None
        return Who(who, photographs, files, known)
    if not there:
        missing = next(path for path in paths if not path.exists())
        raise DataError(
            f"There is no photograph {printable(missing)}, and no gallery in {printable(gallery)}.",
            "Name photographs, or somebody who is enrolled, with --gallery.",
        )
    opened = open_gallery(gallery, None, key_file)
    opened.require(who, "generate")
    crops = [crop for crop in opened.crops(who) if crop is not None]
    if not crops:
        raise GalleryError(
            f"The gallery keeps no pictures of {who}.", "Name photographs in place of the name.", reason="no-crops"
        )
    return Who(who, [read_image(crop) for crop in crops], (), opened.person(who).consent)


def _enrolled(files: Sequence[Path], gallery: Gallery) -> Mapping[str, Any] | None:
    """The consent of whom the gallery knows on photographs; None where it knows nobody.

    Raises
    ------
    ConsentError
        If the recorded consent does not allow it, or the gallery could not be asked.
    """
    from ipse.gallery.index import Entry

    try:
        reader = make_reader(gallery.encoder.name)
        readings = reader.read_all([Entry(file, "photo") for file in files])
        vectors = [face.vector for reading in readings for face in reading.faces]
        names = [answer.name for answer in gallery.search(vectors, 1) if answer.known] if vectors else []
    except IpseError as error:
        # Whoever refuses must not be shown because their refusal could not be found.
        raise ConsentError(
            f"Whether the gallery knows who is on the photographs could not be checked: {error.message}",
            error.hint or "Repair the gallery, or name another by --gallery.",
        ) from error
    for name in names:
        gallery.require(name, "generate")
    return gallery.person(names[0]).consent if names else None


def fitted(method: Personalizer, people: Sequence[Who]) -> Personalized:
    """A method that knows people; what is doubtful about their photographs is told on the error stream."""
    from ipse.personalize.references import ReferenceWarning

    for one in people:
        for number, file in enumerate(one.files, 1):
            if len(one.files) > 1:
                typer.echo(f"Photograph {number} of {len(one.files)}: {printable(file)}", err=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ReferenceWarning)
        told = method.fit(*(one.photographs for one in people))
    for warning in said:
        if issubclass(warning.category, ReferenceWarning):
            typer.echo(str(warning.message), err=True)
    return told


def with_consent(pictures: Iterable[Generated], people: Sequence[Who]) -> Iterator[Generated]:
    """Pictures whose provenance says what the gallery has recorded of those whom they show."""
    recorded = ["not recorded" if one.consent is None else dict(one.consent) for one in people]
    for picture in pictures:
        yield replace(picture, more={**picture.more, "consent": recorded})


def write_page(path: Path, people: Sequence[Who], pictures: Sequence[Generated], title: str) -> None:
    """A page with the photographs and the pictures."""
    from ipse.gallery.report import Card, Page, Section, write_report

    shown = [
        Section(one.title, cards=[Card(_jpeg(image)) for image in one.photographs])
        for one in people
    ]  # fmt: skip
    made = [
        Card(_jpeg(picture.image), f"seed {picture.seed}", [f"strength {picture.more.get('strength', 0):g}"])
        for picture in pictures
    ]
    lede = "Made by a generative network. The pictures show nobody's real doings."
    facts = [(f"{len(pictures):,}", "pictures"), (str(pictures[0].more.get("method", "")), "method")]
    write_report(Page(title, lede, facts, [Section("Pictures", cards=made), *shown]), path)


def _jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=92)
    return out.getvalue()
