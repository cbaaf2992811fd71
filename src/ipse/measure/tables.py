"""Features with what is known of their images, as files: NumPy archives, safetensors, Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.errors import DataError

SUFFIXES = (".npz", ".safetensors", ".parquet")
"""Endings of the files that `read_features` takes."""


def read_features(
    path: str | os.PathLike[str], features: str = "features"
) -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[Any]]]:
    """Read features and columns.

    Parameters
    ----------
    path
        ``.npz`` or ``.safetensors``: an (N, D) array and (N,) arrays, by name; ``.parquet``: a column of lists of
        numbers and plain columns. No code is run from the file.
    features
        Name of the (N, D) array or column of lists.

    Returns
    -------
    tuple
        (N, D) float32, and by name (N,) columns.

    Raises
    ------
    DataError
        If the file cannot be read, the features are missing or no numbers, or lengths differ; the message names what
        the file holds.
    """
    place = Path(path)
    if place.suffix not in SUFFIXES:
        raise DataError(f"{place} is none of {', '.join(SUFFIXES)}.", "Write the features as one of these.")
    try:
        found = _read(place, features)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{place} cannot be read: {error}", "Is it complete?") from error
    if features not in found:
        raise DataError(
            f"{place} has no {features!r}, but {', '.join(sorted(found)) or 'nothing'}.",
            "Name the array of features: --features NAME.",
        )
    vectors = found.pop(features)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise DataError(
            f"{features!r} of {place} has shape {vectors.shape} and type {vectors.dtype}.",
            "Features are (number, dimensions) of numbers.",
        )
    for name, column in found.items():
        if column.shape != (len(vectors),):
            raise DataError(
                f"{name!r} of {place} has shape {column.shape} for {len(vectors):,} features.",
                "Give one value per feature.",
            )
    return np.ascontiguousarray(vectors, np.float32), found


def _read(path: Path, features: str) -> dict[str, npt.NDArray[Any]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name == features:
            rows = column.combine_chunks()
            sizes = pc.list_value_length(rows).unique()
            if rows.null_count or len(sizes) > 1:
                raise ValueError(f"the rows of {name!r} are not equally long.")
            flat = rows.flatten().to_numpy(zero_copy_only=False)
            found[name] = flat.reshape(len(rows), -1) if len(rows) else flat.reshape(0, 1)
        elif not pa.types.is_nested(column.type) and not pa.types.is_binary(column.type):
            found[name] = column.to_numpy()
    return {name: column.astype(str) if column.dtype == object else column for name, column in found.items()}
