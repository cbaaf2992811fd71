"""Shot: what changes with the picture. Expression, gaze, pose, camera, light, background, what hides and what spoils.

Signs, for the whole module: seen from the camera, positive yaw turns toward the right edge of the image, positive
pitch turns up, positive roll tilts the top of the head toward the right edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ipse.errors import WorldError
from ipse.world.colors import COLORS
from ipse.world.draws import Draws, pick
from ipse.world.values import (
    NO_NUMBERS,
    Color,
    Keys,
    Numbers,
    OneOf,
    Palette,
    Range,
    Unit,
    Value,
    clip,
    unknown,
    wrap_degrees,
)

FRAMINGS = ("portrait", "bust", "person", "ear")

#: The 52 facial actions of ARKit, in the order of `anny`. Left and right are the person's own.
ACTIONS: tuple[str, ...] = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)


def _both(**actions: float) -> dict[str, float]:
    """Spell out both sides of the actions that have two."""
    spelled: dict[str, float] = {}
    for name, strength in actions.items():
        for action in (name,) if name in ACTIONS else (f"{name}Left", f"{name}Right"):
            spelled[action] = strength
    return spelled


#: Named expressions as strengths of facial actions.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": _both(mouthSmile=0.65, cheekSquint=0.3, mouthDimple=0.15),
    "big_smile": _both(
        mouthSmile=0.95, cheekSquint=0.6, jawOpen=0.18, mouthUpperUp=0.4, mouthLowerDown=0.25, eyeSquint=0.25
    ),
    "smirk": {"mouthSmileRight": 0.7, "mouthDimpleRight": 0.4, "cheekSquintRight": 0.25},
    "open_mouth": _both(jawOpen=0.48),
    "surprise": _both(browInnerUp=0.7, browOuterUp=0.7, eyeWide=0.65, jawOpen=0.32, mouthFunnel=0.12),
    "anger": _both(browDown=0.8, eyeSquint=0.35, noseSneer=0.35, mouthPress=0.45, mouthFrown=0.35),
    "sad": _both(browInnerUp=0.8, mouthFrown=0.75, mouthShrugLower=0.4, eyeSquint=0.15),
    "disgust": _both(noseSneer=0.75, browDown=0.4, mouthUpperUp=0.45, cheekSquint=0.4, mouthFrown=0.35),
    "fear": _both(browInnerUp=0.75, browOuterUp=0.3, eyeWide=0.7, mouthStretch=0.5, jawOpen=0.15),
    "wink": {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.5, "mouthSmileRight": 0.4, "mouthSmileLeft": 0.2},
    "pucker": _both(mouthPucker=0.9),
    "cheek_puff": _both(cheekPuff=0.9, mouthClose=0.1),
    "tongue_out": _both(tongueOut=0.9, jawOpen=0.35),
    "squint": _both(eyeSquint=0.9, cheekSquint=0.4, browDown=0.25),
    "closed_eyes": _both(eyeBlink=1.0),
    "talk_a": _both(jawOpen=0.38, mouthLowerDown=0.25, mouthUpperUp=0.15),
    "talk_e": _both(jawOpen=0.16, mouthStretch=0.4, mouthLowerDown=0.3, mouthUpperUp=0.2),
    "talk_o": _both(jawOpen=0.28, mouthFunnel=0.65, mouthPucker=0.25),
    "talk_m": _both(mouthPress=0.55, mouthRollLower=0.35, mouthRollUpper=0.3),
}
#: The name of an expression that is none of these.
CUSTOM = "custom"

POSES = (
    "standing",
    "walking",
    "sitting",
    "arms_crossed",
    "arms_up",
    "hands_on_hips",
    "one_hand_raised",
    "hands_in_pockets",
)
BACKGROUNDS = ("plain", "gradient", "studio", "room", "office", "shelf", "street", "park", "sky", "wall", "bokeh")
OCCLUDERS = ("hand", "cup", "phone", "bar", "leaf", "blob")

Angle = Annotated[float, Range(-180, 180)]
ThingColor = Annotated[Color, Palette(COLORS)]
_GRAY, _BLACK = (Color(name, COLORS[name]) for name in ("gray", "black"))


@dataclass(frozen=True, slots=True)
class Gaze(Value):
    """Where the eyes turn, in degrees from straight ahead of the head."""

    yaw: Annotated[float, Range(-40, 40)] = 0.0
    pitch: Annotated[float, Range(-30, 30)] = 0.0


@dataclass(frozen=True, slots=True)
class Head(Value):
    """How the head turns, in degrees from straight ahead of the body. Signs: see the module."""

    yaw: Annotated[float, Range(-90, 90)] = 0.0
    pitch: Annotated[float, Range(-45, 45)] = 0.0
    roll: Annotated[float, Range(-45, 45)] = 0.0


@dataclass(frozen=True, slots=True)
class BodyPose(Value):
    """What the body does below the neck."""

    name: Annotated[str, OneOf(POSES)] = "standing"
    #: Place in the walk cycle: 0 the left heel strikes, 0.5 the right heel. The other poses use it for small variation.
    phase: Unit = 0.0
    #: Additional joint angles in degrees by the name the body model gives them.
    joints: Annotated[Numbers, Keys(None, -180, 180)] = NO_NUMBERS


@dataclass(frozen=True, slots=True)
class Camera(Value):
    """The camera. It looks at the middle of what the framing shows, from a place on a sphere around it."""

    #: 35 mm equivalent.
    focal_mm: Annotated[float, Range(10, 400)] = 70.0
    distance_m: Annotated[float, Range(0.25, 60)] = 1.6
    #: The camera moves around to its own right: at 90 the person's face points to the left edge of the image.
    azimuth_deg: Angle = 0.0
    #: Positive looks down from above.
    elevation_deg: Annotated[float, Range(-60, 85)] = 0.0
    #: Positive turns the picture's content clockwise.
    roll_deg: Annotated[float, Range(-45, 45)] = 0.0


@dataclass(frozen=True, slots=True)
class Light(Value):
    """One key light, a fill light from the camera, and light from everywhere."""

    #: Direction that the key light comes from, relative to the camera: 0 behind the camera, 90 the right edge, 180
    #: from behind.
    key_azimuth_deg: Angle = 30.0
    #: Above the horizon.
    key_elevation_deg: Annotated[float, Range(-60, 90)] = 35.0
    #: Intensity; about 1 lights white skin fully.
    key: Annotated[float, Range(0, 3)] = 0.8
    #: 0 hard shadows (sun), 1 none (overcast).
    softness: Unit = 0.5
    fill: Annotated[float, Range(0, 2)] = 0.2
    ambient: Annotated[float, Range(0, 2)] = 0.3
    #: Color temperature of the key light in kelvin: 2700 a lamp, 5500 daylight, 8000 shade.
    temperature_k: Annotated[float, Range(1800, 12000)] = 5500.0
    #: Color of the ambient light, sRGB; its intensity is `ambient`.
    ambient_rgb: tuple[Unit, Unit, Unit] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Background(Value):
    """What is behind the person, made by a procedure from a seed."""

    kind: Annotated[str, OneOf(BACKGROUNDS)] = "plain"
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    #: 0 sharp, 1 out of focus until nothing can be told.
    blur: Unit = 0.0
    #: Of what has one color (plain, gradient, studio, wall); the leading color of the others.
    color: ThingColor = _GRAY


@dataclass(frozen=True, slots=True)
class Occluder(Value):
    """Something in front of the person."""

    kind: Annotated[str, OneOf(OCCLUDERS)] = "hand"
    #: Its middle in the image: 0 the left edge, 1 the right edge.
    x: Unit = 0.5
    #: 0 the top edge, 1 the bottom edge.
    y: Unit = 0.75
    #: Its larger extent over the image's width.
    size: Annotated[float, Range(0.02, 1)] = 0.25
    #: In degrees, clockwise.
    angle: Angle = 0.0
    color: ThingColor = _BLACK


@dataclass(frozen=True, slots=True)
class Degrade(Value):
    """What spoils the picture once taken, in this order: exposure to saturation, blur, low resolution, noise, JPEG."""

    #: Standard deviation in pixels.
    blur_px: Annotated[float, Range(0, 12)] = 0.0
    #: Standard deviation, of white = 1.
    noise: Annotated[float, Range(0, 0.5)] = 0.0
    #: Scale that the picture is reduced to before it is enlarged again: 1 leaves it.
    low_res: Annotated[float, Range(0.05, 1)] = 1.0
    #: JPEG quality; 100 leaves the picture uncompressed.
    jpeg: Annotated[int, Range(1, 100)] = 100
    #: Stops.
    exposure: Annotated[float, Range(-4, 4)] = 0.0
    contrast: Annotated[float, Range(0.1, 3)] = 1.0
    #: 0 black and white.
    saturation: Annotated[float, Range(0, 3)] = 1.0


@dataclass(frozen=True, slots=True)
class Shot(Value):
    """One picture of somebody."""

    #: The name the expression was made from; `custom` for any other.
    mood: Annotated[str, OneOf((*EXPRESSIONS, CUSTOM))] = "neutral"
    #: Strengths of the facial actions; absent ones are 0.
    expression: Annotated[Numbers, Keys(frozenset(ACTIONS), 0, 1)] = NO_NUMBERS
    gaze: Gaze = field(default_factory=Gaze)
    head: Head = field(default_factory=Head)
    pose: BodyPose = field(default_factory=BodyPose)
    camera: Camera = field(default_factory=Camera)
    light: Light = field(default_factory=Light)
    background: Background = field(default_factory=Background)
    occluder: Occluder | None = None
    degrade: Degrade = field(default_factory=Degrade)


def expression(mood: str, strength: float = 1.0) -> Numbers:
    """The facial actions of a named expression, at a strength of 0..1."""
    if mood not in EXPRESSIONS:
        raise unknown("There is no expression called", mood, EXPRESSIONS)
    if not 0 <= strength <= 1:
        raise WorldError(f"The strength of an expression is {strength!r}; it must be from 0 to 1.")
    return Numbers({action: round(strength * value, 4) for action, value in EXPRESSIONS[mood].items()})


def apparent_yaw(shot: Shot) -> float:
    """Where the face points as the camera sees it: 0 at the camera, 90 the right edge, -90 the left edge, 180 away."""
    return wrap_degrees(shot.head.yaw - shot.camera.azimuth_deg)


def body_yaw(shot: Shot) -> float:
    """Where the chest points as the camera sees it, in the same way."""
    return wrap_degrees(-shot.camera.azimuth_deg)


def shot(
    n: int,
    framing: str = "portrait",
    *,
    hard: bool = False,
    fix: Mapping[str, Any] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Shot:
    """Shot number n.

    Parameters
    ----------
    n
        Which Shot: 0, 1, 2, ….
    framing
        What it is taken for. `portrait` and `bust`: yaw mostly within 25°, at most 40°, the camera in front.
        `person`: walking and standing people from all around, often from above. `ear`: from the side.
    hard
        Stronger turns, worse light, occluders and spoiled pictures, as surveillance has them.
    fix
        Fields by dotted path, such as ``{"mood": "smile", "head.yaw": 0, "occluder": None}``. Fixing the mood leaves
        the small variation of its expression; fixing one facial action leaves the others.
    ranges
        ``(low, high)`` by dotted path of a number.
    """
    if framing not in FRAMINGS:
        raise unknown("There is no framing called", framing, FRAMINGS)
    draws = Draws(Shot, ("shot", framing, n), fix, ranges)
    mood = draws.choice("mood", _MOOD_WEIGHTS)
    head = _head(draws, framing, hard)
    camera = _camera(draws, framing, hard)
    return Shot(
        mood=mood,
        expression=draws.numbers("expression", _expression(draws, mood)),
        gaze=_gaze(draws, wrap_degrees(head.yaw - camera.azimuth_deg), head.pitch),
        head=head,
        pose=_pose(draws, framing),
        camera=camera,
        light=_light(draws, hard),
        background=_background(draws),
        occluder=_occluder(draws) if draws.present("occluder", 0.3 if hard else 0.04) else None,
        degrade=_degrade(draws, hard),
    )


_MOOD_WEIGHTS: dict[str, float] = {
    "neutral": 0.28,
    "smile": 0.20,
    "big_smile": 0.13,
    "smirk": 0.03,
    "open_mouth": 0.03,
    "surprise": 0.04,
    "anger": 0.04,
    "sad": 0.04,
    "disgust": 0.02,
    "fear": 0.02,
    "wink": 0.02,
    "pucker": 0.02,
    "cheek_puff": 0.01,
    "tongue_out": 0.01,
    "squint": 0.02,
    "closed_eyes": 0.015,
    "talk_a": 0.04,
    "talk_e": 0.03,
    "talk_o": 0.03,
    "talk_m": 0.02,
}

#: Actions that move a little in every face at every moment, and how much at most.
_MICRO: dict[str, float] = {
    "browInnerUp": 0.08,
    "browDownLeft": 0.06,
    "browDownRight": 0.06,
    "browOuterUpLeft": 0.06,
    "browOuterUpRight": 0.06,
    "eyeBlinkLeft": 0.1,
    "eyeBlinkRight": 0.1,
    "eyeSquintLeft": 0.08,
    "eyeSquintRight": 0.08,
    "mouthSmileLeft": 0.06,
    "mouthSmileRight": 0.06,
    "mouthPressLeft": 0.06,
    "mouthPressRight": 0.06,
    "jawOpen": 0.04,
    "mouthLeft": 0.03,
    "mouthRight": 0.03,
}


def _expression(draws: Draws, mood: str) -> dict[str, float]:
    # A mood fixed to `custom` without actions starts from a neutral face.
    preset = EXPRESSIONS.get(mood, {})
    whole, *each = draws.uniforms("expression", 1 + len(ACTIONS))
    small = dict(zip(_MICRO, draws.uniforms("expression/micro", len(_MICRO)), strict=True))
    strengths: dict[str, float] = {}
    for action, u in zip(ACTIONS, each, strict=True):
        strength = preset.get(action, 0.0) * (0.56 + 0.36 * whole) * (0.9 + 0.2 * u)
        strength += _MICRO.get(action, 0.0) * small.get(action, 0.0) ** 2
        if strength > 0.003:
            strengths[action] = clip(strength, 0, 1)
    return strengths


def _head(draws: Draws, framing: str, hard: bool) -> Head:
    if framing == "ear":
        # Either profile; the sign decides which ear is seen.
        yaw = draws.number("head.yaw", lambda u: (72 + 36 * abs(u - 0.5)) * (1 if u < 0.5 else -1))
    elif hard:
        yaw = draws.uniform("head.yaw", -75, 75)
    else:
        yaw = draws.normal("head.yaw", 0, 15, -40, 40)
    spread = 1.6 if hard else 1.0
    return Head(
        yaw=yaw,
        pitch=draws.normal("head.pitch", -1, 5 * spread, -32, 28),
        roll=draws.normal("head.roll", 0, 5 * spread, -25, 25),
    )


def _gaze(draws: Draws, yaw: float, pitch: float) -> Gaze:
    """Half of the people look into the camera as far as the eyes reach; the others straight ahead or elsewhere."""
    at_camera = draws.uniforms("gaze", 1)[0] < 0.55 and abs(yaw) < 60
    mean_yaw, mean_pitch, spread = (clip(-yaw, -28, 28), clip(-pitch, -20, 20), 1.0) if at_camera else (0.0, 0.0, 9.0)
    return Gaze(
        yaw=draws.normal("gaze.yaw", mean_yaw, spread, -30, 30),
        pitch=draws.normal("gaze.pitch", mean_pitch, 0.6 * spread, -22, 22),
    )


def _pose(draws: Draws, framing: str) -> BodyPose:
    weights = {
        "standing": 0.34,
        "walking": 0.4,
        "sitting": 0.06,
        "arms_crossed": 0.05,
        "arms_up": 0.03,
        "hands_on_hips": 0.05,
        "one_hand_raised": 0.03,
        "hands_in_pockets": 0.04,
    }
    return BodyPose(
        # Closer framings show the shoulders at most.
        name=draws.choice("pose.name", weights if framing == "person" else {"standing": 1.0}),
        phase=draws.number("pose.phase", lambda u: u if framing == "person" else 0.0),
        joints=draws.numbers("pose.joints", {}),
    )


def _camera(draws: Draws, framing: str, hard: bool) -> Camera:
    if framing == "person":
        return Camera(
            focal_mm=draws.number("camera.focal_mm", lambda u: 28 * (85 / 28) ** u),
            distance_m=draws.number("camera.distance_m", lambda u: 3.5 * (14 / 3.5) ** u),
            azimuth_deg=draws.uniform("camera.azimuth_deg", -180, 180),
            elevation_deg=draws.number("camera.elevation_deg", lambda u: -2 + (40 if hard else 24) * u * u),
            roll_deg=draws.normal("camera.roll_deg", 0, 1.2, -5, 5),
        )
    nearest = 0.6 if hard else 1.1
    return Camera(
        focal_mm=draws.number("camera.focal_mm", lambda u: 35 * (135 / 35) ** u),
        # Nearer than a meter is a selfie, whose perspective changes a face as much as another expression does.
        distance_m=draws.number("camera.distance_m", lambda u: nearest * (4 / nearest) ** u),
        azimuth_deg=draws.settle("camera.azimuth_deg", 0.0, draws.uniforms("camera.azimuth_deg", 1)[0]),
        elevation_deg=draws.normal("camera.elevation_deg", 1, 10 if hard else 3.5, -25, 35),
        roll_deg=draws.normal("camera.roll_deg", 0, 1.5, -8, 8),
    )


#: (weight, key azimuth from the middle, spread, key elevation, key, softness, fill, ambient), the side left to chance.
_LIGHTS: dict[str, tuple[float, float, float, float, float, float, float, float]] = {
    "front": (0.28, 0, 15, 30, 0.7, 0.6, 0.3, 0.35),
    "three_quarter": (0.3, 38, 12, 38, 0.76, 0.55, 0.38, 0.3),
    "side": (0.12, 68, 12, 24, 0.88, 0.45, 0.35, 0.25),
    "top": (0.1, 15, 25, 54, 0.75, 0.55, 0.34, 0.34),
    "overcast": (0.12, 20, 40, 60, 0.4, 0.95, 0.15, 0.6),
    "back": (0.04, 145, 15, 35, 1.1, 0.3, 0.35, 0.3),
    "below": (0.012, 25, 20, -14, 0.6, 0.6, 0.2, 0.3),
}


def _light(draws: Draws, hard: bool) -> Light:
    kind, side, warm = draws.uniforms("light", 3)
    weights = {name: numbers[0] for name, numbers in _LIGHTS.items()}
    if hard:
        weights = {name: weight**0.5 for name, weight in weights.items()}
    name = pick(kind, weights)
    _, azimuth, spread, elevation, key, softness, fill, ambient = _LIGHTS[name]
    sign = 1 if side < 0.5 else -1
    # Lamps, daylight or shade.
    temperature = 3200 if warm < 0.25 else 5500 if warm < 0.8 else 7500
    reds = draws.uniforms("light.ambient_rgb", 2)
    ambient_rgb = (
        round(1 - 0.18 * reds[0], 4),
        round(0.96 - 0.04 * reds[0] * reds[1], 4),
        round(1 - 0.18 * reds[1], 4),
    )
    return Light(
        key_azimuth_deg=draws.normal("light.key_azimuth_deg", sign * azimuth, spread, -180, 180),
        key_elevation_deg=draws.normal("light.key_elevation_deg", elevation, 8, -40, 85),
        key=draws.normal("light.key", key, 0.12, 0.2, 1.5),
        softness=draws.normal("light.softness", softness, 0.15, 0, 1),
        fill=draws.normal("light.fill", fill, 0.06, 0, 0.8),
        ambient=draws.normal("light.ambient", ambient * (0.8 if hard else 1), 0.06, 0.08, 0.9),
        temperature_k=draws.normal("light.temperature_k", temperature, 500, 2400, 9500),
        ambient_rgb=draws.settle("light.ambient_rgb", ambient_rgb, 0.0),
    )


def _background(draws: Draws) -> Background:
    weights = {
        "plain": 0.12,
        "gradient": 0.1,
        "studio": 0.1,
        "room": 0.12,
        "office": 0.09,
        "shelf": 0.08,
        "street": 0.11,
        "park": 0.11,
        "sky": 0.04,
        "wall": 0.08,
        "bokeh": 0.05,
    }
    return Background(
        kind=draws.choice("background.kind", weights),
        seed=draws.settle("background.seed", int(draws.uniforms("background.seed", 1)[0] * 2**31), 0.0),
        blur=draws.number("background.blur", lambda u: 0.0 if u < 0.35 else (u - 0.35) / 0.65),
        color=draws.color(
            "background.color", COLORS, dict.fromkeys(COLORS, 1.0) | {"gray": 2.0, "beige": 2.0, "white": 2.0}
        ),
    )


def _occluder(draws: Draws) -> Occluder:
    return Occluder(
        kind=draws.choice("occluder.kind", {"hand": 3, "cup": 2, "phone": 2, "bar": 1, "leaf": 1, "blob": 1}),
        x=draws.uniform("occluder.x", 0.15, 0.85),
        y=draws.uniform("occluder.y", 0.35, 0.95),
        size=draws.uniform("occluder.size", 0.15, 0.4),
        angle=draws.uniform("occluder.angle", -60, 60),
        color=draws.color("occluder.color", COLORS, dict.fromkeys(COLORS, 1.0)),
    )


def _degrade(draws: Draws, hard: bool) -> Degrade:
    """Each kind of damage by itself, mostly absent; in hard Shots mostly present."""
    clean = 0.3 if hard else 0.95

    def damage(u: float) -> float:
        return clip((u - clean) / (1 - clean), 0, 1)

    jpeg = 100 - round(70 * damage(draws.uniforms("degrade.jpeg", 1)[0]))
    return Degrade(
        blur_px=draws.number("degrade.blur_px", lambda u: (2.2 if hard else 1.2) * damage(u)),
        noise=draws.number("degrade.noise", lambda u: (0.09 if hard else 0.05) * damage(u)),
        low_res=draws.number("degrade.low_res", lambda u: 1 - (0.7 if hard else 0.5) * damage(u)),
        jpeg=draws.settle("degrade.jpeg", jpeg, 0.0),
        exposure=draws.normal("degrade.exposure", 0, 0.5 if hard else 0.15, -1.5, 1.2),
        contrast=draws.normal("degrade.contrast", 1, 0.15 if hard else 0.06, 0.6, 1.4),
        saturation=draws.number("degrade.saturation", lambda u: 0.0 if u < 0.02 else 0.85 + 0.3 * (u - 0.02) / 0.98),
    )
