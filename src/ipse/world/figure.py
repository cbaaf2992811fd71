"""A body being posed: limbs are aimed, and rotations of bones follow.

The model's A-pose differs between people, and so do shoulders, hips and girth. So a pose says where upper arms,
forearms, thighs and shanks point, or where a hand or foot lies, and the rotations follow from the joints of the
person's rest pose, by two-bone inverse kinematics where it is a place that is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ipse.world.body import Rest, body
from ipse.world.person import Person
from ipse.world.scene import rest_body

X, Y, Z = np.eye(3)
SIDES = (("L", 1.0), ("R", -1.0))
"""Bone suffix and the sign of x on that side."""

_SPINE = {"spine05": 0.12, "spine04": 0.2, "spine03": 0.2, "spine02": 0.24, "spine01": 0.24}
"""Each joint's share of a turn of the trunk."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What posing needs to know of a person's rest body.

    Attributes:
        heads: joint by bone, (3,) meters.
        palm: by side, the direction (3,) that the palm faces; `hand` where the hand points.
        side_y, side_x: heights and the half-width of trunk and thighs there; `front_z` the depth of its front.
        gap: half the space between the thighs that feet can close by, meters.
        soles: by side, (S, 3) meters from the ankle joint to points of the sole.
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
    soles: dict[str, np.ndarray]
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
def frame_of(person: Person) -> Frame:
    """What posing needs to know of a person."""
    b, rest = body(), rest_body(person)
    heads = {name: rest.heads[j].astype(float) for j, name in enumerate(b.bones)}
    trunk, thigh, sole = _regions()
    points = rest.vertices[trunk]
    low, high = heads["lowerleg01.L"][1], heads["clavicle.L"][1]
    side_y = np.linspace(low, high, 40)
    band = (side_y[1] - side_y[0]) * 1.2
    near = np.abs(points[None, :, 1] - side_y[:, None]) < band
    palm, hand, soles = {}, {}, {}
    for side, sign in SIDES:
        wrist = heads[f"wrist.{side}"]
        across = np.cross(heads[f"finger2-1.{side}"] - wrist, heads[f"finger5-1.{side}"] - wrist)
        palm[side] = unit(-sign * across)
        hand[side] = unit(heads[f"finger3-1.{side}"] - wrist)
        soles[side] = rest.vertices[sole[sign * rest.vertices[sole, 0] > 0]] - heads[f"foot.{side}"]
    return Frame(
        rest=rest,
        heads=heads,
        palm=palm,
        hand=hand,
        side_y=side_y,
        side_x=np.where(near, np.abs(points[:, 0]), 0).max(1),
        front_z=np.where(near, points[:, 2], -1).max(1),
        gap=float(np.quantile(rest.vertices[thigh, 0], 0.02)),
        soles=soles,
        scale=rest.height / 1.75,
    )


# Numpy's own functions take ten times as long on three numbers; a pose needs hundreds of these.


def unit(v: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3,) the direction of a vector."""
    x, y, z = v
    return np.array((x, y, z), float) / math.sqrt(x * x + y * y + z * z)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3,) the cross product."""
    (p, q, r), (x, y, z) = a.tolist(), b.tolist()
    return np.array((q * z - r * y, r * x - p * z, p * y - q * x))


def rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    """(3, 3) right-handed rotation by `degrees` about `axis`."""
    x, y, z = axis.tolist()
    n = 1 / math.sqrt(x * x + y * y + z * z)
    x, y, z = x * n, y * n, z * n
    a = math.radians(degrees)
    s, c = math.sin(a), math.cos(a)
    t = 1 - c
    return np.array(
        (
            (c + t * x * x, t * x * y - s * z, t * x * z + s * y),
            (t * x * y + s * z, c + t * y * y, t * y * z - s * x),
            (t * x * z - s * y, t * y * z + s * x, c + t * z * z),
        )
    )


def _axes(along: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """(3, 3) right-handed axes as columns: `along`, what is left of `hinge` beside it, and their cross product."""
    x = unit(along)
    y = unit(hinge - x * (x @ hinge))
    return np.array((x, y, cross(x, y))).T


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes direction `a` to direction `b`."""
    a, b = unit(a), unit(b)
    axis = cross(a, b)
    sine = math.sqrt(axis @ axis)
    if sine < 1e-7:
        return np.eye(3)
    return rotation(axis, np.degrees(np.arctan2(sine, a @ b)))


def _twist(turn: np.ndarray, axis: np.ndarray) -> float:
    """Degrees that a rotation which leaves `axis` in place turns about it."""
    side = unit(cross(axis, X if abs(axis[0]) < 0.8 else Y))
    turned = turn @ side
    return float(np.degrees(np.arctan2(cross(side, turned) @ axis, side @ turned)))


def two_bones(
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
    along = unit(to)
    side = unit(pole - along * (along @ pole))
    c = (a * a + d * d - b * b) / (2 * a * d)
    upper = along * c + side * np.sqrt(max(1 - c * c, 0.0))
    return upper, unit(along * d - upper * a)


@lru_cache(maxsize=256)
def _fingers(f: Frame, side: str, amount: float, spread: float) -> dict[str, np.ndarray]:
    """Rotations of the finger bones of one hand; see `Figure.curl`."""
    turns = {}
    for finger in range(1, 6):
        root = f.heads[f"finger{finger}-1.{side}"]
        along = unit(f.heads[f"finger{finger}-3.{side}"] - root)
        axis = cross(along, f.palm[side])
        thumb = finger == 1
        # Only the part across the palm: the arch of the hand stays. The thumb keeps off the fingers.
        across = along - f.palm[side] * (along @ f.palm[side])
        keep = 0.55 + 0.45 * spread if thumb else spread
        closed = _between(across, keep * unit(across) + (1 - keep) * f.hand[side])
        base = amount * (3.0 if thumb else 4.0 + 2.2 * finger)
        for joint, factor in ((1, 0.8), (2, 1.2), (3, 0.7)):
            bent = rotation(axis, base * factor)
            turns[f"finger{finger}-{joint}.{side}"] = closed @ bent if joint == 1 else bent
    return turns


class Figure:
    """A body being posed: collects rotations and answers where joints have come to."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.turns: dict[str, np.ndarray] = {}
        self._places: dict[int, tuple[np.ndarray, np.ndarray]] = {-1: (np.eye(3), np.zeros(3))}

    def turn(self, bone: str, rotation: np.ndarray) -> None:
        """Give a bone its rotation against its parent."""
        self.turns[bone] = rotation
        # A bone's descendants all come after it.
        first = body().bone(bone)
        self._places = {j: place for j, place in self._places.items() if j < first}

    def place(self, bone: str) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and shift (3,) of a bone as posed so far: rest points p go to ``r @ p + t``."""
        return self._place(body().bone(bone))

    def _place(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        if j not in self._places:
            name = body().bones[j]
            place = self._place(int(body().parents[j]))
            turn = self.turns.get(name)
            if turn is not None:
                head = self.frame.heads[name]
                place = place[0] @ turn, place[0] @ (head - turn @ head) + place[1]
            self._places[j] = place
        return self._places[j]

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
        self.turn(bone, self.place(parent)[0].T @ world)

    def trunk(self, turn: np.ndarray) -> None:
        """Share a turn of the chest against the pelvis between the joints of the spine."""
        angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
        axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
        if angle > 1e-4:
            for bone, share in _SPINE.items():
                self.turn(bone, rotation(axis, angle * share))

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
        upper, fore = unit(upper), unit(fore)
        rest_upper, rest_fore = unit(elbow - shoulder), unit(wrist - elbow)
        rest_hinge = cross(rest_upper, rest_fore)
        hinge = cross(upper, fore)
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
            points = bent @ f.hand[side] if hand is None else unit(hand)
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
        shoulder = self.joint(f"upperarm01.{side}")
        upper, fore = two_bones(shoulder, wrist, np.asarray(pole, float), self.arm_lengths(side))
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
        self.turns.update(_fingers(self.frame, side, amount, spread))

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
            thigh, shank = two_bones(hips[side], target, pole, self.leg_lengths(side), least=4.0)
            self.leg(side, thigh, shank, cross(thigh, shank), yaw)

    def shoulders(self, side: str, lift: float, forward: float = 0.0) -> None:
        """Raise the collar bone and shoulder blade by `lift` degrees and bring them forward by `forward`."""
        sign = 1.0 if side == "L" else -1.0
        for bone, share in (("clavicle", 0.6), ("shoulder01", 0.4)):
            turn = rotation(Z, sign * lift * share) @ rotation(Y, -sign * forward * share)
            self.turn(f"{bone}.{side}", turn)

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
        hand = unit(fore + np.array([-0.06 * sign, -0.35, 0.0]))
        self.arm(side, chest_r @ upper, chest_r @ fore, chest_r @ palm, chest_r @ hand, curl=1.8)
