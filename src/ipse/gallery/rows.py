"""Identities as rows of the gallery's table, and back."""

from __future__ import annotations

import io
import json
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ipse.errors import GalleryError
from ipse.gallery.values import UNKNOWN
from ipse.identity import Identity

if TYPE_CHECKING:
    import pyarrow as pa

Crop = npt.NDArray[np.uint8] | bytes | None
"""A face's picture: (H, W, 3) uint8 RGB, stored as PNG; the bytes of an image file, stored as they are; or nothing."""


def schema(dim: int) -> pa.Schema:
    """The columns of a gallery of vectors of length `dim`; ``camera``, ``date`` and ``tags`` are there to filter by."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("person_id", pa.string(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("quality", pa.float32(), nullable=False),
            pa.field("provenance", pa.string(), nullable=False),
            pa.field("consent", pa.string(), nullable=False),
            pa.field("recognize", pa.bool_(), nullable=False),
            pa.field("added", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("source", pa.string()),
            pa.field("camera", pa.string()),
            pa.field("date", pa.timestamp("us", "UTC")),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("crop", pa.binary()),
            # All that an answer says, in one place: each further column would cost a search another round of reads.
            pa.field("card", pa.string(), nullable=False),
        ]
    )


def to_rows(
    identities: Sequence[Identity], vectors: npt.NDArray[np.float32], ids: Sequence[str], crops: Sequence[Crop]
) -> pa.Table:
    """Rows for the templates of some people.

    Parameters
    ----------
    identities
        P people with N templates in all.
    vectors
        (N, D): their templates as they are to be stored.
    ids
        P: the ``person_id`` of each.
    crops
        N crops.

    Raises
    ------
    ValueError
        If a provenance entry has a ``date`` that is not ISO 8601, a ``camera`` or ``source`` that is not text, or
        ``tags`` that are not a list of texts.
    """
    import pyarrow as pa

    sizes = [len(identity) for identity in identities]
    provenance = [dict(entry) for identity in identities for entry in identity.provenance]

    def spread(values: Sequence[Any]) -> list[Any]:
        return [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]

    columns = {
        "id": new_ids(len(provenance)),
        "person_id": spread(ids),
        "name": spread([identity.name for identity in identities]),
        "vector": vector_column(vectors),
        "quality": np.concatenate([identity.quality for identity in identities]),
        "provenance": [json.dumps(entry, ensure_ascii=False) for entry in provenance],
        "consent": spread([json.dumps(identity.consent, ensure_ascii=False) for identity in identities]),
        "recognize": spread([identity.permits("recognize") for identity in identities]),
        "added": [datetime.now(UTC)] * len(provenance),
        "source": [_text(entry, "source") for entry in provenance],
        "camera": [_text(entry, "camera") for entry in provenance],
        "date": [_date(entry) for entry in provenance],
        "tags": [_tags(entry) for entry in provenance],
        "crop": [_encoded(crop) for crop in crops],
        "card": [""] * len(provenance),
    }
    return with_cards(pa.table(columns, schema=schema(vectors.shape[1])))


def new_ids(count: int) -> list[str]:
    """Names for templates that no other template has, or ever had."""
    return [secrets.token_hex(8) for _ in range(count)]


def with_cards(rows: pa.Table) -> pa.Table:
    """The same rows, each with its card written anew; whoever changes a row in another column calls it."""
    columns = (rows.column(name).to_pylist() for name in ("id", "person_id", "name", "recognize", "provenance"))
    return with_columns(rows, card=[json.dumps(values, ensure_ascii=False) for values in zip(*columns, strict=True)])


def with_columns(rows: pa.Table, **columns: Sequence[Any] | pa.Array) -> pa.Table:
    """The same rows with other values in some columns."""
    import pyarrow as pa

    for name, values in columns.items():
        field = rows.schema.field(name)
        column = values if isinstance(values, pa.Array) else pa.array(values, field.type)
        rows = rows.set_column(rows.schema.get_field_index(name), field, column)
    return rows


def vector_column(vectors: npt.NDArray[np.float32]) -> pa.Array:
    """(N, D) vectors as a column."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def vectors_of(rows: pa.Table | pa.RecordBatch) -> npt.NDArray[np.float32]:
    """The (N, D) stored vectors of some rows."""
    import pyarrow as pa

    column = rows.column("vector")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.ChunkedArray):
        # An empty table combines to no chunk at all.
        return np.empty((0, column.type.list_size), np.float32)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)


def common_consent(consents: Sequence[str]) -> dict[str, Any]:
    """What all templates of a person may be used for, from their consent records as JSON."""
    records = [json.loads(text) for text in dict.fromkeys(consents)]
    purposes = [record.get("purposes", {}) for record in records]
    both = {
        purpose: all(allowed.get(purpose, False) for allowed in purposes)
        for purpose in dict.fromkeys(name for allowed in purposes for name in allowed)
    }
    merged = {"merged": records[1:]} if len(records) > 1 else {}
    return {**records[0], "purposes": both, **merged}


def clean_name(name: str) -> str:
    """The form in which a name is stored: composed (NFC), without surrounding white space.

    Raises
    ------
    GalleryError
        If nothing is left, or it is the name of the unknown (reason ``bad-name``).
    """
    clean = unicodedata.normalize("NFC", name).strip() if isinstance(name, str) else ""
    if not clean or clean == UNKNOWN or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in clean):
        raise GalleryError(
            f"{name!r} cannot be a person's name.",
            f"Names are text without control characters, not empty, and not {UNKNOWN!r}, which means nobody known.",
            reason="bad-name",
        )
    return clean


def quoted(text: str) -> str:
    """A text as a literal of the filter language."""
    return "'" + text.replace("'", "''") + "'"


def assumed_consent() -> dict[str, Any]:
    """The record where none was given: whoever enrolls somebody says that they may be recognized, and no more."""
    return {"purposes": {"recognize": True}, "source": "assumed at enrollment", "date": now()}


def now() -> str:
    """ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def decode_crop(data: bytes) -> npt.NDArray[np.uint8]:
    """A stored crop as (H, W, 3) uint8 RGB."""
    from ipse.images import read_image

    return read_image(data)


def _encoded(crop: Crop) -> bytes | None:
    if crop is None or isinstance(crop, bytes):
        return crop
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(crop)).save(file, "PNG")
    return file.getvalue()


def _text(entry: Mapping[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"The {key} of a provenance entry is text, not {value!r}.")
    return value


def _date(entry: Mapping[str, Any]) -> datetime | None:
    text = _text(entry, "date")
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _tags(entry: Mapping[str, Any]) -> list[str] | None:
    tags = entry.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        raise ValueError(f"The tags of a provenance entry are a list of texts, not {tags!r}.")
    return tags
