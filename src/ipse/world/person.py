"""Person: who somebody is. What stays while clothes, expressions and pictures change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from ipse.errors import WorldError
from ipse.world.colors import HAIR_COLORS, IRIS_COLORS
from ipse.world.draws import Draws, truncated_normal
from ipse.world.values import NO_NUMBERS, Color, Keys, Numbers, Palette, Range, Signed, Unit, Value, clip, unknown

#: Local shape changes by family: the standard deviation of its members, and their MakeHuman target names (the
#: positive one of each pair of opposites). `*` stands for `l` and `r`. The table is the whole tuning of how much
#: people differ.
SHAPE_FAMILIES: dict[str, tuple[float, tuple[str, ...]]] = {
    "skull": (
        0.44,
        ("head-scale-vert-incr", "head-scale-depth-incr", "head-scale-horiz-incr", "head-back-scale-depth-incr"),
    ),
    "head softness": (0.60, ("head-fat-incr",)),
    "head age": (0.38, ("head-age-incr",)),
    "head twist": (0.06, ("head-angle-out",)),
    "forehead": (
        0.56,
        ("forehead-temple-incr", "forehead-trans-forward", "forehead-scale-vert-incr", "forehead-nubian-incr"),
    ),
    "brow ridge": (0.72, ("eyebrows-angle-up", "eyebrows-trans-up", "eyebrows-trans-forward")),
    "eye place": (0.62, ("*-eye-trans-up", "*-eye-trans-out")),
    "eye size": (0.58, ("*-eye-scale-incr",)),
    "eye opening": (0.47, ("*-eye-height1-incr", "*-eye-height2-incr", "*-eye-height3-incr")),
    "eye depth": (0.50, ("*-eye-push1-out", "*-eye-push2-out")),
    "eye corners": (0.62, ("*-eye-corner1-up", "*-eye-corner2-up", "*-eye-epicanthus-out")),
    "eyelid": (0.58, ("*-eye-eyefold-up", "*-eye-eyefold-angle-up")),
    "eye bag": (0.38, ("*-eye-bag-incr", "*-eye-bag-out", "*-eye-bag-height-incr")),
    "nose size": (
        0.54,
        ("nose-scale-vert-incr", "nose-scale-horiz-incr", "nose-scale-depth-incr", "nose-volume-incr"),
    ),
    "nose place": (0.47, ("nose-trans-up", "nose-trans-forward")),
    "nose ridge": (
        0.59,
        ("nose-width1-incr", "nose-width2-incr", "nose-curve-convex", "nose-hump-incr", "nose-greek-incr"),
    ),
    "nose tip": (
        0.60,
        (
            "nose-point-up",
            "nose-point-width-incr",
            "nose-base-up",
            "nose-septumangle-incr",
            "nose-compression-uncompress",
        ),
    ),
    "nostrils": (
        0.60,
        ("nose-width3-incr", "nose-nostrils-width-incr", "nose-nostrils-angle-up", "nose-flaring-incr"),
    ),
    "nose aside": (0.07, ("nose-trans-out",)),
    "mouth size": (0.54, ("mouth-scale-horiz-incr", "mouth-scale-vert-incr", "mouth-scale-depth-incr")),
    "mouth place": (0.51, ("mouth-trans-up", "mouth-trans-forward")),
    "mouth aside": (0.07, ("mouth-trans-out",)),
    "mouth corners": (0.41, ("mouth-angles-up", "mouth-dimples-out", "mouth-laugh-lines-out")),
    "upper lip": (
        0.54,
        (
            "mouth-upperlip-height-incr",
            "mouth-upperlip-width-incr",
            "mouth-upperlip-volume-incr",
            "mouth-upperlip-ext-up",
            "mouth-upperlip-middle-up",
            "mouth-cupidsbow-incr",
            "mouth-cupidsbow-width-incr",
            "mouth-philtrum-volume-incr",
        ),
    ),
    "lower lip": (
        0.54,
        (
            "mouth-lowerlip-height-incr",
            "mouth-lowerlip-width-incr",
            "mouth-lowerlip-volume-incr",
            "mouth-lowerlip-ext-up",
            "mouth-lowerlip-middle-up",
        ),
    ),
    "jaw": (0.64, ("chin-jaw-drop-incr", "chin-bones-incr", "chin-prognathism-incr")),
    "chin": (0.64, ("chin-height-incr", "chin-width-incr", "chin-prominent-incr", "chin-cleft-incr")),
    "cheek": (0.66, ("*-cheek-bones-incr", "*-cheek-volume-incr", "*-cheek-inner-incr", "*-cheek-trans-up")),
    "ear form": (0.42, ("*-ear-lobe-incr", "*-ear-shape-round", "*-ear-shape-triangle", "*-ear-flap-incr")),
    "ear size": (0.34, ("*-ear-scale-incr", "*-ear-scale-vert-incr", "*-ear-scale-depth-incr")),
    "ear place": (0.32, ("*-ear-trans-up", "*-ear-trans-forward", "*-ear-rot-forward", "*-ear-wing-incr")),
    "neck": (
        0.34,
        ("neck-scale-vert-incr", "neck-scale-horiz-incr", "neck-scale-depth-incr", "neck-back-scale-depth-incr"),
    ),
    "double chin": (0.22, ("neck-double-incr",)),
    "torso": (
        0.28,
        ("torso-scale-vert-incr", "torso-scale-horiz-incr", "torso-scale-depth-incr", "torso-vshape-incr"),
    ),
    "torso muscle": (0.25, ("torso-muscle-dorsi-incr", "torso-muscle-pectoral-incr")),
    "shoulders": (0.28, ("measure-shoulder-dist-incr",)),
    "hips": (0.28, ("hip-scale-vert-incr", "hip-scale-horiz-incr", "hip-scale-depth-incr", "hip-waist-up")),
    "stomach": (0.28, ("stomach-tone-incr",)),
    "buttocks": (0.25, ("buttocks-volume-incr",)),
    "arms": (0.25, ("*-upperarm-fat-incr", "*-upperarm-muscle-incr", "*-lowerarm-fat-incr", "*-lowerarm-muscle-incr")),
    "arm length": (0.22, ("*-upperarm-scale-vert-incr", "*-lowerarm-scale-vert-incr")),
    "hands": (0.22, ("*-hand-scale-incr", "*-hand-fingers-length-incr", "*-hand-fingers-diameter-incr")),
    "legs": (0.25, ("*-upperleg-fat-incr", "*-upperleg-muscle-incr", "*-lowerleg-fat-incr", "*-lowerleg-muscle-incr")),
    "leg length": (0.25, ("upperlegs-height-incr", "lowerlegs-height-incr")),
    "leg axis": (0.25, ("*-leg-valgus-incr",)),
    "feet": (0.22, ("*-foot-scale-incr",)),
}

#: Families whose two sides differ less: legs, arms and eyes of different size look like an accident.
ASYMMETRY = 0.06
QUIET_ASYMMETRY = 0.03
_QUIET = frozenset({"arms", "arm length", "hands", "legs", "leg axis", "feet", "eye opening", "eye size", "eye place"})

#: No sampled shape change is stronger than this; hand-made people may go to 1.
SHAPE_LIMIT = 0.95

#: (deviation, left or middle name, right name or None, deviation of right from left) in the order of the table.
_SHAPE_PLAN: tuple[tuple[float, str, str | None, float], ...] = tuple(
    (
        sigma,
        name.replace("*", "l", 1),
        name.replace("*", "r", 1) if name.startswith("*") else None,
        QUIET_ASYMMETRY if family in _QUIET else ASYMMETRY,
    )
    for family, (sigma, names) in SHAPE_FAMILIES.items()
    for name in names
)

#: Every name `Person.shape` may hold.
SHAPE_NAMES: tuple[str, ...] = tuple(
    sorted(name for _, left, right, _ in _SHAPE_PLAN for name in (left, right) if name is not None)
)

#: Groups that people are balanced over, each with the lowest and highest value (both included) of the field that
#: decides it.
AGE_GROUPS: dict[str, tuple[float, float]] = {
    "child": (5.0, 12.999),
    "teen": (13.0, 19.999),
    "young": (20.0, 39.999),
    "middle": (40.0, 59.999),
    "elder": (60.0, 85.0),
}
GENDER_GROUPS: dict[str, tuple[float, float]] = {"female": (0.0, 0.4999), "male": (0.5, 1.0)}
SKIN_GROUPS: dict[str, tuple[float, float]] = {"light": (1.0, 3.499), "medium": (3.5, 6.499), "dark": (6.5, 10.0)}

#: Dimension of balancing: the field that decides it and its groups. The sizes (5, 2, 3) have no common divisor: see
#: `_balanced`.
BALANCE: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "age": ("age", AGE_GROUPS),
    "gender": ("gender", GENDER_GROUPS),
    "skin": ("skin.tone", SKIN_GROUPS),
}


_BROWN_EYES = Color("brown", IRIS_COLORS["brown"])
_BROWN_HAIR = Color("brown", HAIR_COLORS["brown"])


@dataclass(frozen=True, slots=True)
class Mark(Value):
    """A mole or a scar at a fixed place of the face."""

    #: Across the face: -1 is its edge on the person's right (image left when facing the camera), 1 on the person's
    #: left.
    u: Signed = 0.0
    #: Up the face: -1 at the chin, 1 at the hairline.
    v: Signed = 0.0
    #: Diameter of a mole, length of a scar, in millimeters.
    size_mm: Annotated[float, Range(0.3, 60)] = 2.0
    #: How much it differs from the skin around it.
    strength: Unit = 0.6
    #: Direction of a scar in degrees from horizontal, counter-clockwise for somebody looking at the face.
    angle: Annotated[float, Range(-90, 90)] = 0.0


@dataclass(frozen=True, slots=True)
class Skin(Value):
    """The skin: color, structure, and marks that stay."""

    #: The Monk skin tone scale (Monk 2019: 1 lightest, 10 darkest), continuous.
    tone: Annotated[float, Range(1, 10)] = 4.0
    #: -1 cool (pink), 1 warm (golden).
    undertone: Signed = 0.0
    #: Of cheeks, nose and ears.
    redness: Unit = 0.25
    freckles: Unit = 0.0
    moles: tuple[Mark, ...] = ()
    scars: tuple[Mark, ...] = ()
    #: Pores and unevenness.
    roughness: Unit = 0.4
    #: How much it shines.
    oiliness: Unit = 0.4
    wrinkles: Unit = 0.1
    #: Depth of the folds that faces have at any age: from the nose to the corners of the mouth, and under the eyes.
    folds: Unit = 0.3
    #: Depth of the fold in the upper eyelid: 0 none (a single lid).
    lid_fold: Unit = 0.5
    #: How high the fold lies above the lashes: 0 close, 1 far.
    lid_fold_height: Unit = 0.5
    #: Of the lips: -1 pale, 1 dark.
    lips: Signed = 0.0
    #: Darkness of the eye sockets.
    circles: Unit = 0.3
    #: Strength of the blotches that everybody's skin has in a pattern of their own.
    unevenness: Unit = 0.4


@dataclass(frozen=True, slots=True)
class Iris(Value):
    """The iris."""

    color: Annotated[Color, Palette(IRIS_COLORS)] = _BROWN_EYES
    #: Strength of the dark ring around it.
    ring: Unit = 0.5


@dataclass(frozen=True, slots=True)
class NaturalHair(Value):
    """The hair as it grows, before it is cut, dyed or combed."""

    #: Before graying; `ipse.world.look.hair_color` gives the color to see.
    color: Annotated[Color, Palette(HAIR_COLORS)] = _BROWN_HAIR
    #: Share of gray hairs.
    gray: Unit = 0.0
    #: 0 straight, 0.3 wavy, 0.6 curly, 1 coiled.
    curl: Unit = 0.2
    density: Unit = 0.8
    #: How far the hairline has moved back: 0 not at all, 1 to the crown.
    recession: Unit = 0.0


@dataclass(frozen=True, slots=True)
class Brows(Value):
    """The eyebrows; 0.5 is the middle of what is common."""

    thickness: Unit = 0.5
    arch: Unit = 0.5
    density: Unit = 0.6
    #: 0 as light as the hair, 1 much darker.
    darkness: Unit = 0.5
    #: Gap between them: 0 nearly grown together, 1 far apart.
    spacing: Unit = 0.5
    #: Above the eyes: 0 low, 1 high.
    height: Unit = 0.5


@dataclass(frozen=True, slots=True)
class Gait(Value):
    """How somebody walks."""

    #: Length of one step over stature; about 0.42 at a comfortable pace.
    stride: Annotated[float, Range(0.2, 0.65)] = 0.42
    #: Steps per second; about 1.9 at a comfortable pace.
    cadence: Annotated[float, Range(0.8, 3.2)] = 1.9
    #: Sideways movement of the hips.
    sway: Unit = 0.4
    #: Up-and-down movement of the body.
    bounce: Unit = 0.4
    arm_swing: Unit = 0.5


@dataclass(frozen=True, slots=True)
class Person(Value):
    """Who somebody is: body, face, skin, eyes, hair, walk.

    `gender` to `proportions` are the MakeHuman phenotype, in the units of `anny`.
    """

    #: The number it was sampled with; a Person's Looks are drawn under it.
    number: Annotated[int, Range(0, 2**63)] = 0
    #: Years.
    age: Annotated[float, Range(5, 85)] = 30.0
    #: Of the body: 0 female, 1 male.
    gender: Unit = 0.0
    muscle: Unit = 0.5
    weight: Unit = 0.5
    #: For the age and gender: 0 very short, 1 very tall.
    height: Unit = 0.5
    #: 0 uncommon, 1 idealized.
    proportions: Unit = 0.5
    #: Weights of the African, Asian and Caucasian MakeHuman shapes; they sum to 1. Shape only: skin tone is its own
    #: field.
    ancestry: tuple[Unit, Unit, Unit] = (1 / 3, 1 / 3, 1 / 3)
    #: Local shape changes by name (`SHAPE_NAMES`); absent ones are 0.
    shape: Annotated[Numbers, Keys(frozenset(SHAPE_NAMES), -1, 1)] = NO_NUMBERS
    skin: Skin = field(default_factory=Skin)
    iris: Iris = field(default_factory=Iris)
    hair: NaturalHair = field(default_factory=NaturalHair)
    brows: Brows = field(default_factory=Brows)
    #: How much beard would grow unshaved.
    beard_density: Unit = 0.0
    #: Length and density of the eyelashes.
    lashes: Unit = 0.5
    gait: Gait = field(default_factory=Gait)

    def __post_init__(self) -> None:
        Value.__post_init__(self)
        if abs(sum(self.ancestry) - 1) > 1e-3:
            raise WorldError(f"Person.ancestry is {self.ancestry}; its three weights must sum to 1.")


def age_group(person: Person) -> str:
    """`child` (under 13), `teen` (under 20), `young` (under 40), `middle` (under 60) or `elder`."""
    for group in ("elder", "middle", "young", "teen"):
        if person.age >= AGE_GROUPS[group][0]:
            return group
    return "child"


def skin_group(person: Person) -> str:
    """`light` (Monk tone under 3.5), `medium` (under 6.5) or `dark`."""
    return "light" if person.skin.tone < 3.5 else "medium" if person.skin.tone < 6.5 else "dark"


def gender_presentation(person: Person) -> str:
    """`female` or `male`: how the body reads. Sampled people are clearly one; a hand-made one may be in between."""
    return "female" if person.gender < 0.5 else "male"


def person(
    n: int,
    *,
    fix: Mapping[str, Any] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    balance: Sequence[str] = (),
) -> Person:
    """Person number n of the world.

    Parameters
    ----------
    n
        Which person: 0, 1, 2, ….
    fix
        Fields by dotted path that are not left to chance, such as ``{"age": 30, "hair.color": "red"}``. What depends
        on a fixed field follows it (gray hair follows age); the draws behind all other fields stay as they are.
    ranges
        ``(low, high)`` by dotted path of a number.
    balance
        Any of ``age``, ``gender``, ``skin``: put person n into group n (counted around) of the grid of these groups,
        so that any run of consecutive numbers is spread evenly over it.
    """
    limits = {**(ranges or {}), **_balanced(n, balance)}
    for dimension in balance:
        path = BALANCE[dimension][0]
        if path in (fix or {}) or path in (ranges or {}):
            raise WorldError(f"{path} is balanced and also fixed or limited; choose one.")
    draws = Draws(Person, ("person", n), fix, limits)

    age = draws.number("age", _age)
    male = draws.number("gender", _near_ends)
    adult = clip((age - 9) / 10, 0, 1)
    ancestry = draws.settle("ancestry", _ancestry(draws.uniforms("ancestry", 3)), 0.0)
    african, asian, caucasian = ancestry
    tone = draws.normal("skin.tone", 7.8 * african + 4.2 * asian + 2.9 * caucasian, 1.7, 1, 10)
    skin = _skin(draws, age, tone, asian)
    hair = _hair(draws, age, male, tone, ancestry)
    weight = draws.normal("weight", 0.48 + 0.05 * adult, 0.24, 0.03, 0.97)
    return Person(
        number=n,
        age=age,
        gender=male,
        muscle=draws.normal("muscle", 0.42 + 0.12 * male * adult, 0.2, 0.05, 0.95),
        weight=weight,
        height=draws.normal("height", 0.5, 0.18, 0.05, 0.95),
        proportions=draws.normal("proportions", 0.55, 0.18, 0.1, 0.95),
        ancestry=ancestry,
        shape=draws.numbers("shape", _shape(draws, age, weight)),
        skin=skin,
        iris=_iris(draws, tone, african + asian),
        hair=hair,
        brows=Brows(
            thickness=draws.normal("brows.thickness", 0.36 + 0.24 * male * adult, 0.3, 0, 1),
            arch=draws.normal("brows.arch", 0.58 - 0.16 * male, 0.3, 0, 1),
            density=draws.normal("brows.density", 0.62 - 0.15 * clip((age - 55) / 30, 0, 1), 0.17, 0.15, 1),
            darkness=draws.normal("brows.darkness", 0.5, 0.35, 0, 1),
            spacing=draws.normal("brows.spacing", 0.55 - 0.1 * male, 0.3, 0, 1),
            height=draws.normal("brows.height", 0.5, 0.3, 0, 1),
        ),
        beard_density=draws.number("beard_density", lambda u: _beard_density(u, age, male, asian)),
        lashes=draws.normal("lashes", 0.6 - 0.15 * male, 0.25, 0.05, 1),
        gait=Gait(
            stride=draws.normal("gait.stride", 0.42 - 0.05 * clip((age - 60) / 25, 0, 1), 0.025, 0.3, 0.52),
            cadence=draws.normal("gait.cadence", 1.88 + 0.35 * (1 - adult) - 0.05 * male, 0.13, 1.3, 2.6),
            sway=draws.normal("gait.sway", 0.5 - 0.15 * male, 0.17, 0, 1),
            bounce=draws.normal("gait.bounce", 0.42, 0.17, 0, 1),
            arm_swing=draws.normal("gait.arm_swing", 0.5, 0.18, 0, 1),
        ),
    )


def balanced_people(count: int, by: Sequence[str] = ("age", "gender", "skin"), start: int = 0) -> list[Person]:
    """People number `start` to `start + count - 1`, spread evenly over the grid of groups named in `by`.

    Group sizes differ by at most one, of the whole grid and of each dimension alone. Person n depends on n and `by`
    only, so a run can be cut anywhere and resumed.
    """
    return [person(n, balance=by) for n in range(start, start + count)]


def _balanced(n: int, by: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The ranges that put person n into its cell.

    In each dimension n goes to group n modulo the number of groups. These numbers have no common divisor, so the
    remainders run through every cell of the grid before one repeats (the Chinese remainder theorem), and each
    dimension is even by itself.
    """
    if isinstance(by, str):
        raise WorldError(f"balance is {by!r}; it must be a sequence of dimensions, such as ('age', 'gender').")
    limits: dict[str, tuple[float, float]] = {}
    for dimension in by:
        if dimension not in BALANCE:
            raise unknown("There is nothing to balance called", dimension, BALANCE)
        path, groups = BALANCE[dimension]
        limits[path] = list(groups.values())[n % len(groups)]
    return limits


#: Shares of the age groups among unbalanced people, in their order.
_AGE_SHARES = (0.12, 0.12, 0.34, 0.26, 0.16)


def _age(u: float) -> float:
    """Even within each age group."""
    for share, (low, high) in zip(_AGE_SHARES, AGE_GROUPS.values(), strict=True):
        if u < share:
            return low + u / share * (high - low)
        u -= share
    return AGE_GROUPS["elder"][1]


def _near_ends(u: float) -> float:
    """Mostly below 0.1 or above 0.9, never between 0.32 and 0.68."""
    away = 0.32 * abs(2 * u - 1) ** 3
    return away if u < 0.5 else 1 - away


def _ancestry(uniforms: Sequence[float]) -> tuple[float, float, float]:
    """Weights that sum to 1, mostly dominated by one of the three, with every mixture possible."""
    powers = [(-math.log1p(-u)) ** 3.0 + 1e-6 for u in uniforms]
    african, asian = (round(power / sum(powers), 4) for power in powers[:2])
    return african, asian, round(1 - african - asian, 4)


#: How much more of a local shape somebody of full weight has than somebody of none: the phenotype's weight hardly
#: reaches the face.
_FROM_WEIGHT: dict[str, float] = {
    "head-fat-incr": 1.1,
    "l-cheek-volume-incr": 0.7,
    "r-cheek-volume-incr": 0.7,
    "neck-double-incr": 0.7,
}


def _shape(draws: Draws, age: float, weight: float) -> dict[str, float]:
    """All local shape changes; children's faces differ a little less, as they do in life."""
    scale = 0.75 + 0.25 * clip((age - 5) / 13, 0, 1)
    normals = iter(draws.normals("shape", 2 * len(_SHAPE_PLAN)))
    shape: dict[str, float] = {}
    for sigma, left, right, asymmetry in _SHAPE_PLAN:
        value, difference = scale * sigma * next(normals), scale * asymmetry * next(normals)
        value += _FROM_WEIGHT.get(left, 0.0) * (weight - 0.5)
        if right is None:
            shape[left] = clip(value, -SHAPE_LIMIT, SHAPE_LIMIT)
        else:
            shape[left] = clip(value - difference / 2, -SHAPE_LIMIT, SHAPE_LIMIT)
            shape[right] = clip(value + difference / 2, -SHAPE_LIMIT, SHAPE_LIMIT)
    return shape


#: Where marks are put, as (u low, u high, v low, v high): forehead, cheeks, jaw, chin, side of the nose. Never on
#: eyes or lips.
_MARK_PLACES: tuple[tuple[float, float, float, float], ...] = (
    (-0.6, 0.6, 0.55, 0.9),
    (-0.8, -0.35, -0.4, 0.05),
    (0.35, 0.8, -0.4, 0.05),
    (-0.65, -0.35, -0.75, -0.45),
    (0.35, 0.65, -0.75, -0.45),
    (-0.25, 0.25, -0.95, -0.8),
    (-0.22, 0.22, -0.12, 0.0),
)


def _marks(draws: Draws, path: str, count: int, sizes: tuple[float, float]) -> tuple[Mark, ...]:
    """The first `count` of the person's marks: with another count the shared ones are the same."""
    marks = []
    for index in range(count):
        place, u, v, size, strength, angle = draws.uniforms(f"{path}/{index}", 6)
        left, right, bottom, top = _MARK_PLACES[int(place * len(_MARK_PLACES))]
        marks.append(
            Mark(
                u=round(left + u * (right - left), 4),
                v=round(bottom + v * (top - bottom), 4),
                size_mm=round(sizes[0] + size * size * (sizes[1] - sizes[0]), 3),
                strength=round(0.35 + 0.6 * strength, 4),
                angle=round(180 * angle - 90, 2),
            )
        )
    return tuple(marks)


def _skin(draws: Draws, age: float, tone: float, asian: float) -> Skin:
    pale = clip((6 - tone) / 4, 0, 1)
    old = clip((age - 25) / 50, 0, 1)
    moles = (0, 0, 0, 0, 1, 1, 1, 2, 3)
    mole_count = moles[int(draws.uniforms("skin.moles?", 1)[0] * len(moles))]
    scar_count = 1 if draws.uniforms("skin.scars?", 1)[0] < 0.1 else 0
    return Skin(
        tone=tone,
        undertone=draws.normal("skin.undertone", 0.1, 0.4, -1, 1),
        redness=draws.normal("skin.redness", 0.12 + 0.25 * pale, 0.15, 0, 1),
        # Three in four have none worth seeing, on dark skin nearly all.
        freckles=draws.number("skin.freckles", lambda u: clip((u - 0.72) / 0.28, 0, 1) * (0.15 + 0.85 * pale)),
        moles=draws.settle("skin.moles", _marks(draws, "skin.moles", mole_count, (1.0, 3.5)), 0.0),
        scars=draws.settle("skin.scars", _marks(draws, "skin.scars", scar_count, (8.0, 35.0)), 0.0),
        roughness=draws.normal("skin.roughness", 0.25 + 0.3 * old, 0.14, 0, 1),
        oiliness=draws.normal("skin.oiliness", 0.45 - 0.1 * old, 0.17, 0, 1),
        wrinkles=draws.normal("skin.wrinkles", clip((age - 25) / 55, 0, 0.95), 0.02 + 0.12 * old, 0, 1),
        folds=draws.normal("skin.folds", 0.3 + 0.25 * old, 0.28, 0, 1),
        lid_fold=draws.normal("skin.lid_fold", 0.6 - 0.4 * asian, 0.3, 0, 1),
        lid_fold_height=draws.normal("skin.lid_fold_height", 0.5, 0.28, 0, 1),
        lips=draws.normal("skin.lips", 0.0, 0.55, -1, 1),
        circles=draws.normal("skin.circles", 0.3 + 0.2 * old, 0.25, 0, 1),
        unevenness=draws.normal("skin.unevenness", 0.4, 0.25, 0, 1),
    )


def _iris(draws: Draws, tone: float, dark_eyed: float) -> Iris:
    # Light eyes belong mostly, never only, to light skin.
    light = clip((6.5 - tone) / 4, 0, 1) * (1 - 0.9 * dark_eyed) + 0.02
    weights = {
        "dark brown": 0.25 + 0.55 * dark_eyed,
        "brown": 0.4,
        "amber": 0.05,
        "hazel": 0.04 + 0.3 * light,
        "green": 0.25 * light,
        "gray": 0.2 * light,
        "blue": 0.6 * light,
    }
    return Iris(
        color=draws.color("iris.color", IRIS_COLORS, weights, vary=0.25),
        ring=draws.normal("iris.ring", 0.5, 0.2, 0, 1),
    )


def _hair(draws: Draws, age: float, male: float, tone: float, ancestry: Sequence[float]) -> NaturalHair:
    african, asian, caucasian = ancestry
    dark = african + asian
    # Fair hair thins out as skin gets darker, and becomes rarer after childhood.
    fair = caucasian * clip((7 - tone) / 4.5, 0.02, 1) * (1.5 if age < 13 else 1.0)
    weights = {
        "black": 0.7 * dark + 0.12 * caucasian,
        "dark brown": 0.25 * dark + 0.3 * caucasian,
        "brown": 0.05 * dark + 0.25 * caucasian,
        "light brown": 0.01 + 0.16 * fair,
        "blond": 0.005 + 0.24 * fair,
        "auburn": 0.01 + 0.08 * fair,
        "red": 0.005 + 0.08 * fair,
    }
    # Below 25 hardly anybody is gray, at 45 some, at 80 nearly all, at different speed.
    graying = clip((age - 24) / 56, 0, 1)
    receding = male * clip((age - 20) / 50, 0, 1)
    return NaturalHair(
        color=draws.color("hair.color", HAIR_COLORS, weights, vary=0.2),
        gray=draws.number("hair.gray", lambda u: clip(graying * (0.2 + 1.7 * u) - 0.18, 0, 1)),
        curl=draws.normal("hair.curl", 0.82 * african + 0.12 * asian + 0.3 * caucasian, 0.17, 0, 1),
        density=draws.normal("hair.density", 0.8 - 0.25 * clip((age - 40) / 45, 0, 1), 0.12, 0.25, 1),
        recession=draws.number("hair.recession", lambda u: clip(receding * 1.5 * u**1.3 + 0.1 * u, 0, 1)),
    )


def _beard_density(u: float, age: float, male: float, asian: float) -> float:
    grown = clip((age - 14) / 8, 0, 1)
    if male < 0.5:
        return 0.05 * u * grown
    return grown * truncated_normal(u, 0.68 - 0.18 * asian, 0.2, 0.1, 1)
