"""Data for training: pictures cut to the network's size once, then read from a memory-mapped array.

A source is a folder of Parquet files such as `ipse world dataset` writes, or a folder of pictures named as those of
Market-1501. `pack` decodes and cuts it once; `carry` writes the same chips as small Parquet files for another machine,
which `pack` reads there.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ipse.errors import DataError, TrainingError
from ipse.faces.align import TEMPLATES, align, fit_similarity
from ipse.faces.contract import Face
from ipse.images import image_files, read_image, resize

#: World people from here on are for judging: no training may see them.
JUDGED_FROM = 900_000

CUTS = ("whole", "face_box", *TEMPLATES)
"""How chips are cut: the whole picture, a square around the face's landmarks, or a face alignment."""

# More than anybody has.
_LOOKS = 1 << 20

# Columns of a picture that training reads where they are there; the rest of a shard stays unread.
_POINTS = ("five", "dense")
_FLAGS = ("five_visible", "dense_visible")
_UNREAD = {
    *("captions", "look_json", "world_version"),
    *("keypoints", "keypoints_visible", "body_box", "intrinsics", "extrinsics", "depth", "normals", "uv"),
}
_MARKET = re.compile(r"(-?\d+)_c(\d+)")
# The largest file that `carry` writes, and the rows it writes at a time.
_CARRIED_BYTES = 60 << 20
_CHUNK = 256


@dataclass(frozen=True)
class Cut:
    """How pictures become chips.

    Attributes
    ----------
    kind
        One of `CUTS`.
    size
        Height and width of a chip.
    margin
        For ``face_box``: what is added on each side, as a share of the box.
    parts
        Keep the segmentation too.
    """

    kind: str = "whole"
    size: tuple[int, int] = (128, 128)
    margin: float = 0.25
    parts: bool = False

    def __post_init__(self) -> None:
        if self.kind not in CUTS:
            raise TrainingError(f"There is no cut {self.kind!r}.", f"There are {', '.join(CUTS)}.")
        object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        if len(self.size) != 2 or min(self.size) < 8:
            raise TrainingError(f"The chip's size is {self.size}; it must be [height, width], 8 or more each.")
        if self.kind in TEMPLATES and self.size != (TEMPLATES[self.kind].size,) * 2:
            side = TEMPLATES[self.kind].size
            raise TrainingError(f"Faces aligned to {self.kind} have {side} × {side} pixels, not {list(self.size)}.")


@dataclass(frozen=True, eq=False)
class Chips:
    """Chips with what is known about them.

    Attributes
    ----------
    folder
        Where they lie.
    cut
        How they were cut.
    fingerprint
        sha256 over pixels and columns.
    columns
        Values of each picture by name: arrays of length N; points as (N, P, 2) in pixels of the chip.
    rows
        Which rows of the folder these are.
    """

    folder: Path
    cut: Cut
    fingerprint: str
    columns: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _images(self) -> npt.NDArray[np.uint8]:
        return np.load(self.folder / "image.npy", mmap_mode="r")

    @cached_property
    def _parts(self) -> npt.NDArray[np.uint8]:
        return np.load(self.folder / "parts.npy", mmap_mode="r")

    def images(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """(n, height, width, 3) chips of some rows, counted within these."""
        return self._images[self.rows[rows]]

    def parts(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """(n, height, width) classes of their pixels."""
        return self._parts[self.rows[rows]]

    def choose(self, rows: npt.NDArray[np.int64]) -> Chips:
        """Some of the chips."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Chips(self.folder, self.cut, self.fingerprint, columns, self.rows[rows])

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column.

        Raises
        ------
        DataError
            If the data has none of that name.
        """
        if name not in self.columns:
            raise DataError(f"The data has no column {name!r}.", f"It has {', '.join(self.columns)}.")
        return self.columns[name]

    def labels(self, of: str) -> npt.NDArray[np.int64]:
        """(N,) numbers of classes: of people, or of people in one ``look``; `person_of` tells whose they are."""
        people = self.column("person").astype(np.int64)
        return people if of == "person" else people * _LOOKS + self.column("look")

    def traits(self, people: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The numbers that people of the world are made from.

        Parameters
        ----------
        people
            (P,) numbers of people who are among these chips.

        Returns
        -------
        tuple
            Names of T traits that differ among them, as dotted paths of `ipse.world.Person`, and (P, T) values
            standardized over these people.

        Raises
        ------
        DataError
            If the data does not say who the people are.
        """
        texts = self.column("person_json")
        known = {int(who): text for who, text in zip(self.column("person"), texts, strict=True) if text is not None}
        if not set(people.tolist()) <= set(known):
            raise DataError(
                "The data does not say what all of its people are made from.",
                "`ipse world dataset` writes it as `person_json`; leave the loss `traits` out for other data.",
            )
        return _standardized([known[int(who)] for who in people])

    def circumstances(self) -> tuple[list[str], npt.NDArray[np.float32]]:
        """The numbers that pictures of the world were taken by: expression, pose, camera and light.

        Returns
        -------
        tuple
            Names of T numbers that differ among these chips, as dotted paths of `ipse.world.Shot`, and (N, T) values
            standardized over them.

        Raises
        ------
        DataError
            If the data does not say how they were taken.
        """
        texts = self.column("shot_json").tolist()
        if None in texts:
            raise DataError(
                "The data does not say how all of its pictures were taken.",
                "`ipse world dataset` writes it as `shot_json`; leave the loss `traits` out for other data.",
            )
        return _standardized(texts)

    def split(self, holdout: float) -> tuple[Chips, Chips]:
        """Parts for training and for judging, of different people: the last ones by number are held out."""
        people = np.unique(self.column("person"))
        count = round(holdout * len(people))
        if holdout and not 0 < count < len(people):
            raise DataError(
                f"A share of {holdout} of {len(people)} people cannot be held out.", "Change `holdout` or add people."
            )
        out = np.isin(self.column("person"), people[len(people) - count :])
        return self.choose(np.flatnonzero(~out)), self.choose(np.flatnonzero(out))


def _standardized(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Names of the numbers that differ among JSON texts, and their values with mean 0 and deviation 1."""
    rows = [dict(_numbers(json.loads(text))) for text in texts]
    names = sorted({name for row in rows for name in row} - {"number", "background.seed"})
    # What a text leaves out is at its rest, which is 0 for changes of shape and for expressions.
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows], np.float32)
    spread = values.std(0)
    kept = spread > 1e-4
    return [name for name, keep in zip(names, kept, strict=True) if keep], (
        (values - values.mean(0))[:, kept] / spread[kept]
    )


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested JSON by dotted path; lists of things, such as moles, have no fixed places and are left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        if all(isinstance(inner, int | float) for inner in value):
            for i, inner in enumerate(value):
                yield f"{path}.{i}", float(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def person_of(labels: npt.NDArray[np.int64], of: str) -> npt.NDArray[np.int64]:
    """The people of labels that `Chips.labels` gave."""
    return labels if of == "person" else labels // _LOOKS


def rows_of(source: str | Path) -> tuple[int, Iterator[dict[str, Any]]]:
    """Number of pictures of a source, and each with its columns; ``image`` (and ``parts``) encoded.

    Raises
    ------
    DataError
        If the folder is missing or of another layout, or holds people who are for judging only.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"There is no data folder {folder}.", "`ipse world dataset` writes one.")
    shards = sorted(folder.glob("data/*.parquet")) or sorted(folder.glob("*.parquet"))
    if shards:
        try:
            return sum(pq.read_metadata(path).num_rows for path in shards), _parquet_rows(shards)
        except pa.ArrowInvalid as error:
            raise DataError(f"A file of {folder} is damaged: {error}.", "Write the data set again.") from error
    files = [path for path in image_files(folder) if _MARKET.match(path.name)]
    if not files:
        raise DataError(
            f"{folder} holds neither Parquet files nor pictures named like 0002_c1s1_000451_03.jpg.",
            "Name a folder that `ipse world dataset` wrote, or the folder of pictures of a Market-1501 layout.",
        )
    return len(files), _market_rows(files)


def _parquet_rows(shards: Sequence[Path]) -> Iterator[dict[str, Any]]:
    told: set[int] = set()
    for path in shards:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name == "image" or name not in _UNREAD]
            if not {"image", "person"} <= set(names):
                raise DataError(f"{path} has no columns `image` and `person`.", "`ipse world dataset` writes them.")
            for batch in file.iter_batches(_CHUNK, columns=names):
                for row in batch.to_pylist():
                    for name in ("image", "parts"):
                        if name in row:
                            row[name] = row[name]["bytes"]
                    if not row.get("chip"):
                        # Centers of pixels are halves in the world and whole numbers everywhere else.
                        for name in (*_POINTS, "face_box"):
                            if row.get(name) is not None:
                                row[name] = np.asarray(row[name], np.float64) - 0.5
                    if "person_json" in row and not row.get("chip"):
                        # Pictures of a person follow each other and all say the same of them: the first will do.
                        row["person_json"] = None if row["person"] in told else row["person_json"]
                        told.add(row["person"])
                    refuse_judged(path, row["person"])
                    yield row


def refuse_judged(path: Path, person: int) -> None:
    """Raise a `DataError` if the person of a file is one of those for judging only."""
    if person >= JUDGED_FROM:
        raise DataError(
            f"{path} holds person {person}; people from {JUDGED_FROM} on are for judging only.",
            "Train on people with lower numbers.",
        )


@dataclass(frozen=True)
class WorldRows:
    """Rows of what ``ipse world dataset`` wrote, read anew each time.

    Attributes
    ----------
    paths
        Its files.
    columns
        What is read of them; ``person`` is among them.
    remedy
        How to render what has these columns.
    """

    paths: Sequence[Path]
    columns: Sequence[str]
    remedy: str

    @classmethod
    def open(cls, source: str | Path, columns: Sequence[str], remedy: str, files: slice = slice(None)) -> WorldRows:
        """The files of a folder, or some of them by name.

        Raises
        ------
        DataError
            If there are none.
        """
        paths = sorted(Path(source).glob("data/*.parquet"))[files]
        if not paths:
            raise DataError(f"{source} holds no data set of the world.", "`ipse world dataset` writes one.")
        return cls(paths, columns, remedy)

    def __len__(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self.paths)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each as a dict.

        Raises
        ------
        DataError
            If a column is missing, or somebody is there who is for judging only.
        """
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                if missing := set(self.columns) - set(file.schema_arrow.names):
                    raise DataError(f"{path} has no column {sorted(missing)[0]}.", self.remedy)
                for batch in file.iter_batches(_CHUNK, columns=list(self.columns)):
                    for row in batch.to_pylist():
                        refuse_judged(path, row["person"])
                        yield row


def _market_rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        person, camera = map(int, _MARKET.match(path.name).groups())  # type: ignore[union-attr]
        # -1 are pictures of nobody, 0 distractors: neither is a person to learn.
        if person > 0:
            yield {"image": path.read_bytes(), "person": person, "camera": camera}


def _chip(row: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    """The chip of a row and its columns, points moved into the chip."""
    picture = read_image(row["image"])
    columns = {name: value for name, value in row.items() if name not in ("image", "parts")}
    height, width = picture.shape[:2]
    if row.get("chip") or cut.kind == "whole":
        scale = np.array([width / cut.size[1], height / cut.size[0]])
        matrix = np.column_stack([np.diag(scale), scale / 2 - 0.5])
        chip = picture if (height, width) == cut.size else resize(picture, cut.size[1], cut.size[0])
    elif cut.kind in TEMPLATES:
        five = _points(row, "five")
        chip = align(picture, [Face((0.0, 0.0, 1.0, 1.0), 1.0, five, "arcface5")], cut.kind)[0]
        matrix = fit_similarity(TEMPLATES[cut.kind].points["arcface5"], five)
    else:
        left, top, right, bottom = _points(row, "face_box")
        side = max(right - left, bottom - top) * (1 + 2 * cut.margin)
        scale = np.array([side / cut.size[1], side / cut.size[0]])
        corner = np.array([left + right, top + bottom]) / 2 - side / 2
        matrix = np.column_stack([np.diag(scale), corner + scale / 2])
        chip = _warp(picture, matrix, cut.size, Image.Resampling.BILINEAR)
    chips: dict[str, Any] = {"image": chip, "columns": columns}
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    for name in _POINTS:
        if columns.get(name) is not None:
            columns[name] = (np.asarray(columns[name], np.float64) @ inverse[:, :2].T + inverse[:, 2]).astype(
                np.float32
            )
    if cut.parts:
        if row.get("parts") is None:
            raise DataError("The data has no map `parts`.", "Render it with `truth: [parts]`.")
        chips["parts"] = _warp(
            np.asarray(Image.open(io.BytesIO(row["parts"]))), matrix, cut.size, Image.Resampling.NEAREST
        )
    return chips


def _points(row: Mapping[str, Any], name: str) -> npt.NDArray[np.float64]:
    if row.get(name) is None:
        raise DataError(f"The data has no column `{name}`, which this cut needs.", "Cut the whole picture instead.")
    return np.asarray(row[name], np.float64)


def _warp(
    picture: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64], size: tuple[int, int], how: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Read a chip by the map from its pixels to the picture's."""
    # Pillow counts from corners of pixels, the matrix from their centers.
    shift = matrix[:, :2] @ np.array([-0.5, -0.5]) + matrix[:, 2] + 0.5
    a, b, c, d = matrix[:, :2].ravel()
    coefficients = (a, b, shift[0], c, d, shift[1])
    return np.asarray(Image.fromarray(picture).transform(size[::-1], Image.Transform.AFFINE, coefficients, how))


def _fingerprint_of_source(source: str | Path, cut: Cut) -> str:
    folder = Path(source)
    stats = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*.*"))]
    return hashlib.sha256(json.dumps([str(folder.resolve()), stats, asdict(cut)]).encode()).hexdigest()


def pack(
    source: str | Path, cut: Cut, cache: str | Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Chips:
    """Cut the pictures of a source once; later calls open what is there.

    Parameters
    ----------
    source
        A folder; see `rows_of`.
    cut
        How.
    cache
        Folder of all packs; each has a folder of its own, named after the source's files and the cut.
    progress
        Called with the pictures done and their number.

    Raises
    ------
    DataError
        If the source cannot be read, or the cache cannot be written; nothing half-written stays.
    """
    total, rows = rows_of(source)
    home = Path(cache) / _fingerprint_of_source(source, cut)[:24]
    if not (home / "pack.json").exists():
        part = home.with_name(f".{home.name}.{secrets.token_hex(4)}.part")
        try:
            _write_pack(part, rows, total, cut, progress)
            shutil.rmtree(home, ignore_errors=True)
            part.rename(home)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                need = total * cut.size[0] * cut.size[1] * (4 if cut.parts else 3) / 1e9
                hint = f"Make room for about {need:.1f} GB, or name another folder for the cache."
                raise DataError(f"{cache} cannot take the pack: {error.strerror}.", hint) from error
            raise DataError(f"{cache} cannot be written: {error.strerror or error}.", "Name another cache.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return _open_pack(home, cut)


def _write_pack(
    folder: Path, rows: Iterator[dict[str, Any]], total: int, cut: Cut, progress: Callable[[int, int], None]
) -> None:
    folder.mkdir(parents=True)
    # Written as a stream and not into a map of the full size: a full disk is then an error, not a crash.
    digest, count, columns = hashlib.sha256(), 0, []
    names = ("image", "parts") if cut.parts else ("image",)
    files = {name: open(folder / f"{name}.raw", "wb") for name in names}  # noqa: SIM115 # closed below
    try:
        for row in rows:
            chip = _chip(row, cut)
            for name, file in files.items():
                content = np.ascontiguousarray(chip[name]).tobytes()
                file.write(content)
                digest.update(content)
            columns.append(
                {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in chip["columns"].items()}
            )
            count += 1
            progress(count, total)
    finally:
        for file in files.values():
            file.close()
    for name in names:
        _as_npy(folder, name, (count, *cut.size, 3) if name == "image" else (count, *cut.size))
    table = pa.Table.from_pylist(columns)
    digest.update(json.dumps(columns, sort_keys=True, default=str).encode())
    pq.write_table(table, folder / "columns.parquet", compression="zstd")
    (folder / "pack.json").write_text(json.dumps({"fingerprint": digest.hexdigest(), "cut": asdict(cut)}))


def _as_npy(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    """Put the header of NumPy's format before raw pixels."""
    with open(folder / f"{name}.npy", "wb") as out, open(folder / f"{name}.raw", "rb") as raw:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(out, header)
        shutil.copyfileobj(raw, out, 1 << 22)
    (folder / f"{name}.raw").unlink()


def _open_pack(folder: Path, cut: Cut) -> Chips:
    try:
        known = json.loads((folder / "pack.json").read_text())
        table = pq.read_table(folder / "columns.parquet")
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise DataError(f"The pack {folder} is damaged ({error}).", "Remove that folder; it is made again.") from error
    columns = {}
    for name in table.column_names:
        values = table[name]
        if name in _POINTS or name in _FLAGS:
            shape = (len(table), -1, 2) if name in _POINTS else (len(table), -1)
            while pa.types.is_list(values.type):
                values = pa.chunked_array([chunk.flatten() for chunk in values.chunks])
            values = values.to_numpy().reshape(shape)
            columns[name] = values.astype(np.float32) if name in _POINTS else values
        elif not pa.types.is_list(values.type):
            columns[name] = values.to_numpy()
    return Chips(folder, cut, known["fingerprint"], columns, np.arange(len(table)))


def carry(source: str | Path, cut: Cut, out: str | Path, quality: int = 95) -> list[Path]:
    """Write the chips of a source as small Parquet files, JPEG inside, to train on another machine.

    Parameters
    ----------
    source, cut
        As in `pack`, which reads the result with the same cut.
    out
        A folder; files are called ``chips-00000.parquet`` and so on, each below 64 MiB.
    quality
        Of JPEG; the segmentation is kept exactly.

    Returns
    -------
    list
        The files.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder} is not empty.", "Name a new folder.")
    _, rows = rows_of(source)
    files: list[Path] = []
    waiting: list[dict[str, Any]] = []
    size = 0

    def write() -> None:
        nonlocal size
        files.append(folder / f"chips-{len(files):05d}.parquet")
        pq.write_table(pa.Table.from_pylist(waiting), files[-1], compression="zstd", row_group_size=_CHUNK)
        waiting.clear()
        size = 0

    for row in rows:
        chip = _chip(row, cut)
        known = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in chip["columns"].items()}
        known["image"] = {"bytes": _encoded(chip["image"], "JPEG", quality=quality, subsampling=0)}
        if cut.parts:
            known["parts"] = {"bytes": _encoded(chip["parts"], "PNG")}
        known["chip"] = True
        waiting.append(known)
        # Columns of a picture take a few kilobytes before they are compressed.
        size += sum(len(known[name]["bytes"]) for name in ("image", "parts") if name in known) + 4096
        if size > _CARRIED_BYTES:
            write()
    if waiting:
        write()
    return files


def _encoded(picture: npt.NDArray[np.uint8], form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form, **options)
    return file.getvalue()
