"""Pictures with captions for the world base, decoded once into arrays that are mapped into memory.

People are split by their number, once and for all: the base never sees those of `for_judge`, so that classifiers
trained on them can judge it. Pictures are never mirrored: captions tell left from right.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from ipse._files import atomic_write
from ipse.diffusion.components import TOKENS, make_tokenizer, vocabulary
from ipse.diffusion.training.recipe import Size, shape_of, size_of
from ipse.errors import DataError
from ipse.faces.parts import LABELS
from ipse.images import read_image, resize
from ipse.training.data import refuse_judged

CAPTIONS = 3
"""Captions kept of a picture; one with fewer has some twice."""

_JUDGE_SHARE, _JUDGE_PEOPLE = 0.2, (30_000, 40_000)
_CHUNK = 256
# The largest file that `carry` writes: room for a little more than its pictures below 64 MiB.
_CARRIED_BYTES = 56 << 20


def for_judge(person: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether people are kept for the judge, by number, and the base is trained on the others: a fifth of all are, and
    those from 30,000 to 39,999.

    Multiples of the golden ratio spread the fifth, for balanced data sets repeat age, gender and skin every few people.
    """
    number = np.asarray(person, np.uint64)
    first, end = _JUDGE_PEOPLE
    return (number * np.uint64(2654435769) % np.uint64(2**32) < _JUDGE_SHARE * 2**32) | (
        (number >= first) & (number < end)
    )


@dataclass(frozen=True, eq=False)
class Corpus:
    """Pictures with captions, some rows of a folder.

    Attributes
    ----------
    folder
        Where the arrays lie.
    fingerprint
        sha256 over pixels, people and captions.
    person
        (N,) who is shown.
    rows
        (N,) which rows of the folder these are.
    """

    folder: Path
    fingerprint: str
    person: npt.NDArray[np.int64] = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """All pictures of the folder (M, height, width, 3), mapped into memory."""
        return np.load(self.folder / "pixels.npy", mmap_mode="r")

    @cached_property
    def tokens(self) -> npt.NDArray[np.uint16]:
        """Tokens of all captions of the folder (M, 3, 77); the first caption has every fact."""
        return np.load(self.folder / "tokens.npy", mmap_mode="r")

    def captions(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The full caption of some rows, counted within these."""
        tokenizer = make_tokenizer()
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in self.tokens[self.rows[rows], 0]]

    def choose(self, rows: npt.NDArray[np.int64]) -> Corpus:
        """Some of the rows."""
        return Corpus(self.folder, self.fingerprint, self.person[rows], self.rows[rows])

    def split(self, holdout: float) -> tuple[Corpus, Corpus]:
        """Rows to train on and rows to look at, of different people: the last ones by number are held out."""
        people = np.unique(self.person)
        count = max(1, round(holdout * len(people)))
        if count >= len(people):
            raise DataError(f"Of {len(people)} people none are left to train on.", "Render more people.")
        out = np.isin(self.person, people[-count:])
        return self.choose(np.flatnonzero(~out)), self.choose(np.flatnonzero(out))


def pack(
    sources: Sequence[str | Path],
    cache: str | Path,
    size: Size = 128,
    *,
    judge: bool = False,
    on_pack: Callable[[int, int], None] = lambda done, total: None,
) -> Corpus:
    """Decode the pictures of some folders once; later calls open what is there.

    Parameters
    ----------
    sources
        Folders that `ipse world dataset` or `carry` wrote, with captions.
    cache
        Folder of all packs; each has a folder of its own, named after the sources' files.
    size
        Of a picture: a number for squares, or height and width; those of another size are resized.
    judge
        Take the people of the judge instead of the base's.
    on_pack
        Called with the pictures done and their number.

    Raises
    ------
    DataError
        If a folder cannot be read, or holds people who are for judging only or pictures of another shape, or the cache
        cannot be written.
    """
    shards = [path for source in sources for path in _shards(source)]
    known = [[path.name, path.stat().st_size, path.stat().st_mtime_ns, str(path.resolve())] for path in shards]
    # Tokens depend on the vocabulary.
    shape = shape_of(size)
    key = json.dumps([known, size_of(*shape), judge, CAPTIONS, sorted(vocabulary()[0])])
    home = Path(cache) / f"base-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    if not (home / "pack.json").exists():
        part = home.with_name(f".{home.name}.{secrets.token_hex(4)}.part")
        try:
            part.mkdir(parents=True)
            _write(part, shards, shape, judge, on_pack)
            shutil.rmtree(home, ignore_errors=True)
            part.rename(home)
        except OSError as error:
            raise DataError(
                f"{cache} cannot take the pictures: {error.strerror or error}.", "Make room, or name another cache."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    try:
        fingerprint = json.loads((home / "pack.json").read_text())["fingerprint"]
        person = np.load(home / "person.npy")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"The pack {home} is damaged ({error}).", "Remove that folder; it is made again.") from error
    return Corpus(home, fingerprint, person, np.arange(len(person)))


def _shards(source: str | Path) -> list[Path]:
    folder = Path(source)
    found = sorted(folder.glob("data/*.parquet")) or sorted(folder.glob("*.parquet"))
    if not found:
        raise DataError(f"{folder} holds no Parquet files.", "Name a folder that `ipse world dataset` wrote.")
    return found


def _people(shard: Path) -> npt.NDArray[np.int64]:
    """(N,) who is on the pictures of a shard."""
    try:
        people = pq.read_table(shard, columns=["person"])["person"].to_numpy()
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{shard} cannot be read: {error}.", "Write the data set again.") from error
    if len(people):
        refuse_judged(shard, int(people.max()))
    return people


def _rows(shard: Path, columns: Sequence[str], judge: bool, rendered: str = "captions: 3") -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(shard) as file:
        missing = set(columns) - set(file.schema_arrow.names)
        if missing:
            raise DataError(f"{shard} has no column {', '.join(sorted(missing))}.", f"Render it with `{rendered}`.")
        for batch in file.iter_batches(_CHUNK, columns=list(columns)):
            yield from (row for row in batch.to_pylist() if bool(for_judge(row["person"])) == judge)


def _write(
    folder: Path,
    shards: Sequence[Path],
    shape: tuple[int, int],
    judge: bool,
    on_pack: Callable[[int, int], None],
) -> None:
    people = np.concatenate([_people(shard) for shard in shards])
    people = people[for_judge(people) == judge].astype(np.int64)
    if not len(people):
        raise DataError("The data shows nobody to train on.", "Render more people.")
    np.save(folder / "person.npy", people)
    tokenizer, digest, done = make_tokenizer(), hashlib.sha256(people.tobytes()), 0
    tokens = np.zeros((len(people), CAPTIONS, TOKENS), np.uint16)
    with open(folder / "pixels.npy", "wb") as file:
        # A stream and not a map of the full size: a full disk is then an error, not a crash.
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(people), *shape, 3)}
        np.lib.format.write_array_header_2_0(file, header)
        for shard in shards:
            for row in _rows(shard, ("image", "person", "captions"), judge):
                content = _fitted(read_image(row["image"]["bytes"]), *shape).tobytes()
                file.write(content)
                digest.update(content)
                if not row["captions"]:
                    raise DataError(f"{shard} has a picture without captions.", "Render it with `captions: 3`.")
                captions = [row["captions"][i % len(row["captions"])] for i in range(CAPTIONS)]
                tokens[done] = tokenizer(captions, padding="max_length", truncation=True)["input_ids"]
                done += 1
                on_pack(done, len(people))
    digest.update(tokens.tobytes())
    np.save(folder / "tokens.npy", tokens)
    (folder / "pack.json").write_text(json.dumps({"fingerprint": digest.hexdigest()}))


def _fitted(picture: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    high, wide = picture.shape[:2]
    if high * width != wide * height:
        wanted = "square pictures" if height == width else f"pictures {width} wide and {height} high"
        raise DataError(
            f"A picture has {wide} × {high} pixels, and this base is made of {wanted}, or of that shape.",
            "Name other data, or give the recipe another size: a number, or [height, width].",
        )
    return np.ascontiguousarray(picture if high == height else resize(picture, width, height))


def column_of(sources: Sequence[str | Path], corpus: Corpus, name: str, otherwise: int = 0) -> npt.NDArray[np.int64]:
    """A column of whole numbers, such as ``look``, for all pictures of a corpus's folder.

    Parameters
    ----------
    sources
        Those that the corpus was packed from.
    corpus
        Of `pack`, for the base.
    name
        Of the column.
    otherwise
        What stands for it where a shard does not have it.

    Returns
    -------
    ndarray
        (M,).

    Raises
    ------
    DataError
        If the sources are not the corpus's.
    """
    parts = []
    for shard in (path for source in sources for path in _shards(source)):
        mine = ~for_judge(people := _people(shard))
        known = name in pq.read_schema(shard).names
        values = pq.read_table(shard, columns=[name])[name].to_numpy() if known else np.full(len(people), otherwise)
        parts.append(values[mine].astype(np.int64))
    column = np.concatenate(parts)
    _all_there(corpus, len(column))
    return column


def facts_of(sources: Sequence[str | Path], corpus: Corpus) -> list[dict[str, str]]:
    """What all pictures of a corpus's folder show, by the names of `ipse.world.caption.facts`.

    Parameters
    ----------
    sources, corpus
        As in `column_of`.

    Raises
    ------
    DataError
        If the data has no facts, or the sources are not the corpus's.
    """
    shards = (path for source in sources for path in _shards(source))
    facts = [json.loads(row["facts"]) for shard in shards for row in _rows(shard, ("person", "facts"), False)]
    _all_there(corpus, len(facts))
    return facts


def _all_there(corpus: Corpus, count: int) -> None:
    """Refuse sources of `count` pictures that are not the corpus's."""
    if count != len(corpus.pixels):
        raise DataError(f"The pack has {len(corpus.pixels)} pictures, its sources {count}.", "Pack them again.")


def parts_of(sources: Sequence[str | Path], corpus: Corpus) -> npt.NDArray[np.uint8]:
    """What each pixel of all pictures of a corpus's folder shows, by the world's truth.

    It is read once, and then mapped into memory.

    Parameters
    ----------
    sources, corpus
        As in `column_of`.

    Returns
    -------
    ndarray
        (M, height, width) of numbers of `ipse.faces.parts.LABELS`.

    Raises
    ------
    DataError
        If the data has no map of parts, or the folder cannot be written.
    """
    path = corpus.folder / "parts.npy"
    if not path.exists():
        try:
            with atomic_write(path) as file:
                _write_parts(file, sources, corpus)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Make room.") from error
    return np.load(path, mmap_mode="r")


def _write_parts(file: BinaryIO, sources: Sequence[str | Path], corpus: Corpus) -> None:
    shape, count = corpus.pixels.shape[:3], 0
    np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for shard in (path for source in sources for path in _shards(source)):
        for row in _rows(shard, ("person", "parts"), False, "truth: [parts]"):
            parts = Image.open(io.BytesIO(row["parts"]["bytes"]))
            # In between two labels there is none.
            file.write(np.asarray(parts.resize(shape[:0:-1], Image.Resampling.NEAREST), np.uint8).tobytes())
            count += 1
    _all_there(corpus, count)


def persons_of(sources: Sequence[str | Path], corpus: Corpus, cells: int = 16) -> npt.NDArray[np.float32]:
    """Where the person is in all pictures of a corpus's folder, by the world's truth.

    Parameters
    ----------
    sources, corpus
        As in `parts_of`.
    cells
        Along a side.

    Returns
    -------
    ndarray
        (M, cells, cells): the share of each cell that shows the person, with clothes and what is carried.

    Raises
    ------
    DataError
        As `parts_of`.
    """
    others = [LABELS.index(label) for label in ("background", "occluder")]
    out = []
    for parts in parts_of(sources, corpus):
        shown = Image.fromarray(np.where(np.isin(parts, others), 0, 255).astype(np.uint8))
        out.append(np.asarray(shown.resize((cells, cells), Image.Resampling.BOX), np.float32) / 255)
    return np.stack(out)


def keypoints_of(sources: Sequence[str | Path], corpus: Corpus) -> npt.NDArray[np.float32]:
    """The keypoints of the body in all pictures of a corpus's folder, by the world's truth.

    Parameters
    ----------
    sources, corpus
        As in `column_of`.

    Returns
    -------
    ndarray
        (M, 17, 3) in COCO's order: shares of the picture's width and height, and 1 where a point can be seen, else 0.

    Raises
    ------
    DataError
        If the data has no keypoints, or is not the corpus's.
    """
    out = []
    for shard in (path for source in sources for path in _shards(source)):
        for row in _rows(shard, ("image", "person", "keypoints", "keypoints_visible"), False, "framing: person"):
            with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
                places = np.array(row["keypoints"]) / picture.size
            out.append(np.column_stack([places, row["keypoints_visible"]]))
    _all_there(corpus, len(out))
    return np.array(out, np.float32)


def carry(sources: Sequence[str | Path], out: str | Path, *, judge: bool = False) -> list[Path]:
    """Write what training needs of some folders as Parquet files below 64 MiB, to take to another machine.

    Parameters
    ----------
    sources
        As in `pack`, which reads the result.
    out
        A new folder; files are called ``carried-00000.parquet`` and so on.
    judge
        Take the people of the judge instead of the base's, with the columns that classifiers learn from.

    Returns
    -------
    list
        The files.
    """
    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty.", "Name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["image", "person", "captions", *(("facts", "age", "skin_tone", "yaw") if judge else ())]
    files: list[Path] = []
    waiting: list[dict[str, Any]] = []
    size = 0

    def write() -> None:
        files.append(folder / f"carried-{len(files):05d}.parquet")
        pq.write_table(pa.Table.from_pylist(waiting), files[-1], compression="zstd", row_group_size=_CHUNK)
        waiting.clear()

    for shard in (path for source in sources for path in _shards(source)):
        _people(shard)
        # Adapters take pictures of a person's other Looks as references, or poses; the autoencoder looks closer at some
        # parts; a judge learns from the numbers of people and of pictures.
        known = ("look", "parts", "keypoints", "keypoints_visible")
        if judge:
            known = (*known, "person_json", "shot_json")
        more = [name for name in known if name in pq.read_schema(shard).names]
        for row in _rows(shard, [*columns, *more], judge):
            waiting.append(row)
            size += sum(len(row[name]["bytes"]) for name in ("image", "parts") if name in row)
            if size > _CARRIED_BYTES:
                write()
                size = 0
    if waiting:
        write()
    return files


def drawn_captions(count: int, full: float, draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """(count,) which caption is taken of some pictures: with the chance `full` that with every fact, or another."""
    others = draw.integers(1, CAPTIONS, count)
    return np.where(draw.random(count) < full, 0, others)


def up_to_end(tokens: Tensor, end: int) -> Tensor:
    """Tokens (n, 77), filled up with the token `end`, without what no text of them has.

    What comes after the first end changes nothing before it, for a token sees only those to its left.
    """
    return tokens[:, : int((tokens != end).sum(1).max()) + 1].long()


def shortened(
    tokens: npt.NDArray[np.integer[Any]], breaks: Sequence[int], draw: np.random.Generator
) -> npt.NDArray[np.integer[Any]]:
    """Captions cut off before one of their commas or full stops, chosen by chance; what is left stays true.

    Parameters
    ----------
    tokens
        (B, 77) with the token of the end as padding.
    breaks
        Tokens of the comma and the full stop.
    draw
        Chance.

    Returns
    -------
    ndarray
        (B, 77).
    """
    out = tokens.copy()
    for row in out:
        places = np.flatnonzero(np.isin(row, breaks))
        if len(places):
            row[draw.choice(places) :] = row[-1]
    return out
