"""Pictures and videos of bodies with exact labels, reproducible from a seed (BEDLAM; Black et al. 2023).

A record holds the picture, the body (phenotype, shape and the transform of every bone), its joints in three and two
dimensions, the camera, and every garment. Two variations of the world show what the variation is worth: `full`, and
`reduced` (section 3 of the paper lists what is varied), in which the same people take the same poses before the same
cameras in plain tight clothes, in one light and before one background.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.catalogue import system
from ipse.errors import DataError, WorldError
from ipse.images import save_png
from ipse.world.body import COCO
from ipse.world.look import Look, look
from ipse.world.person import Person, person

# The three-dimensional joints are not part of the truth of a picture, so they come from where the truth comes from.
from ipse.world.render import Picture, _pose, render
from ipse.world.scene import rest_body
from ipse.world.sequence import walk
from ipse.world.shot import Background, Degrade, Light, Shot, shot
from ipse.world.values import unknown
from ipse.world.version import VERSION

VARIATIONS = ("full", "reduced")
"""How much of the world varies."""

SIZE = (64, 128)
"""Width and height of the pictures, in pixels."""

LEFT_HIP, RIGHT_HIP = COCO.index("left_hip"), COCO.index("right_hip")

_SEEDS = 10**6

#: What everybody wears in the reduced world: as near to no clothes as the world goes.
_PLAIN: dict[str, Any] = {
    **{f"top.{name}": value for name, value in {"kind": "tanktop", "length": 0.5}.items()},
    **{f"bottom.{name}": value for name, value in {"kind": "leggings", "length": 1.0}.items()},
    **{f"{part}.fit": 0.0 for part in ("top", "bottom")},
    **{f"{part}.pattern": "plain" for part in ("top", "bottom")},
    **{f"{part}.color": "gray" for part in ("top", "bottom")},
    "shoes": "gray",
    **dict.fromkeys(("glasses", "hat", "mask", "scarf", "outer", "dress", "bag")),
}
#: Another color than the clothes, so that what is missing in the reduced world is variation and not contrast.
_BACKDROP = Background("plain", 0, 0.0, "light blue")
_GARMENTS = ("top", "bottom", "dress", "outer")
_ACCESSORIES = ("hat", "glasses", "bag", "mask", "scarf", "shoes")


@dataclass(frozen=True)
class BodyRecord:
    """A picture of a body and its labels.

    Attributes
    ----------
    image
        (H, W, 3) uint8, sRGB.
    time_s
        Seconds from the start of its clip; 0 for a still.
    person
        Number of the person.
    body
        Phenotype of the body model: ``age`` in years, ``gender``, ``muscle``, ``weight``, ``height`` and
        ``proportions`` from 0 to 1, ``ancestry`` (three weights), ``shape`` (local changes by name, -1 to 1), and
        ``stature_m``.
    bones
        (J, 3, 4) float32: the transform of every bone (`ipse.world.body().bones`) from rest to the pose, meters.
    joints
        (17, 3) float64: COCO keypoints in world meters.
    camera_joints
        (17, 3) float64: the same in the camera's axes (x right, y down, z forward), meters from the middle of the hips.
    keypoints
        (17, 2) float32: the same in pixels of the picture.
    visible
        (17,) bool: in the picture and not hidden.
    intrinsic, extrinsic
        (3, 3) pixels and (3, 4) meters: the camera; see `ipse.world.Camera`.
    garments
        What is worn by name (``top``, ``bottom``, ``dress``, ``outer``, ``hat``, …): kind, colors, pattern, cut.
    pose
        Name of the pose, such as ``walking``.
    """

    image: npt.NDArray[np.uint8]
    time_s: float
    person: int
    body: dict[str, Any]
    bones: npt.NDArray[np.float32]
    joints: npt.NDArray[np.float64]
    camera_joints: npt.NDArray[np.float64]
    keypoints: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    intrinsic: npt.NDArray[np.float64]
    extrinsic: npt.NDArray[np.float64]
    garments: dict[str, Any]
    pose: str


@system(
    name="BEDLAM",
    paper="BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike Animated Motion",
    year=2023,
    arxiv="2306.16940",
    room="synth",
    claim="Pictures and videos of clothed bodies with exact labels train a body regressor; what varies in them "
    "(clothes, light, background) is what makes it hold on other pictures.",
    evidence=("synth.bedlam.*",),
    works_means="The same seed gives the same pictures and body, clothing and camera labels; a regressor trained on "
    "the full variation has a lower joint error than one trained on the reduced world, on people and pictures of a "
    "harder render domain that neither has seen.",
)
def bedlam_records(
    seed: int,
    people: Iterable[int] = range(100),
    *,
    pictures: int = 8,
    variation: str = "full",
    hard: bool = False,
    size: tuple[int, int] = SIZE,
) -> Iterator[BodyRecord]:
    """Single pictures of whole bodies, in order of people.

    Parameters
    ----------
    seed
        Other Looks and Shots of the same people; 0 to 999,999.
    people
        Numbers of the people.
    pictures
        Of each person, all in one Look.
    variation
        ``full`` or ``reduced``; both have the same poses, heads and cameras under one seed.
    hard
        Shots as surveillance has them: worse light, occluders, spoiled pictures, cameras from above.
    size
        Width and height in pixels.

    Raises
    ------
    WorldError
        For an unknown variation or an impossible number.
    """
    _check(seed, variation)
    if not 1 <= pictures <= 1000:
        raise WorldError(f"There cannot be {pictures} pictures of a person.", "Ask for 1 to 1,000.")
    for number in people:
        who, worn = _dressed(number, seed, variation)
        for k in range(pictures):
            taken = _taken(shot(_shot_number(seed, number, k), "person", hard=hard), variation)
            yield _record(render(who, worn, taken, "person", size), 0.0)


def bedlam_clip(
    seed: int,
    number: int,
    *,
    seconds: float = 2.0,
    fps: float = 25.0,
    variation: str = "full",
    hard: bool = False,
    size: tuple[int, int] = SIZE,
) -> Iterator[BodyRecord]:
    """A video of somebody who walks with the person's own gait, before a camera that moves around.

    Parameters
    ----------
    seed, variation, hard, size
        As in `bedlam_records`.
    number
        Who.
    seconds, fps
        Length and frames per second.

    Raises
    ------
    WorldError
        As `bedlam_records`, and for an impossible length.
    """
    _check(seed, variation)
    who, worn = _dressed(number, seed, variation)
    taken = _taken(shot(_shot_number(seed, number, 0), "person", hard=hard), variation)
    turn = np.random.default_rng([seed, number]).uniform(-60, 60)
    azimuth = taken.camera.azimuth_deg
    frames = walk(
        who,
        worn,
        seconds=seconds,
        fps=fps,
        view=(azimuth, azimuth + turn),
        start=taken.pose.phase,
        shot=taken,
        size=size,
    )
    for frame in frames:
        yield _record(frame.picture, frame.time_s)


def write_bodies(records: Iterable[BodyRecord], out: str | os.PathLike[str]) -> int:
    """Write records as ``images/<person>-<count>.png`` and ``metadata.jsonl``, a line of labels each.

    Hugging Face `datasets` reads the folder as an image folder.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    DataError
        If the folder cannot be written or holds something already.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty.", "Choose another folder.")
        lines = []
        for count, record in enumerate(records):
            name = f"images/{record.person:07d}-{count:06d}.png"
            save_png(record.image, folder / name, {"Software": "ipse", "World": VERSION})
            labels = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "image"}
            plain = {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in labels.items()}
            lines.append(json.dumps({"file_name": name, "world_version": VERSION, **plain}) + "\n")
        with atomic_write(folder / "metadata.jsonl") as file:
            file.write("".join(lines).encode())
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}.", "Choose a folder that you may write to."
        ) from error
    return len(lines)


def joint_errors(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """MPJPE of each picture: the mean distance of its joints from the true ones, both from the middle of the hips.

    Parameters
    ----------
    predicted, truth
        (N, 17, 3), in one unit.

    Returns
    -------
    (N,) float64
        In the same unit.

    Raises
    ------
    ValueError
        If the shapes differ or are not those.
    """
    ours, theirs = _pair(predicted, truth)
    return np.linalg.norm(_rooted(ours) - _rooted(theirs), axis=-1).mean(-1)


def aligned_joint_errors(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """PA-MPJPE of each picture: the error that is left after the best shift, turn and scale of the prediction.

    The alignment is that of Umeyama (1991), without reflections. Parameters, unit and errors as in `joint_errors`.
    """
    ours, theirs = _pair(predicted, truth)
    x = ours - ours.mean(1, keepdims=True)
    y = theirs - theirs.mean(1, keepdims=True)
    u, s, vt = np.linalg.svd(np.swapaxes(y, 1, 2) @ x)
    sign = np.ones_like(s)
    sign[:, -1] = np.sign(np.linalg.det(u @ vt))
    turn = (u * sign[:, None]) @ vt
    spread = np.maximum((x**2).sum((1, 2)), np.finfo(np.float64).tiny)
    scale = (s * sign).sum(-1) / spread
    return np.linalg.norm(scale[:, None, None] * x @ np.swapaxes(turn, 1, 2) - y, axis=-1).mean(-1)


def _pair(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if ours.shape != theirs.shape or ours.shape[1:] != (len(COCO), 3):
        raise ValueError(f"Joints have shapes {ours.shape} and {theirs.shape}; both must be (N, {len(COCO)}, 3).")
    return ours, theirs


def _rooted(joints: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return joints - joints[..., [LEFT_HIP, RIGHT_HIP], :].mean(-2, keepdims=True)


def _check(seed: int, variation: str) -> None:
    if not 0 <= seed < _SEEDS:
        raise WorldError(f"The seed is {seed}; it must be from 0 to {_SEEDS - 1:,}.")
    if variation not in VARIATIONS:
        raise unknown("There is no variation called", variation, VARIATIONS)


def _shot_number(seed: int, number: int, k: int) -> int:
    # 1,000 Shots for every person and seed, so that no two pictures share one.
    return (number * _SEEDS + seed) * 1000 + k


def _dressed(number: int, seed: int, variation: str) -> tuple[Person, Look]:
    who = person(number)
    return who, look(seed, who, fix=_PLAIN if variation == "reduced" else None)


def _taken(taken: Shot, variation: str) -> Shot:
    if variation == "full":
        return taken
    return taken.replace(light=Light(), background=_BACKDROP, occluder=None, degrade=Degrade())


def _record(picture: Picture, time_s: float) -> BodyRecord:
    t = picture.truth
    rest = rest_body(t.person)
    posed = _pose(t.person, t.look, t.shot, rest, t.framing)
    joints = posed.keypoints.astype(np.float64)
    names = ("age", "gender", "muscle", "weight", "height", "proportions", "ancestry", "shape")
    values = t.person.to_dict()
    worn = t.look.to_dict()
    hidden = ("top", "bottom") if t.look.dress is not None else ()
    return BodyRecord(
        image=picture.image,
        time_s=time_s,
        person=t.person.number,
        body={name: values[name] for name in names} | {"stature_m": float(rest.height)},
        bones=posed.transforms,
        joints=joints,
        camera_joints=_rooted(joints @ t.camera.extrinsic[:, :3].T + t.camera.extrinsic[:, 3]),
        keypoints=t.keypoints,
        visible=t.keypoints_visible,
        intrinsic=t.camera.intrinsic,
        extrinsic=t.camera.extrinsic,
        garments={
            name: worn[name] for name in (*_GARMENTS, *_ACCESSORIES) if worn[name] is not None and name not in hidden
        },
        pose=t.shot.pose.name,
    )
