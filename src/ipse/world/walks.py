"""Walks as data: the silhouettes of one stride side by side, of many people in several Looks from several sides.

::

    from ipse.world.walks import read_walks, write_walks

    write_walks("walks", people=100)
    walks = read_walks("walks")
    walks.strips, walks.people  # (N, 64, 528, 3) and (N,)

The files are Parquet, a few people in each, and written whole or not at all, so a run that was cut off is taken up
again by the same call; `ipse.training` reads them as they are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ipse._files import atomic_write
from ipse.encoders.gait import FRAMES, silhouette, strip
from ipse.errors import DataError, WorldError
from ipse.images import read_image, save_png
from ipse.world.look import Look, look
from ipse.world.person import Person, person
from ipse.world.sequence import walk
from ipse.world.version import VERSION

AZIMUTHS = (0.0, 45.0, 90.0)
"""Where cameras stand, degrees: before, aside of and beside the person."""

_SHARD = 10
# Of a frame: a person is then some twenty rows higher than a silhouette.
_SIZE = 96
# Walks of the picture to look at.
_SHOWN = 12

_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("person", pa.int64()),
        ("look", pa.int64()),
        ("azimuth", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Walks:
    """Walks that were read.

    Attributes
    ----------
    strips
        (N, 64, frames x 44, 3) uint8; see `ipse.encoders.gait.strip`.
    people, looks
        (N,) numbers: who, in what.
    azimuths
        (N,) degrees that the camera stood at.
    """

    strips: npt.NDArray[np.uint8]
    people: npt.NDArray[np.int64]
    looks: npt.NDArray[np.int64]
    azimuths: npt.NDArray[np.float32]


def walked(who: Person, worn: Look, azimuth: float, frames: int = FRAMES, start: float = 0.0) -> npt.NDArray[np.uint8]:
    """One stride of a person, a strip of silhouettes.

    Parameters
    ----------
    who, worn
        In what somebody walks; bags and hats belong to the silhouette.
    azimuth
        Of the camera, degrees.
    frames
        At even distances over the stride.
    start
        Place in the stride where it begins, 0 to 1.
    """
    # A stride is two steps.
    lasts = 2 / who.gait.cadence
    taken = walk(who, worn, seconds=lasts, fps=frames / lasts, view=float(azimuth), start=start, size=_SIZE)
    return strip([silhouette(frame.picture.truth.parts > 0) for frame in taken], frames)


def write_walks(
    out: str | Path,
    *,
    people: int = 100,
    start: int = 0,
    looks: int = 2,
    azimuths: Sequence[float] = AZIMUTHS,
    frames: int = FRAMES,
    on_walk: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Render walks; a run that was cut off is taken up again by the same call.

    Every walk begins at another place of the stride. More people can be added to a finished folder by asking for more.

    Parameters
    ----------
    out
        The folder: ``data/train-00000.parquet``, …, and ``examples.png`` to look at.
    people, start
        How many, and the number of the first.
    looks
        Of each, numbered from 0.
    azimuths
        Where cameras stand, degrees.
    frames
        Of a walk, two at least.
    on_walk
        Called with the walks that are done and their number.

    Raises
    ------
    WorldError
        If there would be no person, Look or camera, or fewer than two frames.
    DataError
        If the folder cannot be written, or holds other walks.
    """
    if min(people, looks, len(azimuths)) < 1 or frames < 2 or start < 0:
        raise WorldError("Walks need one person, one Look, one camera and two frames at least, and start from 0.")
    plan = {"looks": looks, "azimuths": list(map(float, azimuths)), "frames": frames, "start": start, "world": VERSION}
    folder = Path(out)
    each = looks * len(azimuths)
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for shard in range(-(-people // _SHARD)):
            numbers = range(start + shard * _SHARD, start + min((shard + 1) * _SHARD, people))
            path = folder / "data" / f"train-{shard:05d}.parquet"
            before = shard * _SHARD * each
            if not _there(path, plan | {"people": len(numbers)}):
                rows = []
                for row in _rows(numbers, looks, azimuths, frames):
                    rows.append(row)
                    on_walk(before + len(rows), people * each)
                told = json.dumps(plan | {"people": len(numbers)})
                with atomic_write(path) as file:
                    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA.with_metadata({"ipse": told})), file)
            on_walk(before + len(numbers) * each, people * each)
        first = pq.read_table(folder / "data" / "train-00000.parquet", columns=["image"])["image"].to_pylist()
        save_png(np.concatenate([read_image(image["bytes"]) for image in first[:_SHOWN]]), folder / "examples.png")
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}.", "Choose a folder that you may write to."
        ) from error
    return folder


def _there(path: Path, plan: dict[str, Any]) -> bool:
    """Whether a file holds what it should; fewer people are no difference, but must be written again."""
    if not path.exists():
        return False
    try:
        theirs = json.loads(pq.read_metadata(path).metadata[b"ipse"])
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no walks.", "Choose another folder.") from error
    for name, ours in plan.items():
        if name != "people" and theirs.get(name) != ours:
            raise DataError(
                f"{path} holds other walks: {name} is {theirs.get(name)} there and {ours} here.",
                "Choose another folder, or remove this one.",
            )
    return theirs["people"] == plan["people"]


def _rows(numbers: range, looks: int, azimuths: Sequence[float], frames: int) -> Iterator[dict[str, Any]]:
    for number in numbers:
        who = person(number)
        for day in range(looks):
            worn = look(day, who)
            for place, azimuth in enumerate(azimuths):
                began = np.random.default_rng([number, day, place]).uniform()
                file = io.BytesIO()
                Image.fromarray(walked(who, worn, azimuth, frames, began)[..., 0]).save(file, "PNG")
                name = f"{number:06d}-{day:02d}-{place:02d}.png"
                image = {"bytes": file.getvalue(), "path": name}
                yield {"image": image, "person": number, "look": day, "azimuth": float(azimuth)}


def read_walks(folder: str | Path) -> Walks:
    """Read what `write_walks` wrote.

    Raises
    ------
    DataError
        If there is nothing of the kind.
    """
    paths = sorted(Path(folder).glob("data/*.parquet"))
    if not paths:
        raise DataError(f"There are no walks in {folder}.", "`ipse world walks` writes them.")
    try:
        table = pa.concat_tables([pq.read_table(path, columns=_SCHEMA.names) for path in paths])
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DataError(f"{folder} holds no walks: {error}.", "`ipse world walks` writes them.") from error
    strips = np.stack([read_image(image["bytes"]) for image in table["image"].to_pylist()])
    return Walks(strips, *(table[name].to_numpy() for name in ("person", "look", "azimuth")))
