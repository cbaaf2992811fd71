"""Body poses: bone rotations of standing, walking, sitting and the positions of the arms.

Limbs are aimed, not turned by fixed angles: the model's A-pose differs between people, and so do shoulders, hips and
girth. A pose says where upper arms, forearms, thighs and shanks point, or where a hand lies on the person's own body;
the rotations follow from the joints of the rest pose by two-bone inverse kinematics.

Walking follows the sagittal joint angles of normal gait (Winter, "The Biomechanics and Motor Control of Human Gait",
1991) as Fourier series of low order, scaled by the person's own stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ipse.errors import WorldError
from ipse.world.body import Rest, body, rotation
from ipse.world.person import Person
from ipse.world.scene import rest_body
from ipse.world.shot import BodyPose
from ipse.world.values import unknown

X, Y, Z = np.eye(3)
SIDES = (("L", 1.0), ("R", -1.0))
"""Bone suffix and the sign of x on that side."""

_SPINE = {"spine05": 0.12, "spine04": 0.2, "spine03": 0.2, "spine02": 0.24, "spine01": 0.24}
"""Each joint's share of a turn of the trunk."""


@dataclass(frozen=True)
class _Frame:
    """What posing needs to know of a person's rest body.

    Attributes:
        heads: joint by bone, (3,) meters.
        palm: by side, the direction (3,) that the palm faces; `hand` where the hand points.
        side_y, side_x: heights and the half-width of trunk and thighs there; `front_z` the depth of its front.
        gap: half the space between the thighs that feet can close by, meters.
        sole: vertices of the soles, (S,) int32.
        scale: stature over 1.75 m, for thicknesses of limbs.
    """

    rest: Rest
    heads: dict[str, np.ndarray]
    palm: dict[str, np.ndarray]
    hand: dict[str, np.ndarray]
    side_y: np.ndarray
    side_x: np.ndarray
    front_z: np.ndarray
    gap: float
    sole: np.ndarray
    scale: float

    def width(self, y: float) -> float:
        """Half the width of the trunk, or of both thighs, at a height."""
        return float(np.interp(y, self.side_y, self.side_x))

    def front(self, y: float) -> float:
        """How far the front of the trunk stands forward at a height."""
        return float(np.interp(y, self.side_y, self.front_z))


@lru_cache(maxsize=1)
def _regions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Body vertices of trunk and legs (arms, hands and head left out), of the inner thighs, and of the soles."""
    b = body()
    skin = np.unique(b.triangles[b.triangles_of("body")])
    strongest = b.skin_index[skin, b.skin_weight[skin].argmax(1)]
    names = np.array(b.bones)[strongest]
    trunk = np.array([n.startswith(("root", "pelvis", "spine", "upperleg")) for n in names])
    thigh = np.array([n == "upperleg02.L" for n in names]) & (b.template[skin, 1] > -0.25)
    foot = np.array([n.startswith("foot") for n in names]) & (b.template[skin, 1] < -0.78)
    return skin[trunk], skin[thigh], skin[foot].astype(np.int32)


@lru_cache(maxsize=64)
def _frame(person: Person) -> _Frame:
    b, rest = body(), rest_body(person)
    heads = {name: rest.heads[j].astype(float) for j, name in enumerate(b.bones)}
    trunk, thigh, sole = _regions()
    points = rest.vertices[trunk]
    low, high = heads["lowerleg01.L"][1], heads["clavicle.L"][1]
    side_y = np.linspace(low, high, 40)
    band = (side_y[1] - side_y[0]) * 1.2
    near = np.abs(points[None, :, 1] - side_y[:, None]) < band
    palm, hand = {}, {}
    for side, sign in SIDES:
        wrist = heads[f"wrist.{side}"]
        across = np.cross(heads[f"finger2-1.{side}"] - wrist, heads[f"finger5-1.{side}"] - wrist)
        palm[side] = _unit(-sign * across)
        hand[side] = _unit(heads[f"finger3-1.{side}"] - wrist)
    return _Frame(
        rest=rest,
        heads=heads,
        palm=palm,
        hand=hand,
        side_y=side_y,
        side_x=np.where(near, np.abs(points[:, 0]), 0).max(1),
        front_z=np.where(near, points[:, 2], -1).max(1),
        gap=float(np.quantile(rest.vertices[thigh, 0], 0.02)),
        sole=sole,
        scale=rest.height / 1.75,
    )


def _unit(v: Sequence[float] | np.ndarray) -> np.ndarray:
    v = np.asarray(v, float)
    return v / np.linalg.norm(v)


def _axes(along: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """(3, 3) right-handed axes as columns: `along`, what is left of `hinge` beside it, and their cross product."""
    x = _unit(along)
    y = _unit(hinge - x * (x @ hinge))
    return np.stack([x, y, np.cross(x, y)], 1)


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes direction `a` to direction `b`."""
    a, b = _unit(a), _unit(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    if sine < 1e-7:
        return np.eye(3)
    return rotation(axis, np.degrees(np.arctan2(sine, a @ b)))


def _twist(turn: np.ndarray, axis: np.ndarray) -> float:
    """Degrees that a rotation which leaves `axis` in place turns about it."""
    side = _unit(np.cross(axis, X if abs(axis[0]) < 0.8 else Y))
    turned = turn @ side
    return float(np.degrees(np.arctan2(np.cross(side, turned) @ axis, side @ turned)))


def _reach(
    start: np.ndarray, target: np.ndarray, pole: np.ndarray, lengths: tuple[float, float], least: float = 8.0
) -> tuple[np.ndarray, np.ndarray]:
    """Directions of the two bones of a limb whose end comes to `target`, the middle joint pushed toward `pole`.

    A target out of reach is approached; the limb keeps a bend of at least `least` degrees.
    """
    a, b = lengths
    to = target - start
    longest = np.sqrt(a * a + b * b + 2 * a * b * np.cos(np.radians(least)))
    shortest = np.sqrt(a * a + b * b + 2 * a * b * np.cos(np.radians(142)))
    d = float(np.clip(np.linalg.norm(to), shortest, longest))
    along = _unit(to)
    side = _unit(pole - along * (along @ pole))
    c = (a * a + d * d - b * b) / (2 * a * d)
    upper = along * c + side * np.sqrt(max(1 - c * c, 0.0))
    return upper, _unit(along * d - upper * a)


class _Figure:
    """A body being posed: collects rotations and answers where joints have come to."""

    def __init__(self, frame: _Frame) -> None:
        self.frame = frame
        self.turns: dict[str, np.ndarray] = {}

    def place(self, bone: str) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and shift (3,) of a bone as posed so far: rest points p go to ``r @ p + t``."""
        b = body()
        r, t = np.eye(3), np.zeros(3)
        j = b.bone(bone)
        while j >= 0:
            turn = self.turns.get(b.bones[j])
            if turn is not None:
                head = self.frame.heads[b.bones[j]]
                r, t = turn @ r, turn @ (t - head) + head
            j = int(b.parents[j])
        return r, t

    def point(self, bone: str, rest_point: np.ndarray) -> np.ndarray:
        """Where a rest point that moves with a bone has come to."""
        r, t = self.place(bone)
        return r @ rest_point + t

    def joint(self, bone: str) -> np.ndarray:
        """Where a joint has come to."""
        return self.point(bone, self.frame.heads[bone])

    def turn_to(self, bone: str, world: np.ndarray) -> None:
        """Give a bone the rotation `world`, whatever its parents have done."""
        parent = body().bones[body().parents[body().bone(bone)]]
        self.turns[bone] = self.place(parent)[0].T @ world

    def trunk(self, turn: np.ndarray) -> None:
        """Share a turn of the chest against the pelvis between the joints of the spine."""
        angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
        axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
        if angle > 1e-4:
            for bone, share in _SPINE.items():
                self.turns[bone] = rotation(axis, angle * share)

    def arm(
        self,
        side: str,
        upper: np.ndarray,
        fore: np.ndarray,
        palm: np.ndarray | None = None,
        hand: np.ndarray | None = None,
        curl: float = 1.0,
        spread: float = 0.25,
    ) -> None:
        """Aim an arm.

        Args:
            side: ``L`` or ``R``.
            upper: direction of the upper arm.
            fore: direction of the forearm.
            palm: where the palm faces; by default as the forearm brings it.
            hand: where the hand points; by default nearly on with the forearm.
            curl: of the fingers, 0 as modelled, 1 relaxed, 4 a fist.
            spread: of the fingers, 1 as modelled, 0 side by side.
        """
        f = self.frame
        shoulder, elbow, wrist = (f.heads[f"{bone}.{side}"] for bone in ("upperarm01", "lowerarm01", "wrist"))
        upper, fore = _unit(upper), _unit(fore)
        rest_upper, rest_fore = _unit(elbow - shoulder), _unit(wrist - elbow)
        rest_hinge = np.cross(rest_upper, rest_fore)
        hinge = np.cross(upper, fore)
        parent = self.place(f"shoulder01.{side}")[0]
        full = _axes(upper, hinge) @ _axes(rest_upper, rest_hinge).T
        # The upper arm's turn about itself is spread along it: the shoulder's skin would wring otherwise.
        swing = _between(parent @ rest_upper, upper) @ parent
        about = _twist(full @ swing.T, upper)
        self.turn_to(f"upperarm01.{side}", rotation(upper, 0.4 * about) @ swing)
        self.turn_to(f"upperarm02.{side}", full)
        bent = _axes(fore, hinge) @ _axes(rest_fore, rest_hinge).T
        self.turn_to(f"lowerarm01.{side}", bent)
        if palm is not None or hand is not None:
            points = bent @ f.hand[side] if hand is None else _unit(hand)
            faces = bent @ f.palm[side] if palm is None else np.asarray(palm, float)
            goal = _axes(points, faces) @ _axes(f.hand[side], f.palm[side]).T
            # Forearm bones carry most of the pronation, the wrist the rest.
            swing = _between(bent @ f.hand[side], goal @ f.hand[side])
            roll = _twist(goal @ (swing @ bent).T, points)
            self.turn_to(f"lowerarm02.{side}", rotation(fore, 0.6 * roll) @ bent)
            self.turn_to(f"wrist.{side}", goal)
        self.curl(side, curl, spread)

    def reach(
        self,
        side: str,
        wrist: np.ndarray,
        pole: np.ndarray,
        palm: np.ndarray | None = None,
        hand: np.ndarray | None = None,
        curl: float = 1.0,
        spread: float = 0.25,
    ) -> None:
        """Bring a wrist to a place, the elbow pushed toward `pole`; the rest as for `arm`."""
        upper, fore = _reach(self.joint(f"upperarm01.{side}"), wrist, np.asarray(pole, float), self.arm_lengths(side))
        self.arm(side, upper, fore, palm, hand, curl, spread)

    def arm_lengths(self, side: str) -> tuple[float, float]:
        """Lengths of upper arm and forearm, meters."""
        h = self.frame.heads
        shoulder, elbow, wrist = (h[f"{bone}.{side}"] for bone in ("upperarm01", "lowerarm01", "wrist"))
        return float(np.linalg.norm(elbow - shoulder)), float(np.linalg.norm(wrist - elbow))

    def curl(self, side: str, amount: float, spread: float = 0.25) -> None:
        """Bend the fingers toward the palm, the little finger most, and close the gaps between them.

        `spread` tells how much of the gaps that the model has stays.
        """
        f = self.frame
        for finger in range(1, 6):
            root = f.heads[f"finger{finger}-1.{side}"]
            along = _unit(f.heads[f"finger{finger}-3.{side}"] - root)
            axis = np.cross(along, f.palm[side])
            thumb = finger == 1
            # Only the part across the palm: the arch of the hand stays. The thumb keeps off the fingers.
            across = along - f.palm[side] * (along @ f.palm[side])
            keep = 0.55 + 0.45 * spread if thumb else spread
            closed = _between(across, keep * _unit(across) + (1 - keep) * f.hand[side])
            base = amount * (3.0 if thumb else 4.0 + 2.2 * finger)
            for joint, factor in ((1, 0.8), (2, 1.2), (3, 0.7)):
                bent = rotation(axis, base * factor)
                self.turns[f"finger{finger}-{joint}.{side}"] = closed @ bent if joint == 1 else bent

    def leg(self, side: str, thigh: np.ndarray, shank: np.ndarray, hinge: np.ndarray, foot: np.ndarray) -> None:
        """Aim a leg: directions of thigh and shank, the knee's axis, and the rotation of the foot from flat."""
        h = self.frame.heads
        hip, knee, ankle = (h[f"{bone}.{side}"] for bone in ("upperleg01", "lowerleg01", "foot"))
        self.turn_to(f"upperleg01.{side}", _axes(thigh, hinge) @ _axes(knee - hip, X).T)
        self.turn_to(f"lowerleg01.{side}", _axes(shank, hinge) @ _axes(ankle - knee, X).T)
        self.turn_to(f"foot.{side}", foot)

    def leg_lengths(self, side: str) -> tuple[float, float]:
        """Lengths of thigh and shank, meters."""
        h = self.frame.heads
        hip, knee, ankle = (h[f"{bone}.{side}"] for bone in ("upperleg01", "lowerleg01", "foot"))
        return float(np.linalg.norm(knee - hip)), float(np.linalg.norm(ankle - knee))

    def stand(self, shift: float, spread: float, ahead: tuple[float, float], out: tuple[float, float]) -> None:
        """Put both feet on the floor below the pelvis as it is.

        Args:
            shift: how far the pelvis stands to the left of the middle between the feet, meters.
            spread: half the distance of the ankles, meters.
            ahead: how far the left and the right foot stand forward, meters.
            out: degrees that the left and the right foot point outward from where the model has them.
        """
        hips = {side: self.joint(f"upperleg01.{side}") for side, _ in SIDES}
        feet = {
            side: np.array([sign * spread - shift, 0.0, hips[side][2] - 0.01 + z])
            for (side, sign), z in zip(SIDES, ahead, strict=True)
        }
        # The floor is where the leg that carries is all but straight.
        floor = -np.inf
        for side, _ in SIDES:
            a, b = self.leg_lengths(side)
            flat = np.linalg.norm((feet[side] - hips[side])[[0, 2]])
            longest = np.sqrt(a * a + b * b + 2 * a * b * np.cos(np.radians(4.0)))
            floor = max(floor, hips[side][1] - np.sqrt(longest**2 - flat**2))
        for (side, sign), angle in zip(SIDES, out, strict=True):
            target = feet[side] + Y * floor
            yaw = rotation(Y, sign * angle)
            pole = yaw @ rotation(Y, sign * 4) @ Z
            thigh, shank = _reach(hips[side], target, pole, self.leg_lengths(side), least=4.0)
            self.leg(side, thigh, shank, np.cross(thigh, shank), yaw)

    def shoulders(self, side: str, lift: float, forward: float = 0.0) -> None:
        """Raise the collar bone and shoulder blade by `lift` degrees and bring them forward by `forward`."""
        sign = 1.0 if side == "L" else -1.0
        for bone, share in (("clavicle", 0.6), ("shoulder01", 0.4)):
            turn = rotation(Z, sign * lift * share) @ rotation(Y, -sign * forward * share)
            self.turns[f"{bone}.{side}"] = turn

    def hang(self, side: str, out: float = 0.0, swing: float = 0.0, bend: float = 10.0) -> None:
        """Let an arm hang beside the body, clear of waist and hips.

        Args:
            side: ``L`` or ``R``.
            out: meters that the wrist stays farther off the body.
            swing: degrees forward about the shoulder.
            bend: degrees that the elbow is bent.
        """
        f, sign = self.frame, 1.0 if side == "L" else -1.0
        a, b = self.arm_lengths(side)
        chest_r, chest_t = self.place("spine01")
        shoulder = self.joint(f"upperarm01.{side}")
        # In the chest's own rest frame, where the widths were measured.
        local = chest_r.T @ (shoulder - chest_t)
        elbow_y, wrist_y = local[1] - 0.97 * a, local[1] - 0.97 * a - 0.97 * b
        elbow_x = max(f.width(elbow_y + 0.3 * a) + 0.050 * f.scale, abs(local[0]) + 0.02 * f.scale)
        elbow_x = max(elbow_x, f.width(elbow_y) + 0.040 * f.scale)
        wrist_x = max(f.width(wrist_y), f.width(wrist_y - 0.06 * f.scale)) + 0.032 * f.scale + out
        elbow_x, wrist_x = max(elbow_x, 0.75 * wrist_x + 0.25 * elbow_x - 0.02), max(wrist_x, elbow_x - 0.25 * b)
        lateral = np.clip((elbow_x - abs(local[0])) / a, -0.2, 0.75)
        upper = np.array([sign * lateral, -np.sqrt(1 - lateral**2), 0.0])
        lateral = np.clip((wrist_x - abs(local[0]) - lateral * a) / b, -0.25, 0.6)
        fore = np.array([sign * lateral, -np.sqrt(1 - lateral**2), 0.0])
        upper = rotation(X, 4 - swing) @ upper
        fore = rotation(X, 4 - swing - bend) @ fore
        palm = np.array([-sign, 0.0, -0.35])
        # The hand hangs straight down from a swinging forearm only in part.
        hand = _unit(fore + np.array([-0.06 * sign, -0.35, 0.0]))
        self.arm(side, chest_r @ upper, chest_r @ fore, chest_r @ palm, chest_r @ hand, curl=1.8)


def _standing(figure: _Figure, phase: float, arms: bool = True) -> None:
    """Weight on one leg, more or less: the pelvis rises over it, the trunk leans back over the feet."""
    f = figure.frame
    weight = float(np.sin(2 * np.pi * phase))
    figure.turns["root"] = rotation(Z, 2.6 * weight) @ rotation(Y, 3 * np.sin(2 * np.pi * phase + 1.3))
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


def _closed(f: _Frame, ankle: float) -> float:
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


def _walking(figure: _Figure, person: Person, phase: float) -> None:
    f, gait = figure.frame, person.gait
    turn = 2 * np.pi * phase
    stretch = gait.stride / 0.42
    sway = 0.4 + 1.2 * gait.sway
    # Seen from above the pelvis follows the leading leg, the chest the other arm; the swinging side drops.
    figure.turns["root"] = rotation(Y, -5 * stretch * np.cos(turn)) @ rotation(Z, 2.6 * sway * np.sin(turn + 0.5))
    figure.trunk(
        rotation(Y, (5 + 5) * stretch * np.cos(turn))
        @ rotation(Z, -3.1 * sway * np.sin(turn + 0.5))
        @ rotation(X, 2.0 + 0.8 * np.cos(2 * turn))
    )
    spread = max(_closed(f, 0.045), 0.02)
    shift = _sway(f, person, phase)
    for side, sign in SIDES:
        hip, knee, ankle = gait_angles(person, phase if side == "L" else phase + 0.5)
        joint = figure.joint(f"upperleg01.{side}")
        lateral = np.degrees(np.arctan2(sign * spread - shift - joint[0], sum(figure.leg_lengths(side))))
        plane = rotation(Z, lateral)
        thigh = plane @ rotation(X, -hip) @ -Y
        shank = plane @ rotation(X, knee - hip) @ -Y
        foot = rotation(Y, sign * 1.0) @ rotation(X, knee - hip - ankle)
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


def _sway(f: _Frame, person: Person, phase: float) -> float:
    """How far the pelvis stands to the left while walking, meters: over the leg that carries."""
    return (0.008 + 0.03 * person.gait.sway) * f.scale * float(np.sin(2 * np.pi * (phase - 0.06)))


def _sitting(figure: _Figure, phase: float) -> None:
    f = figure.frame
    s = f.scale
    lean = 4 * np.sin(2 * np.pi * phase)
    figure.turns["root"] = rotation(X, -8)
    figure.trunk(rotation(X, 12 + lean))
    open_ = max(0.06 * s, _closed(f, 0.08) - 0.06 * s) + 0.02 * s * np.cos(2 * np.pi * phase)
    for side, sign in SIDES:
        hip = figure.joint(f"upperleg01.{side}")
        length = figure.leg_lengths(side)[0]
        thigh = _unit([sign * open_ / length, -0.05, 1.0])
        shank = _unit([sign * 0.01, -1.0, 0.08 - 0.14 * np.sin(2 * np.pi * phase) * sign])
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


def _arms_crossed(figure: _Figure, phase: float) -> None:
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


def _hands_on_hips(figure: _Figure, phase: float) -> None:
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


def _hands_in_pockets(figure: _Figure, phase: float) -> None:
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


def _arms_up(figure: _Figure, phase: float) -> None:
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


def _one_hand_raised(figure: _Figure, phase: float) -> None:
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


def body_rotations(pose: BodyPose, person: Person) -> dict[str, np.ndarray]:
    """Rotation (3, 3) per bone name, in the axes of the rest pose; see `Body.transforms`.

    `pose.joints` adds angles on top. A key is a bone's name, alone or with an axis: ``"lowerarm01.L"``,
    ``"head:y"``. Axes are those of the rest pose, right-handed: x to the person's left, y up, z to the front.
    Without an axis the bone bends the way its joint does: elbows and knees about their hinge, fingers toward the
    palm, thighs forward, feet up; all others about x (a bow).

    Raises:
        WorldError: for a bone or an axis that does not exist.
    """
    figure = _Figure(_frame(person))
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
        figure.turns[bone] = figure.turns[bone] @ turn if bone in figure.turns else turn
    return figure.turns


def _joint_axis(f: _Frame, key: str) -> tuple[str, np.ndarray]:
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
        return bone, np.cross(elbow - shoulder, wrist - elbow)
    if name.startswith("finger"):
        root = name.partition("-")[0]
        return bone, np.cross(f.heads[f"{root}-3.{side}"] - f.heads[f"{root}-1.{side}"], f.palm[side])
    return bone, -X if name in ("upperleg01", "foot") else X


def root_motion(pose: BodyPose, person: Person, rest: Rest) -> np.ndarray:
    """(3,) meters: where the posed body has to be moved to stand on the floor and, when walking, to travel.

    y puts the lowest point of the soles on the floor at 0, which makes the bounce of walking. x is the sway over the leg that carries. z is the way walked from
    phase 0: two steps per cycle.
    """
    b, f = body(), _frame(person)
    transforms = b.transforms(rest, body_rotations(pose, person))
    soles = b.skin(rest.vertices[f.sole], f.sole, transforms)
    y = -float(soles[:, 1].min())
    if pose.name != "walking":
        return np.array([0.0, y, 0.0])
    step = person.gait.stride * rest.height
    return np.array([_sway(f, person, pose.phase), y, 2 * step * pose.phase])
