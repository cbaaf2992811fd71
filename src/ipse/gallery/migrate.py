"""Moving a gallery to another encoder: the stored crops are encoded again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ipse.errors import GalleryError, ImageError
from ipse.gallery.rows import decode_crop, vector_column
from ipse.gallery.values import EncoderSpec, Migration

if TYPE_CHECKING:
    import pyarrow as pa

    from ipse.encoders import Encoder

Reencode = Callable[[list[npt.NDArray[np.uint8]]], npt.NDArray[np.float32]]
"""Crops, (H, W, 3) uint8 RGB, to (N, D) vectors, NaN where a crop is of no use."""


@dataclass
class Outcome:
    """What happened so far."""

    moved: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def report(self) -> Migration:
        """The final account."""
        return Migration(self.moved.total(), dict(self.dropped), tuple(sorted(self.dropped.keys() - self.moved.keys())))


def crop_encoder(encoder: Encoder) -> Reencode:
    """Encode crops: those of the chip's size as they are, in others the face is looked for and aligned."""
    from ipse.faces import HogDetector, align
    from ipse.images import resize

    chip = encoder.chip
    detector = HogDetector() if chip.template is not None else None

    def chip_of(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        if crop.shape[:2] == (chip.height, chip.width):
            return crop
        if detector is None or chip.template is None:
            return resize(crop, chip.width, chip.height)
        faces = detector.detect(crop)
        return align(crop, faces[:1], chip.template)[0] if faces else None

    def encode(crops: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        chips = [chip_of(crop) for crop in crops]
        vectors = np.full((len(crops), encoder.dim), np.nan, np.float32)
        found = [i for i, cut in enumerate(chips) if cut is not None]
        vectors[found] = encoder.encode([chips[i] for i in found])
        return vectors

    return encode


def encoded_again(
    batches: Iterable[pa.RecordBatch],
    target: pa.Schema,
    encoder: EncoderSpec,
    reencode: Reencode,
    outcome: Outcome,
    drop: bool,
) -> Iterator[pa.RecordBatch]:
    """Rows of a gallery with the vectors of another encoder; what cannot be encoded is left out and counted.

    Raises
    ------
    GalleryError
        At the end, if something was left out and it is not `drop` (reason ``no-crops``).
    ValueError
        If `reencode` gives another shape.
    """
    import pyarrow as pa

    for large in batches:
        # Crops are pictures: a few at a time.
        for start in range(0, large.num_rows, 64):
            batch = large.slice(start, 64)
            crops = [_decoded(data) for data in batch.column("crop").to_pylist()]
            there = [i for i, crop in enumerate(crops) if crop is not None]
            vectors = np.full((len(crops), encoder.dim), np.nan, np.float32)
            if there:
                made = np.asarray(reencode([crops[i] for i in there]), np.float32)
                if made.shape != (wanted := (len(there), encoder.dim)):
                    raise ValueError(f"Encoding {len(there)} crops gave the shape {made.shape}, not {wanted}.")
                vectors[there] = made
            if encoder.metric == "cosine":
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            good = np.isfinite(vectors).all(axis=1)
            names = np.array(batch.column("name").to_pylist(), object)
            outcome.moved.update(names[good])
            outcome.dropped.update(names[~good])
            kept = batch.filter(pa.array(good))
            column = vector_column(vectors[good])
            columns = [column if name == "vector" else kept.column(name) for name in target.names]
            yield pa.RecordBatch.from_arrays(columns, schema=target)
    if outcome.dropped and not drop:
        names = sorted(outcome.dropped)
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise GalleryError(
            f"{outcome.dropped.total()} templates cannot be encoded again, because no crop of them was stored or "
            f"{encoder.name} found no face in it: {shown}.",
            "Enroll these people again from their photographs, or migrate without those templates (drop=True, --drop).",
            reason="no-crops",
        )


def _decoded(data: bytes | None) -> npt.NDArray[np.uint8] | None:
    if data is None:
        return None
    try:
        return decode_crop(data)
    except ImageError:
        return None
