"""Sequences: people who walk and talk, as pictures with a time base.

Frames are rendered one by one as they are asked for, so that a sequence of any length needs the memory of one picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ipse._files import atomic_write
from ipse.errors import WorldError
from ipse.world.look import Look
from ipse.world.person import Person
from ipse.world.render import Picture, render
from ipse.world.shot import ACTIONS, EXPRESSIONS, Background, Camera, Light, Shot
from ipse.world.values import clip, unknown

VIEWS: dict[str, float] = {"front": 0.0, "oblique": 45.0, "side": 90.0, "behind": 180.0}
"""Named camera directions of a walk: azimuth in degrees."""


@dataclass(frozen=True)
class Frame:
    """One picture of a sequence.

    Attributes:
        time_s: when it was taken, seconds from the start.
        picture: the image and its truth, its Shot included.
    """

    time_s: float
    picture: Picture


def walk(
    person: Person,
    look: Look,
    *,
    seconds: float = 2.0,
    fps: float = 25.0,
    framing: str = "person",
    view: str | float | tuple[float, float] = "side",
    start: float = 0.0,
    shot: Shot | None = None,
    size: int | tuple[int, int] | None = None,
    device: str = "cpu",
) -> Iterator[Frame]:
    """Somebody walks, with the stride and cadence of `person.gait`; the camera goes along.

    Args:
        person: who.
        look: in what.
        seconds: length.
        fps: frames per second; they stand at 0, 1/fps, ….
        framing: of `ipse.world.render`.
        view: where the camera is: a name of `VIEWS`, an azimuth in degrees, or two azimuths that it moves between.
        start: place in the walk cycle at time 0.
        shot: light, background, degradations and all else; its pose, camera azimuth and head are replaced, or moved.
        size: of the pictures; see `ipse.world.render`.
        device: a Warp device.
    """
    times = _times(seconds, fps)
    first, last = _track(view)
    base = shot or _CALM_WALK

    def shot_at(t: float) -> Shot:
        # One stride is two steps.
        phase = (start + t * person.gait.cadence / 2) % 1.0
        u = t / times[-1] if times[-1] else 0.0
        azimuth = first + (last - first) * u * u * (3 - 2 * u)
        return base.replace(
            **{
                "pose.name": "walking",
                "pose.phase": phase,
                "camera.azimuth_deg": (azimuth + 180) % 360 - 180,
                # The head keeps level against the trunk, almost.
                "head.pitch": clip(base.head.pitch + 1.2 * person.gait.bounce * np.cos(4 * np.pi * phase), -45, 45),
                "head.yaw": clip(base.head.yaw - 1.5 * np.cos(2 * np.pi * phase), -90, 90),
            }
        )

    return _frames(person, look, times, shot_at, framing, size, device)


def talk(
    person: Person,
    look: Look,
    *,
    seconds: float = 3.0,
    fps: float = 25.0,
    framing: str = "portrait",
    words: str | None = None,
    seed: int = 0,
    shot: Shot | None = None,
    size: int | tuple[int, int] | None = None,
    device: str = "cpu",
) -> Iterator[Frame]:
    """Somebody talks to the camera: lips, blinks, glances and small movements of the head.

    Args:
        person: who.
        look: in what.
        seconds: length.
        fps: frames per second; they stand at 0, 1/fps, ….
        framing: of `ipse.world.render`.
        words: what is said, read letter by letter; silence follows. By default babble made from the seed.
        seed: of everything that moves.
        shot: everything else; mouth, blinks, gaze and head move about what it says.
        size: of the pictures; see `ipse.world.render`.
        device: a Warp device.
    """
    times = _times(seconds, fps)
    rng = np.random.default_rng([person.number, seed, 4])
    base = shot or _CALM_TALK
    mouth = _speech(words if words is not None else _babble(rng, seconds))
    blink = _blinks(rng, seconds)
    gaze = _glances(rng, seconds)
    yaw, pitch, roll, brow, smile = (_wander(rng, rate) for rate in (0.35, 0.5, 0.3, 0.6, 0.25))

    def shot_at(t: float) -> Shot:
        spoken, effort = mouth(t)
        actions = dict(base.expression)

        def add(strengths: dict[str, float], weight: float = 1.0) -> None:
            for name, value in strengths.items():
                actions[name] = clip(actions.get(name, 0.0) + weight * value, 0, 1)

        add(spoken)
        add(_BOTH_SMILE, 0.16 * max(smile(t), 0.0))
        add({"browInnerUp": 0.25, "browOuterUpLeft": 0.2, "browOuterUpRight": 0.2}, max(brow(t), 0.0) * (0.3 + effort))
        closed = blink(t)
        for side in ("Left", "Right"):
            actions[f"eyeBlink{side}"] = max(actions.get(f"eyeBlink{side}", 0.0), closed)
        turn, lift = 3.5 * yaw(t), 2.0 * pitch(t) - 1.5 * effort
        glance = gaze(t)
        return base.replace(
            mood="custom",
            expression={name: round(value, 4) for name, value in actions.items() if value > 0.003},
            **{
                "head.yaw": clip(base.head.yaw + turn, -90, 90),
                "head.pitch": clip(base.head.pitch + lift, -45, 45),
                "head.roll": clip(base.head.roll + 1.8 * roll(t), -45, 45),
                # The eyes stay on what they look at while the head moves.
                "gaze.yaw": clip(base.gaze.yaw - turn + glance[0], -40, 40),
                "gaze.pitch": clip(base.gaze.pitch - lift + glance[1], -30, 30),
            },
        )

    return _frames(person, look, times, shot_at, framing, size, device)


def save_gif(frames: Iterable[Frame], path: str | Path) -> Path:
    """Write frames as a GIF that repeats; its frames last as their times say, to the hundredth of a second."""
    images, times = [], []
    for frame in frames:
        # A palette of its own keeps skin smooth; dithering would crawl.
        image = Image.fromarray(frame.picture.image)
        images.append(image.quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
        times.append(frame.time_s)
    if not images:
        raise WorldError("There are no frames to write; a sequence can be read only once.")
    # Rounded together, so that the length stays right.
    ends = [round(100 * t) for t in times[1:]]
    ends.append(ends[-1] + max(ends[-1] - round(100 * times[-2]), 2) if ends else 10)
    starts = [round(100 * times[0]), *ends[:-1]]
    lasts = [10 * max(b - a, 2) for a, b in zip(starts, ends, strict=True)]
    path = Path(path)
    try:
        with atomic_write(path) as file:
            images[0].save(
                file,
                "GIF",
                save_all=True,
                append_images=images[1:],
                duration=lasts,
                loop=0,
                disposal=1,
            )
    except OSError as error:
        raise WorldError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def save_frames(frames: Iterable[Frame], folder: str | Path) -> list[Path]:
    """Write frames as ``000000.png``, ``000001.png``, … named by their time in milliseconds; returns the paths."""
    folder, paths = Path(folder), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            path = folder / f"{round(1000 * frame.time_s):06d}.png"
            Image.fromarray(frame.picture.image).save(path)
            paths.append(path)
    except OSError as error:
        raise WorldError(f"Frames cannot be written to {folder}: {error.strerror or error}.") from error
    return paths


_CALM_WALK = Shot(
    camera=Camera(focal_mm=50, distance_m=7, elevation_deg=4),
    light=Light(key_azimuth_deg=35, key_elevation_deg=45, key=0.75, softness=0.6, fill=0.15, ambient=0.4),
    background=Background("plain", 0, 0.0, "light blue"),
)
_CALM_TALK = Shot(
    camera=Camera(focal_mm=85, distance_m=1.6),
    light=Light(key_azimuth_deg=32, key_elevation_deg=35, key=0.8, softness=0.5, fill=0.2, ambient=0.32),
    background=Background("room", 3, 0.75, "beige"),
)
_BOTH_SMILE = {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "cheekSquintLeft": 0.3, "cheekSquintRight": 0.3}


def _times(seconds: float, fps: float) -> list[float]:
    if not 0 < seconds <= 3600:
        raise WorldError(f"A sequence of {seconds!r} seconds cannot be made; it must be above 0 and at most 3600.")
    if not 1 <= fps <= 240:
        raise WorldError(f"A sequence cannot have {fps!r} frames per second; it must be from 1 to 240.")
    return [k / fps for k in range(max(round(seconds * fps), 1))]


def _track(view: str | float | tuple[float, float]) -> tuple[float, float]:
    if isinstance(view, str):
        if view not in VIEWS:
            raise unknown("There is no view called", view, VIEWS)
        return VIEWS[view], VIEWS[view]
    if isinstance(view, tuple):
        return float(view[0]), float(view[1])
    return float(view), float(view)


def _frames(
    person: Person,
    look: Look,
    times: list[float],
    shot_at: Callable[[float], Shot],
    framing: str,
    size: int | tuple[int, int] | None,
    device: str,
) -> Iterator[Frame]:
    return (Frame(t, render(person, look, shot_at(t), framing, size, device=device)) for t in times)


def _both(**actions: float) -> dict[str, float]:
    return {
        f"{name}{side}": value
        for name, value in actions.items()
        for side in (("",) if name in ACTIONS else ("Left", "Right"))
    }


# Mouth shapes of letters, after the viseme classes of MPEG-4 (ISO/IEC 14496-2, annex C) grouped to what lips show.
_VISEMES: dict[str, dict[str, float]] = {
    "a": EXPRESSIONS["talk_a"],
    "e": EXPRESSIONS["talk_e"],
    "i": _both(jawOpen=0.10, mouthStretch=0.35, mouthSmile=0.2, mouthLowerDown=0.2),
    "o": EXPRESSIONS["talk_o"],
    "u": _both(jawOpen=0.12, mouthFunnel=0.35, mouthPucker=0.6),
    "m": EXPRESSIONS["talk_m"],
    "f": _both(jawOpen=0.05, mouthRollLower=0.45, mouthUpperUp=0.25),
    "s": _both(jawOpen=0.05, mouthStretch=0.2, mouthLowerDown=0.25, mouthUpperUp=0.1),
    "sh": _both(jawOpen=0.08, mouthFunnel=0.5, mouthLowerDown=0.1),
    "l": _both(jawOpen=0.20, mouthLowerDown=0.2, mouthUpperUp=0.1),
    "t": _both(jawOpen=0.12, mouthLowerDown=0.18),
    "": {},
}
_LETTERS: dict[str, str] = {
    **dict.fromkeys("aáàâäå", "a"),
    **dict.fromkeys("eéèêë", "e"),
    **dict.fromkeys("iíîïy", "i"),
    **dict.fromkeys("oóôöø", "o"),
    **dict.fromkeys("uúûüwq", "u"),
    **dict.fromkeys("mbp", "m"),
    **dict.fromkeys("fv", "f"),
    **dict.fromkeys("szcx", "s"),
    "j": "sh",
    **dict.fromkeys("lr", "l"),
    **dict.fromkeys("tdnkghñ", "t"),
}
_VOWELS = frozenset("aeiou")


def _babble(rng: np.random.Generator, seconds: float) -> str:
    """Syllables in words and phrases, about enough for the time."""
    text = []
    while len(text) < 4 * seconds + 2:
        word = "".join(
            str(rng.choice(list("bdfgklmnprstvwj"))) + str(rng.choice(list("aaeeiiou")))
            for _ in range(rng.integers(1, 4))
        )
        text.append(word + (", " if rng.random() < 0.15 else " "))
    return "".join(text)


def _speech(words: str) -> Callable[[float], tuple[dict[str, float], float]]:
    """The mouth over time: facial actions, and how much is being said (0..1).

    Each letter is a target; neighbors blend by bell curves in time, as articulation does.
    """
    centers, widths, names = [], [], []
    t = 0.15
    for letter in words.lower():
        shape = _LETTERS.get(letter, "")
        if not shape and letter.isalnum():
            shape = "t"
        if shape:
            last = 0.115 if shape in _VOWELS else 0.075
        else:
            last = 0.34 if letter in ".!?;:" else 0.22 if letter == "," else 0.05
        # Short gaps between words do not close the mouth.
        if shape or last > 0.1:
            centers.append(t + last / 2)
            widths.append(0.62 * last)
            names.append(shape)
        t += last
    end = t + 0.1
    center, width = np.array(centers), np.array(widths)
    table = np.array([[_VISEMES[name].get(action, 0.0) for action in ACTIONS] for name in names])
    sounding = np.array([bool(name) for name in names], float)

    def at(time: float) -> tuple[dict[str, float], float]:
        if not len(center) or time > end + 0.3:
            return {}, 0.0
        weight = np.exp(-(((time - center) / width) ** 2))
        # A little rest in the sum lets the mouth close before and after.
        total = weight.sum() + 0.12
        strengths = weight @ table / total
        return (
            {action: float(v) for action, v in zip(ACTIONS, strengths, strict=True) if v > 0.003},
            float(weight @ sounding / total),
        )

    return at


def _blinks(rng: np.random.Generator, seconds: float) -> Callable[[float], float]:
    """How far the lids are closed: fast down, slower up, every two to six seconds."""
    starts, t = [], float(rng.uniform(0.3, 2.5))
    while t < seconds:
        starts.append(t)
        t += 0.25 if rng.random() < 0.1 else float(rng.uniform(1.8, 5.5))

    def at(time: float) -> float:
        shut = 0.0
        for start in starts:
            since = time - start
            if 0 <= since < 0.30:
                shut = max(shut, since / 0.08 if since < 0.08 else 1.0 if since < 0.12 else 1 - (since - 0.12) / 0.18)
        return clip(shut, 0, 1)

    return at


def _glances(rng: np.random.Generator, seconds: float) -> Callable[[float], tuple[float, float]]:
    """Degrees that the eyes look beside the camera: mostly near it, sometimes away; they jump in 40 ms."""
    starts, places, t = [0.0], [(0.0, 0.0)], float(rng.uniform(0.5, 1.6))
    while t < seconds:
        away = rng.random() < 0.25
        spread = (9.0, 5.0) if away else (1.3, 0.8)
        starts.append(t)
        places.append((float(rng.normal(0, spread[0])), float(rng.normal(0, spread[1]))))
        t += float(rng.uniform(0.25, 0.8) if away else rng.uniform(0.4, 1.8))

    def at(time: float) -> tuple[float, float]:
        k = int(np.searchsorted(starts, time, side="right")) - 1
        if k == 0:
            return places[0]
        u = min((time - starts[k]) / 0.04, 1.0)
        return tuple(a + (b - a) * u for a, b in zip(places[k - 1], places[k], strict=True))  # type: ignore[return-value]

    return at


def _wander(rng: np.random.Generator, rate: float) -> Callable[[float], float]:
    """A smooth process about 0, mostly within -1..1; `rate` in hertz."""
    frequency = rate * np.array([0.31, 0.62, 1.0, 1.73])
    phase = rng.uniform(0, 2 * np.pi, 4)
    size = np.array([0.5, 0.45, 0.35, 0.2])

    def at(time: float) -> float:
        return float((size * np.sin(2 * np.pi * frequency * time + phase)).sum())

    return at
