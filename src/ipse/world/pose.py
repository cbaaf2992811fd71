"""Body poses: bone rotations of standing, walking, sitting and the positions of the arms.

`ipse.world.figure` turns what a pose says about limbs into rotations that fit the person.

Walking follows the sagittal joint angles of normal gait (Winter, "The Biomechanics and Motor Control of Human Gait",
1991) as Fourier series of low order, scaled by the person's own stride.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from ipse.errors import WorldError
from ipse.world.body import Rest, body
from ipse.world.figure import SIDES, Figure, Frame, X, Y, Z, cross, frame_of, rotation, two_bones, unit
from ipse.world.person import Person
from ipse.world.shot import BodyPose
from ipse.world.values import unknown


def _standing(figure: Figure, phase: float, arms: bool = True) -> None:
    """Weight on one leg, more or less: the pelvis rises over it, the trunk leans back over the feet."""
    f = figure.frame
    weight = float(np.sin(2 * np.pi * phase))
    figure.turn("root", rotation(Z, 2.6 * weight) @ rotation(Y, 3 * np.sin(2 * np.pi * phase + 1.3)))
    figure.trunk(rotation(Z, -3.6 * weight) @ rotation(Y, -4 * np.sin(2 * np.pi * phase + 1.3)))
    spread = max(_closed(f, 0.085), 0.5 * f.heads["upperleg01.L"][0] + 0.03 * f.scale)
    relaxed = 0.03 * f.scale
    figure.stand(
        shift=0.022 * f.scale * weight,
        spread=spread + 0.012 * f.scale * abs(weight),
        ahead=(relaxed * max(-weight, 0), relaxed * max(weight, 0)),
        out=(2 + 5 * max(-weight, 0), 2 + 5 * max(weight, 0)),
    )
    for side, _ in SIDES:
        figure.shoulders(side, -4)
        if arms:
            figure.hang(side, bend=12 + 6 * abs(np.sin(3 * phase)), swing=2 * np.cos(5 * phase))


def _closed(f: Frame, ankle: float) -> float:
    """Half the distance of the ankles, meters: `ankle` of a tall adult, more where thighs leave no room."""
    # Each leg turns in about its hip; the thigh's inner side, some way down, may come to the middle but not past it.
    hip, foot = f.heads["upperleg01.L"], f.heads["foot.L"]
    free = max(f.gap - 0.004, 0.0) * 3.2
    return max(ankle * f.scale, foot[0] - free - 0.5 * hip[0])


# Winter's angles every twentieth of the stride, from heel strike: hip flexion, knee flexion, ankle dorsiflexion.
_HIP = (20, 19.5, 17, 13, 8.5, 4, -0.5, -4.5, -8, -10.5, -11, -8, -1.5, 6, 12.5, 17.5, 20.5, 21.8, 21.8, 21)
_KNEE = (4, 10, 16, 18, 16.5, 13, 9.5, 7, 6.5, 9, 14.5, 25, 39, 54, 62, 61, 52, 37, 19, 6)
_ANKLE = (0, -4, -3, 1, 4, 6, 7.5, 9, 10, 10, 6, -4, -16, -18, -11, -4, 0, 1.5, 1.5, 1)


@lru_cache(maxsize=3)
def _fourier(samples: tuple[float, ...], order: int = 5) -> np.ndarray:
    """Complex coefficients of the first harmonics of a curve over the stride, the mean first."""
    c = np.fft.rfft(samples)[: order + 1] / len(samples)
    c[1:] *= 2
    return c


def _curve(samples: tuple[float, ...], phase: float) -> float:
    c = _fourier(samples)
    return float((c * np.exp(2j * np.pi * phase * np.arange(len(c)))).sum().real)


def gait_angles(person: Person, phase: float) -> tuple[float, float, float]:
    """Hip flexion, knee flexion and ankle dorsiflexion in degrees, `phase` of a stride after that leg's heel strike."""
    stretch = person.gait.stride / 0.42
    mean = float(np.mean(_HIP))
    hip = mean + (_curve(_HIP, phase) - mean) * stretch
    # Who bounces little bends the knee under the body's weight, who bounces much stands up on it.
    give = 14 * (0.4 - person.gait.bounce) * float(np.exp(-(((phase % 1.0 - 0.3) / 0.13) ** 2)))
    # Longer steps take little more knee; it never bends backward.
    knee = max(_curve(_KNEE, phase) * (0.6 + 0.4 * stretch) + give, 2.0)
    return hip + 0.5 * give, knee, _curve(_ANKLE, phase) + 0.5 * give


def _walking(figure: Figure, person: Person, phase: float) -> None:
    f, gait = figure.frame, person.gait
    turn = 2 * np.pi * phase
    stretch = gait.stride / 0.42
    sway = 0.4 + 1.2 * gait.sway
    # Seen from above the pelvis follows the leading leg, the chest the other arm; the swinging side drops.
    figure.turn("root", rotation(Y, -5 * stretch * np.cos(turn)) @ rotation(Z, 2.6 * sway * np.sin(turn + 0.5)))
    figure.trunk(
        rotation(Y, (5 + 5) * stretch * np.cos(turn))
        @ rotation(Z, -3.1 * sway * np.sin(turn + 0.5))
        @ rotation(X, 2.0 + 0.8 * np.cos(2 * turn))
    )
    spread = max(_closed(f, 0.045), 0.02)
    shift = _sway(f, person, phase)
    pelvis = figure.joint("root")[1]
    floor = pelvis - _pelvis_height(f, person, phase)
    for side, sign in SIDES:
        own = phase if side == "L" else (phase + 0.5) % 1.0
        hip, knee, ankle = gait_angles(person, own)
        joint = figure.joint(f"upperleg01.{side}")
        lengths = figure.leg_lengths(side)
        plane = rotation(Z, math.degrees(math.atan2(sign * spread - shift - joint[0], sum(lengths))))
        foot = rotation(Y, sign * 1.0) @ rotation(X, knee - hip - ankle)
        thigh, shank = plane @ rotation(X, -hip) @ -Y, plane @ rotation(X, knee - hip) @ -Y
        end = joint + thigh * lengths[0] + shank * lengths[1]
        # Angles from tables would let feet float or sink; while a foot carries, it is put on the floor.
        gap = floor - end[1] - _lowest(f, side, foot)
        carries = float(np.interp(own, (0, 0.56, 0.66, 0.92, 1), (1, 1, 0, 0, 1)))
        end = end + Y * (gap * carries + max(gap, 0) * (1 - carries))
        thigh, shank = two_bones(joint, end, plane @ Z, lengths, least=3.0)
        figure.leg(side, thigh, shank, plane @ X, foot)
    for side, sign in SIDES:
        # Forward with the other leg, a little after it; the elbow bends as the arm comes forward.
        forward = -sign * np.cos(turn - 0.25)
        reach = (8 + 26 * gait.arm_swing) * stretch
        figure.shoulders(side, -4, 3 * forward)
        figure.hang(
            side,
            out=0.012 * f.scale,
            swing=-3 + reach * (0.85 * forward + 0.08),
            bend=14 + (6 + 14 * gait.arm_swing) * (0.5 + 0.5 * forward),
        )


def _lowest(f: Frame, side: str, foot: np.ndarray) -> float:
    """Height of a foot's lowest point over its ankle joint (negative), the foot turned by `foot`, meters."""
    return float((f.soles[side] @ foot[1]).min())


def _pelvis_height(f: Frame, person: Person, phase: float) -> float:
    """Height of the pelvis joint over the floor while walking, meters: highest over the carrying leg."""
    hip, knee, ankle = gait_angles(person, 0.0)
    h = f.heads
    thigh = np.linalg.norm(h["lowerleg01.L"] - h["upperleg01.L"])
    shank = np.linalg.norm(h["foot.L"] - h["lowerleg01.L"])
    drop = thigh * math.cos(math.radians(hip)) + shank * math.cos(math.radians(knee - hip))
    struck = h["root"][1] - h["upperleg01.L"][1] + drop - _lowest(f, "L", rotation(X, knee - hip - ankle))
    rise = (0.018 + 0.040 * person.gait.bounce) * f.scale
    return float(struck + 0.5 * rise * (1 + math.cos(4 * math.pi * (phase - 0.3))))


def _sway(f: Frame, person: Person, phase: float) -> float:
    """How far the pelvis stands to the left while walking, meters: over the leg that carries."""
    return (0.008 + 0.03 * person.gait.sway) * f.scale * float(np.sin(2 * np.pi * (phase - 0.06)))


def _sitting(figure: Figure, phase: float) -> None:
    f = figure.frame
    s = f.scale
    lean = 4 * np.sin(2 * np.pi * phase)
    figure.turn("root", rotation(X, -8))
    figure.trunk(rotation(X, 12 + lean))
    open_ = max(0.06 * s, _closed(f, 0.08) - 0.06 * s) + 0.02 * s * np.cos(2 * np.pi * phase)
    for side, sign in SIDES:
        hip = figure.joint(f"upperleg01.{side}")
        length = figure.leg_lengths(side)[0]
        thigh = unit([sign * open_ / length, -0.05, 1.0])
        shank = unit([sign * 0.01, -1.0, 0.08 - 0.14 * np.sin(2 * np.pi * phase) * sign])
        figure.leg(side, thigh, shank, X, rotation(Y, sign * 3))
        figure.shoulders(side, -3, 4)
        thick = f.front(f.heads[f"upperleg02.{side}"][1]) - f.heads[f"upperleg02.{side}"][2]
        rest_on = (
            hip + thigh * length * (0.62 + 0.08 * np.sin(2 * np.pi * phase + sign)) + Y * (0.9 * thick + 0.035 * s)
        )
        figure.reach(
            side,
            rest_on - thigh * 0.05 * s + X * sign * 0.01,
            np.array([sign * 0.75, -0.2, -1.0]),
            palm=np.array([-0.15 * sign, -1.0, 0.1]),
            hand=np.array([-0.25 * sign, -0.12, 1.0]),
        )


def _arms_crossed(figure: Figure, phase: float) -> None:
    f = figure.frame
    s = f.scale
    over = "L" if phase < 0.5 else "R"
    chest = 0.5 * f.heads["spine01"][1] + 0.5 * f.heads["spine02"][1]
    for side, sign in SIDES:
        figure.shoulders(side, -3, 12)
        on_top = side == over
        y = chest + (0.005 if on_top else -0.035) * s
        z = f.front(y) + (0.085 if on_top else 0.030) * s
        wrist = np.array([-sign * (0.10 if on_top else 0.07) * s, y, z])
        figure.reach(
            side,
            figure.point("spine01", wrist),
            np.array([sign * 0.8, -1.0, 0.25]),
            palm=np.array([-0.2 * sign, -0.1, -1.0]),
            hand=np.array([-sign, 0.18, -0.35 if on_top else -0.1]),
            curl=0.8,
        )


def _hands_on_hips(figure: Figure, phase: float) -> None:
    f = figure.frame
    s = f.scale
    y = f.heads["upperleg01.L"][1] + 0.085 * s
    for side, sign in SIDES:
        figure.shoulders(side, 0)
        wrist = np.array([sign * (f.width(y) + 0.035 * s), y, f.heads["root"][2] + 0.05 * s])
        figure.reach(
            side,
            figure.point("root", wrist),
            np.array([sign, -0.1, -0.45]),
            palm=np.array([-sign, 0.15, -0.1]),
            hand=np.array([-0.35 * sign, -0.45, 1.0]),
            curl=1.2,
        )


def _hands_in_pockets(figure: Figure, phase: float) -> None:
    f = figure.frame
    s = f.scale
    y = f.heads["upperleg01.L"][1] + 0.02 * s
    for side, sign in SIDES:
        figure.shoulders(side, -3)
        wrist = np.array([sign * (f.width(y) - 0.005 * s), y, f.heads["upperleg01.L"][2] + 0.045 * s])
        figure.reach(
            side,
            figure.point("root", wrist),
            np.array([0.55 * sign, 0.0, -1.0]),
            palm=np.array([-sign, 0.0, -0.35]),
            hand=np.array([-0.30 * sign, -1.0, 0.25]),
            curl=1.0,
        )


def _arms_up(figure: Figure, phase: float) -> None:
    wave = np.sin(2 * np.pi * phase)
    for side, sign in SIDES:
        figure.shoulders(side, 26)
        figure.arm(
            side,
            np.array([sign * (0.50 + 0.10 * wave), 0.85, 0.10]),
            np.array([sign * (0.12 - 0.08 * wave), 1.0, 0.18]),
            palm=np.array([-0.3 * sign, 0.0, 1.0]),
            hand=np.array([sign * 0.05, 1.0, 0.05]),
            curl=0.4,
            spread=0.8,
        )


def _one_hand_raised(figure: Figure, phase: float) -> None:
    """One hand waves, the right one in the first half of the phase."""
    side, sign = ("R", -1.0) if phase < 0.5 else ("L", 1.0)
    wave = np.sin(4 * np.pi * phase)
    figure.shoulders(side, 8)
    figure.arm(
        side,
        np.array([sign * 0.75, -0.52, 0.30]),
        np.array([sign * (0.12 + 0.22 * wave), 1.0, 0.28]),
        palm=np.array([-0.2 * sign, 0.0, 1.0]),
        hand=np.array([sign * (0.02 + 0.22 * wave), 1.0, 0.12]),
        curl=0.3,
        spread=0.8,
    )


_ON_STANDING = {
    "arms_crossed": _arms_crossed,
    "arms_up": _arms_up,
    "hands_on_hips": _hands_on_hips,
    "one_hand_raised": _one_hand_raised,
    "hands_in_pockets": _hands_in_pockets,
}


@lru_cache(maxsize=16)
def body_rotations(pose: BodyPose, person: Person) -> Mapping[str, np.ndarray]:
    """Rotation (3, 3) per bone name, in the axes of the rest pose; see `Body.transforms`.

    `pose.joints` adds angles on top. A key is a bone's name, alone or with an axis: ``"lowerarm01.L"``,
    ``"head:y"``. Axes are those of the rest pose, right-handed: x to the person's left, y up, z to the front.
    Without an axis the bone bends the way its joint does: elbows and knees about their hinge, fingers toward the
    palm, thighs forward, feet up; all others about x (a bow).

    Raises:
        WorldError: for a bone or an axis that does not exist.
    """
    figure = Figure(frame_of(person))
    if pose.name == "walking":
        _walking(figure, person, pose.phase)
    elif pose.name == "sitting":
        _sitting(figure, pose.phase)
    else:
        arms = _ON_STANDING.get(pose.name)
        _standing(figure, pose.phase, arms=arms is None or pose.name == "one_hand_raised")
        if arms is not None:
            arms(figure, pose.phase)
    for key, degrees in pose.joints.items():
        bone, axis = _joint_axis(figure.frame, key)
        turn = rotation(axis, degrees)
        figure.turn(bone, figure.turns[bone] @ turn if bone in figure.turns else turn)
    return MappingProxyType(figure.turns)


def _joint_axis(f: Frame, key: str) -> tuple[str, np.ndarray]:
    bone, _, axis = key.partition(":")
    if bone not in f.heads:
        raise unknown("BodyPose.joints names a bone that does not exist:", bone, f.heads)
    if axis:
        if axis not in ("x", "y", "z"):
            raise WorldError(f"BodyPose.joints[{key!r}]: the axis is {axis!r}; it must be x, y or z.")
        return bone, {"x": X, "y": Y, "z": Z}[axis]
    name, _, side = bone.partition(".")
    if name == "lowerarm01":
        shoulder, elbow, wrist = (f.heads[f"{n}.{side}"] for n in ("upperarm01", "lowerarm01", "wrist"))
        return bone, cross(elbow - shoulder, wrist - elbow)
    if name.startswith("finger"):
        root = name.partition("-")[0]
        return bone, cross(f.heads[f"{root}-3.{side}"] - f.heads[f"{root}-1.{side}"], f.palm[side])
    return bone, -X if name in ("upperleg01", "foot") else X


def root_motion(pose: BodyPose, person: Person, rest: Rest) -> np.ndarray:
    """(3,) meters: where the posed body has to be moved to stand on the floor and, when walking, to travel.

    y puts the lowest point of the soles on the floor at 0, which makes the bounce of walking. x is the sway over the
    leg that carries. z is the way walked from phase 0: two steps per cycle.
    """
    f = frame_of(person)
    transforms = body().transforms(rest, body_rotations(pose, person))
    lowest = np.inf
    for side, _ in SIDES:
        t = transforms[body().bone(f"foot.{side}")]
        lowest = min(lowest, float(((f.soles[side] + f.heads[f"foot.{side}"]) @ t[1, :3]).min() + t[1, 3]))
    if pose.name != "walking":
        return np.array([0.0, -lowest, 0.0])
    step = person.gait.stride * rest.height
    return np.array([_sway(f, person, pose.phase), -lowest, 2 * step * pose.phase])
