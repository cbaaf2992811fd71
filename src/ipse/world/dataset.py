"""Data sets of the world: sharded Parquet with pictures as bytes and truth as columns.

::

    from ipse.world.dataset import read_dataset, write_dataset

    if __name__ == "__main__":  # worker processes import the script that starts them
        write_dataset({"people": 100, "looks": 2, "shots": 6}, "faces", workers=4)
        for record in read_dataset("faces").records():
            ...  # record.image, record.person, record.group, record.attributes

A shard holds a fixed number of people and is written whole or not at all, so a run that was cut off is taken up again
by the same call. Hugging Face `datasets`, Ray Data, Lance and pyarrow read the files as they are.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import ipse
from ipse._files import atomic_write
from ipse.errors import DataError, IpseError
from ipse.images import read_image
from ipse.world.caption import captions, facts
from ipse.world.look import Look, hair_color
from ipse.world.parts import shares
from ipse.world.person import Person, age_group, gender_presentation, skin_group
from ipse.world.recipe import TRUTH, Recipe
from ipse.world.render import Picture, Truth, render
from ipse.world.shot import Shot, apparent_yaw
from ipse.world.values import unknown
from ipse.world.version import VERSION

ENGINES = ("local", "ray")
"""What may run the shards: processes of this machine, or a Ray cluster."""

# Pictures per row group: what a reader decodes at a time.
_ROW_GROUP = 128

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_POINTS = pa.list_(pa.list_(pa.float32()))
_MATRIX = pa.list_(pa.list_(pa.float64()))
_FLAGS = pa.list_(pa.bool_())
_BOX = pa.list_(pa.float32())


class _Sample(NamedTuple):
    """One picture with all that its row is made from."""

    recipe: Recipe
    who: Person
    worn: Look
    taken: Shot
    look_number: int
    shot_number: int
    picture: Picture
    captions: list[str]
    facts: dict[str, str]

    @property
    def truth(self) -> Truth:
        return self.picture.truth


class Column(NamedTuple):
    """A column of a data set: its name, type and meaning, and what it holds for a picture."""

    name: str
    type: pa.DataType
    meaning: str
    value: Callable[[_Sample], Any]


def _or_none(part: Any, name: str) -> str:
    return "none" if part is None else getattr(part, name)


#: Columns of one plain value, to choose pictures by. They say what is so, hidden or not; `facts` says what is seen.
ATTRIBUTES: tuple[Column, ...] = (
    Column("person", pa.int64(), "who: number of the Person", lambda s: s.who.number),
    Column("look", pa.int64(), "number of the person's Look", lambda s: s.look_number),
    Column("shot", pa.int64(), "number of the Shot", lambda s: s.shot_number),
    Column("framing", pa.string(), "`portrait`, `bust`, `person` or `ear`", lambda s: s.recipe.framing),
    Column("world_version", pa.string(), "version of the world that the numbers belong to", lambda s: VERSION),
    Column("age", pa.float32(), "years", lambda s: s.who.age),
    Column("age_group", pa.string(), "`child`, `teen`, `young`, `middle` or `elder`", lambda s: age_group(s.who)),
    Column("gender", pa.string(), "how the body reads: `female` or `male`", lambda s: gender_presentation(s.who)),
    Column("skin_tone", pa.float32(), "Monk scale, 1 lightest to 10 darkest", lambda s: s.who.skin.tone),
    Column("skin_group", pa.string(), "`light`, `medium` or `dark`", lambda s: skin_group(s.who)),
    Column("eye_color", pa.string(), "of the iris", lambda s: s.who.iris.color.name),
    Column("hair_style", pa.string(), "of the head, under a hat too", lambda s: s.worn.hair.style),
    Column("hair_color", pa.string(), "natural or dyed, as it shows", lambda s: hair_color(s.who, s.worn).name),
    Column("beard", pa.string(), "style, or `none`", lambda s: s.worn.beard.style),
    Column("glasses", pa.string(), "style, or `none`", lambda s: _or_none(s.worn.glasses, "style")),
    Column("hat", pa.string(), "kind, or `none`", lambda s: _or_none(s.worn.hat, "kind")),
    Column("mask", pa.bool_(), "a face mask is worn", lambda s: s.worn.mask is not None),
    Column("scarf", pa.bool_(), "a scarf is worn", lambda s: s.worn.scarf is not None),
    Column("makeup", pa.bool_(), "lipstick or eye shadow is worn", lambda s: _made_up(s.worn)),
    Column("top", pa.string(), "kind of garment, or `none` under a dress", lambda s: _under(s.worn, "top")),
    Column("bottom", pa.string(), "kind of garment, or `none` under a dress", lambda s: _under(s.worn, "bottom")),
    Column("dress", pa.bool_(), "a dress is worn", lambda s: s.worn.dress is not None),
    Column("outer", pa.string(), "kind of garment over it, or `none`", lambda s: _or_none(s.worn.outer, "kind")),
    Column("bag", pa.string(), "kind, or `none`", lambda s: _or_none(s.worn.bag, "kind")),
    Column("mood", pa.string(), "name of the expression", lambda s: s.taken.mood),
    Column(
        "yaw",
        pa.float32(),
        "of the face, degrees: 0 to the camera, 90 to the right edge",
        lambda s: apparent_yaw(s.taken),
    ),
    Column("pitch", pa.float32(), "of the head, degrees: positive up", lambda s: s.taken.head.pitch),
    Column("roll", pa.float32(), "of the head, degrees: positive to the right edge", lambda s: s.taken.head.roll),
    Column("pose", pa.string(), "of the body", lambda s: s.taken.pose.name),
    Column("background", pa.string(), "kind", lambda s: s.taken.background.kind),
    Column(
        "occluder", pa.string(), "thing in front of the person, or `none`", lambda s: _or_none(s.taken.occluder, "kind")
    ),
)

_TRUTH_COLUMNS: tuple[Column, ...] = (
    Column("captions", pa.list_(pa.string()), "English; the first has every fact", lambda s: s.captions),
    Column("facts", pa.string(), "JSON: what the picture shows, by name", lambda s: _json(s.facts)),
    Column("person_json", pa.string(), "`Person.from_json` reads it", lambda s: s.who.to_json()),
    Column("look_json", pa.string(), "`Look.from_json` reads it", lambda s: s.worn.to_json()),
    Column("shot_json", pa.string(), "`Shot.from_json` reads it", lambda s: s.taken.to_json()),
    Column("five", _POINTS, "eyes, nose, mouth corners (5, 2), pixels", lambda s: s.truth.five.tolist()),
    Column("five_visible", _FLAGS, "in the picture and not hidden", lambda s: s.truth.five_visible.tolist()),
    Column("dense", _POINTS, "face landmarks (70, 2), pixels", lambda s: s.truth.dense.tolist()),
    Column("dense_visible", _FLAGS, "in the picture and not hidden", lambda s: s.truth.dense_visible.tolist()),
    Column("keypoints", _POINTS, "body, COCO order (17, 2), pixels", lambda s: s.truth.keypoints.tolist()),
    Column("keypoints_visible", _FLAGS, "in the picture and not hidden", lambda s: s.truth.keypoints_visible.tolist()),
    Column("face_box", _BOX, "left, top, right, bottom of the landmarks, uncut", lambda s: list(s.truth.face_box)),
    Column("body_box", _BOX, "of the whole person, cut to the picture; or null", lambda s: _list(s.truth.body_box)),
    Column("intrinsics", _MATRIX, "camera matrix (3, 3), pixels", lambda s: s.truth.camera.intrinsic.tolist()),
    Column("extrinsics", _MATRIX, "world to camera (3, 4), meters", lambda s: s.truth.camera.extrinsic.tolist()),
)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _made_up(worn: Look) -> bool:
    return worn.makeup.lipstick is not None or worn.makeup.shadow is not None


def _under(worn: Look, part: str) -> str:
    return "none" if worn.dress is not None else getattr(worn, part).kind


def _list(box: tuple[float, ...] | None) -> list[float] | None:
    return None if box is None else list(box)


def columns(recipe: Recipe) -> tuple[Column, ...]:
    """The columns of a recipe's data set, in order."""
    image = Column("image", _IMAGE, f"the picture, {recipe.image.format.upper()}", _stored_picture)
    maps = [Column(name, _IMAGE, TRUTH[name], _stored_map(name)) for name in recipe.truth]
    return (image, *ATTRIBUTES, *_TRUTH_COLUMNS, *maps)


def _stored_picture(sample: _Sample) -> dict[str, Any]:
    plan, file = sample.recipe.image, io.BytesIO()
    image = Image.fromarray(sample.picture.image)
    if plan.format == "jpeg":
        image.save(file, "JPEG", quality=plan.quality, subsampling=0 if plan.quality >= 90 else 2)
    else:
        image.save(file, "PNG")
    name = f"{sample.who.number:06d}-{sample.look_number:04d}-{sample.shot_number:08d}.{plan.format}"
    return {"bytes": file.getvalue(), "path": name}


def _stored_map(name: str) -> Callable[[_Sample], dict[str, Any]]:
    def stored(sample: _Sample) -> dict[str, Any]:
        file = io.BytesIO()
        Image.fromarray(encode_map(name, getattr(sample.picture.truth, name))).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    return stored


def encode_map(name: str, values: np.ndarray) -> np.ndarray:
    """A map of the truth in the integers that its PNG stores; see `TRUTH`."""
    if name == "depth":
        return np.clip(np.rint(values * 1000), 0, 65535).astype(np.uint16)
    if name == "normals":
        return np.clip(np.rint(values * 127.5 + 127.5), 0, 255).astype(np.uint8)
    if name == "uv":
        shown = (values >= 0).all(-1, keepdims=True)
        numbers = np.where(shown, 1 + np.rint(np.clip(values, 0, 1) * 65534), 0).astype(np.uint16)
        return np.concatenate([numbers[..., 0], numbers[..., 1]])
    return values


def decode_map(name: str, stored: bytes) -> np.ndarray:
    """The map that `encode_map` was given, to the precision of its PNG: shapes and units of `ipse.world.Truth`."""
    numbers = np.asarray(Image.open(io.BytesIO(stored)))
    if name == "depth":
        return numbers.astype(np.float32) / 1000
    if name == "normals":
        normals = (numbers.astype(np.float32) - 127.5) / 127.5
        normals[(numbers == 128).all(-1)] = 0
        return normals
    if name == "uv":
        u, v = np.split(numbers.astype(np.float32), 2)
        return np.where((u > 0)[..., None], (np.stack([u, v], -1) - 1) / 65534, -1).astype(np.float32)
    return numbers


@dataclass(frozen=True)
class DatasetSummary:
    """What `write_dataset` did.

    Attributes:
        folder: where the data set is; `README.md` there is its data card, `recipe.yaml` its recipe.
        people, pictures, shards: in the whole data set.
        written: shards written by this call; the others were there before.
        counts: pictures by group, such as ``counts["age_group"]["child"]``.
    """

    folder: Path
    people: int
    pictures: int
    shards: int
    written: int
    counts: dict[str, dict[str, int]] = field(repr=False)


def write_dataset(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    people: int | None = None,
    looks: int | None = None,
    shots: int | None = None,
    balance: Sequence[str] = (),
    framing: str | None = None,
    size: int | tuple[int, int] | None = None,
    start: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    device: str = "cpu",
    progress: bool = True,
) -> DatasetSummary:
    """Render a data set; a run that was cut off is taken up again by the same call.

    The same recipe gives the same bytes, whatever the number of workers. More people can be added to a finished data
    set by asking for more; anything else that differs from what the folder holds is refused.

    Args:
        recipe: a `Recipe`, what a YAML file would hold, or the path of one.
        out: the folder. Shards go to ``data/train-00000.parquet``, …; a data card, examples and the recipe beside it.
        people: how many, in place of the recipe's `people.count`.
        looks: Looks per person, in place of `looks.count`.
        shots: Shots per Look, in place of `shots.count`.
        balance: in place of `people.balance`.
        framing: in place of the recipe's.
        size: in place of the recipe's.
        start: number of the first person, in place of `people.start`.
        seed: in place of the recipe's.
        workers: processes; None for one per processor, and one on a GPU. A script that asks for several must guard its
            own start with ``if __name__ == "__main__"``.
        engine: ``local``, or ``ray``: shards become tasks of the Ray cluster that `ray.init` finds, or of a Ray started
            on this machine; then `out` must be a folder that every node sees.
        device: a Warp device, such as ``cpu`` or ``cuda:0``.
        progress: show a bar on the error stream.

    Raises:
        WorldError: for a recipe that cannot be.
        DataError: for a folder that cannot be written or holds another data set, for a full disk, for a missing Ray.
            Finished shards stay.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.from_dict(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)
    recipe = recipe.change(
        people=people, looks=looks, shots=shots, balance=balance, framing=framing, size=size, start=start, seed=seed
    )
    if engine not in ENGINES:
        raise unknown("There is no engine called", engine, ENGINES)
    if workers is not None and workers < 1:
        raise DataError(f"There cannot be {workers} workers.", "Ask for at least one.")
    folder = Path(out)
    plan = _Plan(recipe, str(folder.absolute()), device)
    with _failures(folder), _only_writer(folder / "data"):
        pending = plan.pending()
        total = sum(plan.size(index) for index in pending)
        if pending:
            with _bar(recipe, total, progress) as advance:
                _run(plan, pending, workers, engine, advance)
        # The card needs ours, and only now are there pictures to show.
        from ipse.world.datacard import write_card

        counts = write_card(folder, recipe, plan.paths())
    return DatasetSummary(folder, recipe.people.count, recipe.pictures, plan.shards, len(pending), counts)


@dataclass(frozen=True)
class _Plan:
    """A data set to be written: what goes into which shard."""

    recipe: Recipe
    folder: str
    device: str

    @property
    def shards(self) -> int:
        return -(-self.recipe.people.count // self.recipe.shard_people)

    def people(self, index: int) -> range:
        """Numbers of the people of a shard."""
        whole = range(self.recipe.people.start, self.recipe.people.start + self.recipe.people.count)
        return whole[index * self.recipe.shard_people : (index + 1) * self.recipe.shard_people]

    def size(self, index: int) -> int:
        """Pictures of a shard."""
        return len(self.people(index)) * self.recipe.looks.count * self.recipe.shots.count

    def path(self, index: int) -> Path:
        return Path(self.folder, "data", f"train-{index:05d}.parquet")

    def paths(self) -> list[Path]:
        return [self.path(index) for index in range(self.shards)]

    def identity(self) -> dict[str, Any]:
        """What must be equal for two shards to belong together: all but the number of people."""
        recipe = self.recipe.to_dict()
        recipe["people"] = {key: value for key, value in recipe["people"].items() if key != "count"}
        device = self.device.partition(":")[0]
        return {"recipe": recipe, "world": VERSION, "ipse": ipse.__version__, "device": device}

    def metadata(self, index: int) -> dict[str, Any]:
        """What a shard says about itself."""
        identity, people = self.identity(), self.people(index)
        text = json.dumps([identity, index, people.start, people.stop], sort_keys=True)
        return identity | {
            "shard": index,
            "people": [people.start, people.stop],
            "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
        }

    def pending(self) -> list[int]:
        """Shards that are not there yet, after a check that what is there belongs to this data set."""
        data = Path(self.folder, "data")
        found = {path: _shard_metadata(path) for path in sorted(data.glob("*.parquet"))}
        for path, theirs in found.items():
            if theirs == {}:
                raise DataError(f"{path} was not written by ipse.", "Choose another folder for the data set.")
            if theirs is not None:
                ours = self.identity()
                differences = list(_differences({key: theirs.get(key) for key in ours}, ours))
                if differences:
                    raise DataError(
                        f"{self.folder} holds another data set: {'; '.join(differences)}.",
                        "Choose another folder, or remove this one.",
                    )
        beyond = [path for path in found if path not in self.paths()]
        if beyond:
            raise DataError(
                f"{self.folder} holds more people than the {self.recipe.people.count} asked for.",
                "Choose another folder, or ask for as many as are there.",
            )
        return [
            index
            for index in range(self.shards)
            if (found.get(self.path(index)) or {}).get("fingerprint") != self.metadata(index)["fingerprint"]
        ]

    def schema(self, index: int) -> pa.Schema:
        own = columns(self.recipe)
        # Hugging Face `datasets` decodes by what it finds here.
        features = {"info": {"features": {column.name: _feature(column.type) for column in own}}}
        metadata = {
            "huggingface": json.dumps(features),
            "ipse": json.dumps(self.metadata(index), ensure_ascii=False),
        }
        return pa.schema([(column.name, column.type) for column in own], metadata=metadata)

    def write(self, index: int, done: Callable[[], None]) -> None:
        """Render and write one shard; `done` is called after every picture and may raise to stop."""
        schema = self.schema(index)
        plain = [column.name for column in ATTRIBUTES]
        with (
            atomic_write(self.path(index)) as file,
            pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=plain) as writer,
        ):
            rows: list[dict[str, Any]] = []
            for row in self.rows(index):
                rows.append(row)
                if len(rows) == _ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows.clear()
                done()
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))

    def rows(self, index: int) -> Iterator[dict[str, Any]]:
        recipe = self.recipe
        own = columns(recipe)
        for number in self.people(index):
            who = recipe.person(number)
            for j in range(recipe.looks.count):
                worn = recipe.look(who, j)
                for k in range(recipe.shots.count):
                    sample = self.sample(who, worn, j, k)
                    yield {column.name: column.value(sample) for column in own}

    def sample(self, who: Person, worn: Look, j: int, k: int) -> _Sample:
        recipe = self.recipe
        taken = recipe.shot(who, j, k)
        picture = render(who, worn, taken, recipe.framing, recipe.pixels, device=self.device)
        seen = (who, worn, taken, recipe.framing, shares(picture.truth.parts))
        written = captions(*seen, n=recipe.captions, seed=recipe.seed) if recipe.captions else []
        numbers = recipe.look_number(j), recipe.shot_number(who, j, k)
        return _Sample(recipe, who, worn, taken, *numbers, picture, written, facts(*seen))


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """The description of a column that Hugging Face `datasets` understands, old versions included."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    names = {pa.float32(): "float32", pa.float64(): "float64"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def _shard_metadata(path: Path) -> dict[str, Any] | None:
    """What a shard says about itself: nothing if it is somebody else's, None if it is damaged."""
    try:
        return json.loads((pq.read_metadata(path).metadata or {}).get(b"ipse", b"{}"))
    except pa.ArrowInvalid:
        return None


def _differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Where two nested mappings differ, each as `path is x there and y here`."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in {**theirs, **ours}:
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}" if path else key)
    elif theirs != ours:
        yield f"{path.removeprefix('recipe.')} is {theirs!r} there and {ours!r} here"


@contextmanager
def _failures(folder: Path) -> Iterator[None]:
    """Turn what the operating system says into what the user can do."""
    keep = "Finished shards are kept: the same command goes on where this one stopped."
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{folder} cannot take more: {error.strerror}.", f"Make room. {keep}") from error
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}.", "Choose a folder that you may write to."
        ) from error
    except (BrokenProcessPool, MemoryError) as error:
        raise DataError("A worker ended, most likely for want of memory.", f"Use fewer workers. {keep}") from error


@contextmanager
def _only_writer(data: Path) -> Iterator[None]:
    """Keep a second run out of the folder, and clear what a killed one left."""
    data.mkdir(parents=True, exist_ok=True)
    with open(data / ".lock", "w") as lock:
        try:
            # The system lets go of it when we end, however we end.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"Another run is writing to {data.parent}.", "Wait for its end.") from error
        for left in data.glob(".train-*.part"):
            left.unlink()
        yield
        (data / ".lock").unlink()


@contextmanager
def _bar(recipe: Recipe, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields what to call with the number of pictures done since."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} pictures/s" if speed else "starting")

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
    with bar:
        task = bar.add_task(recipe.name, total=total)
        yield lambda count: bar.advance(task, count)


def _run(plan: _Plan, pending: list[int], workers: int | None, engine: str, advance: Callable[[int], None]) -> None:
    if engine == "ray":
        _run_on_ray(plan, pending, workers, advance)
        return
    if workers is None:
        workers = 1 if plan.device.startswith("cuda") else len(os.sched_getaffinity(0))
    workers = min(workers, len(pending))
    if workers > 1:
        _run_in_processes(plan, pending, workers, advance)
        return
    for index in pending:
        plan.write(index, lambda: advance(1))


class _Stopped(Exception):
    """Raised in a worker that was asked to stop."""


# Set in worker processes only: pictures done by all workers, and whether to stop.
_shared: tuple[Any, Any] | None = None


def _start_worker(done: Any, stop: Any) -> None:
    global _shared
    _shared = done, stop
    # Ctrl-C reaches the whole group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    # A killed parent cannot tell its workers to stop.
    threading.Thread(target=follow, daemon=True).start()


def _work(plan: _Plan, index: int) -> None:
    done, stop = _shared  # type: ignore[misc]

    def one() -> None:
        with done.get_lock():
            done.value += 1
        if stop.is_set():
            raise _Stopped

    plan.write(index, one)


def _run_in_processes(plan: _Plan, pending: list[int], workers: int, advance: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    shown = 0
    with (
        _environment(OMP_NUM_THREADS="1"),
        ProcessPoolExecutor(workers, context, _start_worker, (done, stop)) as pool,
    ):
        try:
            waiting = {pool.submit(_work, plan, index) for index in pending}
            while waiting:
                finished, waiting = wait(waiting, 0.2, FIRST_COMPLETED)
                advance(done.value - shown)
                shown = done.value
                for future in finished:
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for processes started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_on_ray(plan: _Plan, pending: list[int], workers: int | None, advance: Callable[[int], None]) -> None:
    try:
        import ray
    except ImportError as error:
        raise DataError("The engine `ray` needs Ray, which is not installed.", "pip install 'ipse[scale]'") from error

    @ray.remote(num_cpus=1, max_retries=2)
    def write(index: int) -> int:
        plan.write(index, lambda: None)
        return index

    session: AbstractContextManager[Any] = nullcontext()
    if not ray.is_initialized():
        session = ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    with session:
        waiting = [write.remote(index) for index in pending]
        try:
            while waiting:
                finished, waiting = ray.wait(waiting)
                for index in ray.get(finished):
                    advance(plan.size(index))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, (IpseError, OSError, MemoryError)) else error) from error
        finally:
            for task in waiting:
                ray.cancel(task)


@dataclass(frozen=True)
class Record:
    """One picture of a data set, as every reader of data sets gives it.

    Attributes:
        image: what `ipse.read_image` takes; here the encoded bytes.
        person: who.
        group: what was taken together; here the number of the Look.
        attributes: plain values by name; see `ATTRIBUTES`.
        truth: landmarks, boxes and cameras as arrays, maps as in `ipse.world.Truth`, captions as a list, and the three
            values as JSON; empty unless asked for.
    """

    image: bytes = field(repr=False)
    person: int
    group: int
    attributes: Mapping[str, Any]
    truth: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8: the picture."""
        return read_image(self.image)


@dataclass(frozen=True)
class WorldData:
    """A data set on disk.

    Attributes:
        folder: where it is.
        recipe: what it was made of; its number of people is that of the shards found.
        shards: its files, in order.
    """

    folder: Path
    recipe: Recipe
    shards: tuple[Path, ...]

    def __len__(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self.shards)

    def records(self, truth: bool = False) -> Iterator[Record]:
        """All pictures in order: by person, Look and Shot. Memory holds one row group at a time.

        Args:
            truth: read the truth as well.
        """
        plain = [column.name for column in ATTRIBUTES]
        for path in self.shards:
            with pq.ParquetFile(path) as file:
                wanted = None if truth else ["image", *plain]
                for batch in file.iter_batches(_ROW_GROUP, columns=wanted):
                    for row in batch.to_pylist():
                        image = row.pop("image")["bytes"]
                        attributes = {name: row.pop(name) for name in plain}
                        known = {name: _truth_of(name, value) for name, value in row.items()}
                        yield Record(image, attributes["person"], attributes["look"], attributes, known)

    def table(self, names: Sequence[str]) -> pa.Table:
        """Some columns of all pictures, such as ``table(["person", "age_group"])``."""
        return pa.concat_tables(pq.read_table(path, columns=list(names)) for path in self.shards)


_ARRAYS = frozenset(column.name for column in _TRUTH_COLUMNS if pa.types.is_list(column.type)) - {"captions"}


def _truth_of(name: str, value: Any) -> Any:
    if name in TRUTH:
        return decode_map(name, value["bytes"])
    return np.array(value) if name in _ARRAYS and value is not None else value


def read_dataset(folder: str | os.PathLike[str]) -> WorldData:
    """Open a data set that `write_dataset` wrote.

    Raises:
        DataError: if there is none, or a file of it is damaged.
    """
    folder = Path(folder)
    shards = tuple(sorted(folder.glob("data/*.parquet")))
    if not shards:
        raise DataError(f"There is no data set in {folder}.", "`ipse world dataset` writes one.")
    last: dict[str, Any] = {}
    for path in shards:
        found = _shard_metadata(path)
        if not found:
            raise DataError(
                f"{path} is damaged or was not written by ipse.", "Run the command that wrote it again to restore it."
            )
        last = found
    recipe = last["recipe"]
    recipe["people"]["count"] = last["people"][1] - recipe["people"]["start"]
    return WorldData(folder, Recipe.from_dict(recipe), shards)
