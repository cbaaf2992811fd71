"""One portable file with people in it: Parquet, with the encoder in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.errors import GalleryError
from ipse.gallery.rows import new_ids, vector_column, with_cards, with_columns
from ipse.gallery.rows import schema as gallery_schema
from ipse.gallery.values import EncoderSpec

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "ipse.people/1"


def write(
    path: str | os.PathLike[str], encoder: EncoderSpec, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> int:
    """Write rows with plain vectors; the file appears whole or not at all.

    Returns
    -------
    int
        How many rows.

    Raises
    ------
    GalleryError
        If the file cannot be written (reason ``unwritable``).
    """
    import pyarrow.parquet as pq

    metadata = {"format": FORMAT, "encoder": json.dumps(vars(encoder))}
    count = 0
    try:
        with (
            atomic_write(path) as file,
            pq.ParquetWriter(file, schema.with_metadata(metadata), compression="zstd") as writer,
        ):
            for batch in batches:
                writer.write_batch(batch.replace_schema_metadata(metadata))
                count += batch.num_rows
    except OSError as error:
        raise GalleryError(
            f"Cannot write {os.fspath(path)}: {error.strerror or error}.",
            "Choose another place.",
            reason="unwritable",
        ) from error
    return count


def read(path: str | os.PathLike[str]) -> tuple[EncoderSpec, pa.Table]:
    """Read what `write` wrote.

    Raises
    ------
    GalleryError
        If the file is missing (reason ``missing``), no export or damaged (``damaged``).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path)
        metadata = rows.schema.metadata or {}
        if metadata.get(b"format") != FORMAT.encode():
            raise ValueError(f"it is not of the format {FORMAT}")
        spec = EncoderSpec(**json.loads(metadata[b"encoder"]))
        # Types change on the way through Parquet only in what the schema says about nulls.
        rows = rows.replace_schema_metadata(None).cast(gallery_schema(spec.dim))
        if not np.isfinite(rows.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)).all():
            raise ValueError("a vector is not finite")
    except FileNotFoundError as error:
        raise GalleryError(f"There is no file {os.fspath(path)}.", "Check the path.", reason="missing") from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise GalleryError(
            f"{os.fspath(path)} is not an export of a gallery, or damaged: {error}.",
            "Export the gallery again.",
            reason="damaged",
        ) from error
    return spec, rows


def renumbered(rows: pa.Table, vectors: npt.NDArray[np.float32], people: Mapping[str, str]) -> pa.Table:
    """Rows of an export with the ids and the vectors of the gallery that they go into."""
    names = rows.column("name").to_pylist()
    ids = {"id": new_ids(len(names)), "person_id": [people[name] for name in names]}
    return with_cards(with_columns(rows, vector=vector_column(vectors), **ids))
