"""Re-identification measured on photographs: one encoder, one protocol, and all that needs no training.

::

    photographs = open_photographs("market1501", "market1501")
    seen = see(photographs, open_encoder("body-world"), "features")
    results = {name: measure(photographs, seen, way) for name, way in WAYS.items()}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.encoders import AveragedEncoder, Encoder
from ipse.encoders.stripes import hsv_stripes
from ipse.errors import DataError, ImageError, WeightsError
from ipse.gallery.centralize import centralize
from ipse.gallery.faim import bridge
from ipse.gallery.rerank import KReciprocal, expand_gallery, expand_queries
from ipse.images import read_image, resize
from ipse.measure import PROTOCOLS, Features, Retrieval, evaluate
from ipse.measure.datasets import first_of_each, open_dataset
from ipse.measure.distances import DistanceSource
from ipse.measure.protocols import columns_of

WORLD = "world"
LAYOUTS = {
    "market1501": "market1501",
    "msmt17": "msmt17",
    "cuhk03-np": "cuhk03-np",
    "occluded-duke": "occluded-duke",
    "occluded-reid": "occluded-reid",
    "ltcc-general": "ltcc",
    "ltcc-changed": "ltcc",
    "world-within-look": WORLD,
    "world-across-looks": WORLD,
}
"""The protocols that can be measured here, and how the photographs of each lie on disk."""

# Pictures that are read and encoded between two writes.
_PIECE = 256


# -- photographs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photographs:
    """Photographs under a protocol.

    Attributes
    ----------
    protocol
        A name in `LAYOUTS`.
    images
        What `ipse.read_image` takes, of N photographs.
    columns
        By name, (N,) what is known of them; the protocol's are among them.
    query, gallery
        Rows.
    about
        How they were cut.
    """

    protocol: str
    images: Sequence[Path | bytes] = field(repr=False)
    columns: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    query: npt.NDArray[np.intp]
    gallery: npt.NDArray[np.intp]
    about: str

    def sides(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Columns of the queries and of the gallery."""
        return [{name: column[rows] for name, column in self.columns.items()} for rows in (self.query, self.gallery)]


def open_photographs(folder: str | Path, protocol: str, split: str | None = None) -> Photographs:
    """Find the photographs of a data set, its queries and its gallery.

    Parameters
    ----------
    folder
        In the published layout, or as ``ipse world dataset`` writes it.
    protocol
        A name in `LAYOUTS`.
    split
        One that is cut into queries and gallery: the first picture of every person in every camera (of the world, in
        every Look) is a query. By default the published queries and gallery, or without these the split ``val``.

    Raises
    ------
    DataError
        If there is no such protocol, folder or split, or the folder holds something else.
    """
    if protocol not in LAYOUTS:
        known = "has no queries and gallery in a layout that is read here" if protocol in PROTOCOLS else "is unknown"
        raise DataError(f"The protocol {protocol!r} {known}.", f"There are: {', '.join(LAYOUTS)}.")
    layout, rules = LAYOUTS[protocol], PROTOCOLS[protocol].ignore
    needed = dict.fromkeys(name for rule in rules for name in rule.columns if name != "person")
    # What the first rule looks at besides the person is where, or when, a picture was taken.
    spread = [name for rule in rules[:1] for name in rule.columns if name != "person"]
    sides: tuple[str, ...] = ()
    if layout == WORLD:
        if split is not None:
            raise DataError("The world's data sets have no splits.", "Leave out the split.")
        from ipse.world.dataset import read_dataset

        records: list[Any] = list(read_dataset(folder).records())
        about = "people of the world"
    else:
        data = open_dataset(layout, folder)
        splits = sorted({record.attributes["split"] for record in data.records()})
        if split is None and {"query", "gallery"} <= set(splits):
            sides = ("query", "gallery")
        elif split is None and "val" not in splits:
            raise DataError(
                f"{folder} has neither queries and a gallery nor a split val, but {', '.join(splits)}.",
                "Name the split that is to be cut into queries and gallery.",
            )
        records = [record for name in sides or (split or "val",) for record in data.records(name)]
        about = f"the split {split or 'val'} of {layout}"
    columns = columns_of(records, *needed)
    if sides:
        of = np.array([record.attributes["split"] for record in records])
        query, gallery = (np.flatnonzero(of == side) for side in sides)
        about = f"queries and gallery of {layout} as published"
    else:
        query, gallery = first_of_each(records, *spread)
        if layout == "market1501":
            # Nobody asks for boxes of nobody and of bystanders.
            query = query[columns["person"][query] > 0]
        about += f", the first picture of every {' and '.join(['person', *spread])} a query"
    return Photographs(protocol, [record.image for record in records], columns, query, gallery, about)


# -- features ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """Features of N photographs.

    Attributes
    ----------
    plain, mirrored
        (N, D) of the encoder, and averaged with those of the mirror image.
    colors
        (N, E) of clothes; see `hsv_stripes`.
    """

    plain: npt.NDArray[np.float32]
    mirrored: npt.NDArray[np.float32]
    colors: npt.NDArray[np.float32]


def see(
    photographs: Photographs,
    encoder: Encoder,
    folder: str | Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Seen:
    """Encode photographs, whole and brought to the encoder's size; what is done is kept in a folder.

    Parameters
    ----------
    photographs
        See `open_photographs`.
    encoder
        Of whole pictures.
    folder
        Where features are kept, in pieces, by the encoder's fingerprint and the photographs.
    on_progress
        Called with the photographs done and their number.

    Raises
    ------
    WeightsError
        If the encoder takes aligned faces.
    DataError
        If a photograph cannot be read, or the folder cannot be written.
    """
    if encoder.chip.template:
        raise WeightsError(
            f"{encoder.name} takes faces aligned to {encoder.chip.template}; here whole pictures are encoded.",
            "Name an encoder of bodies, such as body-world.",
        )
    mirror, total = AveragedEncoder(encoder), len(photographs.images)
    pieces = []
    for start in range(0, total, _PIECE):
        some = photographs.images[start : start + _PIECE]
        path = Path(folder) / f"{_key(encoder, some)}.npz"
        if not path.exists():
            pictures = [_read(image) for image in some]
            chips = [resize(picture, encoder.chip.width, encoder.chip.height) for picture in pictures]
            made = Seen(encoder.encode(chips), mirror.encode(chips), hsv_stripes(pictures))
            try:
                with atomic_write(path) as file:
                    np.savez(file, **{one.name: getattr(made, one.name) for one in fields(Seen)})
            except OSError as error:
                raise DataError(f"{folder} cannot be written: {error.strerror or error}.", "Name another.") from error
        with np.load(path) as file:
            pieces.append(dict(file))
        on_progress(min(start + _PIECE, total), total)
    return Seen(**{one.name: np.concatenate([piece[one.name] for piece in pieces]) for one in fields(Seen)})


def _read(image: Path | bytes) -> npt.NDArray[np.uint8]:
    try:
        return read_image(image)
    except ImageError as error:
        raise DataError(f"{image if isinstance(image, Path) else 'A picture'} cannot be read: {error}") from error


def _key(encoder: Encoder, images: Sequence[Path | bytes]) -> str:
    """Another name where the encoder or a photograph is another."""
    told = hashlib.sha256(encoder.fingerprint.encode())
    for image in images:
        if isinstance(image, Path):
            state = image.stat()
            told.update(f"{image.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
        else:
            told.update(hashlib.sha256(image).digest())
    return told.hexdigest()[:24]


# -- search without training -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A search with some of what needs no training, in this order.

    Attributes
    ----------
    mirror
        Features are averaged with those of the mirror image.
    centralized
        By neighbors, queries and gallery as one set (Pose2ID), with the published numbers of neighbors; the published
        evaluation centralizes each apart.
    expanded
        The gallery and then the queries, by so many neighbors, which weigh the cosine to this power; None for not.
    bridged
        By intermediaries in the query's clothes (FAIM), so many of each; 0 for not.
    reranked
        By k-reciprocal neighbors, with the published parameters.
    """

    mirror: bool = False
    centralized: bool = False
    expanded: tuple[int, float] | None = None
    bridged: int = 0
    reranked: bool = False

    def search(
        self,
        query: npt.NDArray[np.float32],
        gallery: npt.NDArray[np.float32],
        looks: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None,
    ) -> DistanceSource:
        """Distances of a search; whether features are averaged with mirror images is up to who gives them.

        Parameters
        ----------
        query, gallery
            (Q, D) and (G, D) features, compared by cosine.
        looks
            (Q, E) and (G, E) features of clothes, where `bridged`.
        """
        if self.centralized:
            moved = centralize(np.concatenate([query, gallery]))
            query, gallery = moved[: len(query)], moved[len(query) :]
        if self.expanded:
            gallery = expand_gallery(gallery, *self.expanded)
            query = expand_queries(query, gallery, *self.expanded)
        if self.bridged:
            if looks is None:
                raise ValueError("Intermediaries are found by clothes: give features of looks.")
            found = bridge(query, gallery, *looks, k=self.bridged)
            query, gallery = found.query, found.gallery
        return KReciprocal(query, gallery) if self.reranked else Features(query, gallery)


WAYS = {
    "cosine": Way(),
    "mirror": Way(mirror=True),
    "pose2id": Way(centralized=True),
    # Of 2, 5 and 10 neighbors and powers 0 and 3 the best on people held out of Market-1501 train.
    "expansion": Way(expanded=(5, 0.0)),
    "faim": Way(bridged=3),
    "kreciprocal": Way(reranked=True),
    "together": Way(mirror=True, centralized=True, reranked=True),
    "together, no mirror": Way(centralized=True, reranked=True),
    "together, no pose2id": Way(mirror=True, reranked=True),
    "together, no kreciprocal": Way(mirror=True, centralized=True),
}
"""The ablation: the encoder alone, each method alone, three together, and these without each."""


def search(photographs: Photographs, seen: Seen, way: Way) -> DistanceSource:
    """Distances from the queries to the gallery."""
    features = seen.mirrored if way.mirror else seen.plain
    rows = photographs.query, photographs.gallery
    query, gallery = (features[some] for some in rows)
    return way.search(query, gallery, (seen.colors[rows[0]], seen.colors[rows[1]]))


def measure(photographs: Photographs, seen: Seen, way: Way) -> Retrieval:
    """Retrieval of a search under the photographs' protocol.

    Raises
    ------
    ValueError
        If there are too few photographs for the neighbors that the way asks for.
    """
    return evaluate(search(photographs, seen, way), *photographs.sides(), photographs.protocol)


def ranked(photographs: Photographs, distances: DistanceSource, query: int, count: int) -> npt.NDArray[np.intp]:
    """The nearest photographs of a query, nearest first.

    Parameters
    ----------
    photographs
        Whose distances they are.
    distances
        As `search` gives them.
    query
        Which of the queries.
    count
        At most so many.

    Returns
    -------
    numpy.ndarray
        Rows of the photographs; those that the protocol ignores are left out.
    """
    selection = PROTOCOLS[photographs.protocol].select(*photographs.sides())
    place = int(np.flatnonzero(selection.query == query)[0])
    # Places are counted among what the protocol leaves in.
    far = np.asarray(distances.rows(query, query + 1))[0][selection.gallery].copy()
    for _, items in selection.ignored(place, place + 1):
        far[items] = np.inf
    order = far.argsort(kind="stable")[:count]
    return photographs.gallery[selection.gallery[order[np.isfinite(far[order])]]]
