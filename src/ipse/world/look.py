"""Look: what changes with the day. Hair style, beard, make-up, glasses, hat, clothes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ipse.errors import WorldError
from ipse.world.colors import COLORS, DYED_COLORS, GRAY_HAIR, LIP_COLORS, SHADOW_COLORS, WHITE_HAIR
from ipse.world.draws import Draws
from ipse.world.person import Person
from ipse.world.values import Color, OneOf, Palette, Range, Signed, Unit, Value, clip, mix

HAIR_STYLES = ("bald", "buzz", "short", "wavy", "curly", "long", "tied")
BEARD_STYLES = ("none", "stubble", "moustache", "goatee", "full")
GLASSES_STYLES = ("round", "rect", "aviator", "cateye", "halfrim", "sunglasses")
HAT_KINDS = ("cap", "beanie", "brim", "headscarf", "helmet")
BAG_KINDS = ("handbag", "backpack")
TOPS = ("tshirt", "shirt", "sweater", "hoodie", "tanktop", "blouse")
BOTTOMS = ("trousers", "jeans", "shorts", "skirt", "leggings")
DRESSES = ("dress",)
OUTERS = ("coat", "jacket", "blazer", "vest")
PATTERNS = ("plain", "stripes", "checks", "dots", "print")
NECKLINES = ("crew", "vee", "round", "collar", "turtle")

ClothColor = Annotated[Color, Palette(COLORS)]


_BLACK, _WHITE, _NAVY, _BLUE = (Color(name, COLORS[name]) for name in ("black", "white", "navy", "blue"))


@dataclass(frozen=True, slots=True)
class HairStyle(Value):
    """How the hair is cut, combed and colored."""

    style: Annotated[str, OneOf(HAIR_STYLES)] = "short"
    #: Of the hair on the side of the head, in meters.
    length_m: Annotated[float, Range(0, 0.8)] = 0.05
    #: Where the hair parts: -1 far on the person's right (image left when facing the camera), 0 in the middle, 1 on
    #: the person's left.
    parting: Signed = 0.0
    volume: Unit = 0.5
    #: 0 combed off the forehead, 1 down to the brows.
    fringe: Unit = 0.3
    #: Dye; None is the natural color. `hair_color` gives the color to see.
    color: Annotated[Color, Palette(DYED_COLORS)] | None = None


@dataclass(frozen=True, slots=True)
class FacialHair(Value):
    """The beard. Where it grows densely is the person's (`Person.beard_density`)."""

    style: Annotated[str, OneOf(BEARD_STYLES)] = "none"
    #: Meters.
    length_m: Annotated[float, Range(0, 0.3)] = 0.0


@dataclass(frozen=True, slots=True)
class MakeUp(Value):
    """Make-up: colors that are None are not worn."""

    lipstick: Annotated[Color, Palette(LIP_COLORS)] | None = None
    lipstick_strength: Unit = 0.7
    #: On the upper eyelid.
    shadow: Annotated[Color, Palette(SHADOW_COLORS)] | None = None
    shadow_strength: Unit = 0.6
    blush: Unit = 0.0
    #: Dark line along the lashes.
    liner: Unit = 0.0


@dataclass(frozen=True, slots=True)
class Glasses(Value):
    """Glasses or sunglasses."""

    style: Annotated[str, OneOf(GLASSES_STYLES)] = "rect"
    color: ClothColor = _BLACK
    #: Of the lenses: 0 clear, 1 black.
    tint: Unit = 0.0
    #: Of the rim: 0 wire, 1 chunky.
    thickness: Unit = 0.4


@dataclass(frozen=True, slots=True)
class Hat(Value):
    """Something worn on the head."""

    kind: Annotated[str, OneOf(HAT_KINDS)] = "cap"
    color: ClothColor = _NAVY


@dataclass(frozen=True, slots=True)
class Bag(Value):
    """A bag."""

    kind: Annotated[str, OneOf(BAG_KINDS)] = "backpack"
    color: ClothColor = _BLACK


@dataclass(frozen=True, slots=True)
class Garment(Value):
    """One piece of clothing."""

    kind: Annotated[str, OneOf(TOPS + BOTTOMS + DRESSES + OUTERS)] = "tshirt"
    color: ClothColor = _WHITE
    #: Of the pattern; a plain garment does not show it.
    color2: ClothColor = _NAVY
    pattern: Annotated[str, OneOf(PATTERNS)] = "plain"
    #: Period of the pattern in meters.
    scale_m: Annotated[float, Range(0.005, 0.3)] = 0.04
    #: 0 none, 0.35 above the elbow, 1 to the wrist. Of no meaning for what has no sleeves.
    sleeve: Unit = 0.35
    #: Tops: 0 cropped, 1 over the hips. Bottoms and dresses: 0 top of the thigh, 0.5 knee, 1 ankle. Outers: 0 waist,
    #: 1 calf.
    length: Unit = 0.5
    neckline: Annotated[str, OneOf(NECKLINES)] = "crew"
    #: 0 tight, 1 loose.
    fit: Unit = 0.4


@dataclass(frozen=True, slots=True)
class Look(Value):
    """What somebody has made of themselves today."""

    hair: HairStyle = field(default_factory=HairStyle)
    beard: FacialHair = field(default_factory=FacialHair)
    makeup: MakeUp = field(default_factory=MakeUp)
    glasses: Glasses | None = None
    hat: Hat | None = None
    #: A face mask over nose, mouth and chin.
    mask: ClothColor | None = None
    #: Around the neck.
    scarf: ClothColor | None = None
    #: Not worn under a dress.
    top: Garment = field(default_factory=Garment)
    #: Not worn under a dress.
    bottom: Garment = field(default_factory=lambda: Garment(kind="jeans", color=_BLUE, length=1.0))
    #: Over everything else.
    outer: Garment | None = None
    #: Takes the place of top and bottom.
    dress: Garment | None = None
    shoes: ClothColor = _BLACK
    bag: Bag | None = None

    def __post_init__(self) -> None:
        Value.__post_init__(self)
        places = (("top", TOPS), ("bottom", BOTTOMS), ("outer", OUTERS), ("dress", DRESSES))
        for name, kinds in places:
            garment = getattr(self, name)
            if garment is not None and garment.kind not in kinds:
                raise WorldError(f"Look.{name} is a {garment.kind}; it must be one of {', '.join(kinds)}.")


def hair_color(person: Person, look: Look) -> Color:
    """The color that the hair of the head shows: dye, or the natural color with its share of gray, then white."""
    if look.hair.color is not None:
        return look.hair.color
    return _grayed(person.hair.color, person.hair.gray)


def beard_color(person: Person) -> Color:
    """The color that the beard shows. It is not dyed, a little darker than the hair, and grays a little before it."""
    natural = person.hair.color
    darker = Color(natural.name, mix(natural.rgb, (0.0, 0.0, 0.0), 0.15))
    return _grayed(darker, clip(1.15 * person.hair.gray, 0, 1))


def _grayed(natural: Color, gray: float) -> Color:
    # The last third of graying leads from gray to white.
    toward = mix(GRAY_HAIR, WHITE_HAIR, clip((gray - 0.65) / 0.35, 0, 1))
    name = "white" if gray > 0.9 else "gray" if gray > 0.55 else natural.name
    return Color(name, mix(natural.rgb, toward, gray))


def look(
    n: int,
    person: Person,
    *,
    fix: Mapping[str, Any] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Look:
    """Look number n of a person.

    Drawn under the number of the person as well, so Look 0 of two people differs; and suited to the person: beards
    where they grow, make-up not on children, hair as long as the hairline allows. Nothing of it tells for certain who
    wears it.

    Parameters
    ----------
    n
        Which Look of the person: 0, 1, 2, ….
    person
        Whose.
    fix
        Fields by dotted path, such as ``{"hair.style": "long", "glasses": None, "top.color": "red"}``. Something
        inside an optional part (``"hat.kind"``) puts the part on.
    ranges
        ``(low, high)`` by dotted path of a number.
    """
    draws = Draws(Look, ("look", person.number, n), fix, ranges)
    male = person.gender
    grown = clip((person.age - 13) / 5, 0, 1)
    # From day to day people mostly keep the length of their hair and their beard, and who needs glasses mostly wears
    # the same pair.
    habits = Draws(Look, ("habit", person.number), fix, ranges)
    long_haired, short_sighted, bearded = habits.uniforms("habit", 3)
    needs_glasses = short_sighted < 0.26 + 0.22 * (person.age > 55)
    usual_pair = needs_glasses and draws.uniforms("glasses as ever", 1)[0] < 0.75
    return Look(
        hair=_hair(draws, person, long_haired),
        beard=_beard(habits if draws.uniforms("beard as ever", 1)[0] < 0.75 else draws, person, bearded),
        makeup=_makeup(draws, (1 - male) ** 2 * grown),
        glasses=_glasses(habits if usual_pair else draws, person, 0.0 if usual_pair else 0.2 if needs_glasses else 1.0)
        if draws.present("glasses", 0.93 if needs_glasses else 0.05)
        else None,
        hat=_hat(draws) if draws.present("hat", 0.07) else None,
        mask=_cloth_color(draws, "mask", _MASK_COLORS) if draws.present("mask", 0.05) else None,
        scarf=_cloth_color(draws, "scarf") if draws.present("scarf", 0.07) else None,
        top=_garment(draws, "top", _top_weights(male)),
        bottom=_garment(draws, "bottom", _bottom_weights(male)),
        outer=_garment(draws, "outer", _OUTER_WEIGHTS) if draws.present("outer", 0.26) else None,
        dress=_garment(draws, "dress", {"dress": 1.0}) if draws.present("dress", 0.24 * (1 - male) ** 4) else None,
        shoes=_cloth_color(draws, "shoes", _SHOE_COLORS),
        bag=_bag(draws, male, grown) if draws.present("bag", 0.24) else None,
    )


#: How often a cloth color is worn; the plainer ones more, none so much that it says who somebody is.
_CLOTH_COLORS: dict[str, float] = {
    "black": 1.4,
    "white": 1.3,
    "gray": 1.1,
    "navy": 1.1,
    "blue": 1.2,
    "red": 1.1,
} | {name: 0.7 for name in COLORS if name not in ("black", "white", "gray", "navy", "blue", "red")}
_JEANS_COLORS: dict[str, float] = {"blue": 0.4, "navy": 0.3, "light blue": 0.15, "black": 0.15}
_MASK_COLORS: dict[str, float] = {"light blue": 0.45, "white": 0.2, "black": 0.25, "pink": 0.1}
_SHOE_COLORS: dict[str, float] = {"black": 0.35, "white": 0.25, "brown": 0.2, "red": 0.06, "blue": 0.07, "gray": 0.07}
_RIM_COLORS: dict[str, float] = {"black": 0.45, "brown": 0.2, "gray": 0.12, "red": 0.08, "blue": 0.08, "white": 0.07}
_OUTER_WEIGHTS: dict[str, float] = {"coat": 0.3, "jacket": 0.35, "blazer": 0.2, "vest": 0.15}


def _hair(draws: Draws, person: Person, habit: float) -> HairStyle:
    male, curl = person.gender, person.hair.curl
    bald = 0.02 + 0.05 * male * (person.age > 18) + 0.9 * clip((person.hair.recession - 0.5) / 0.5, 0, 1)
    weights = {
        "bald": bald,
        "buzz": 0.02 + 0.2 * male,
        "short": 0.16 + 0.5 * male,
        "wavy": 0.2 * (1.1 - abs(curl - 0.35)),
        "curly": 0.05 + 0.4 * curl * curl,
        "long": 0.04 + 0.36 * (1 - male),
        "tied": 0.02 + 0.24 * (1 - male),
    }
    cropped = sum(weights[name] for name in _CROPPED)
    keeps_short = habit * sum(weights.values()) < cropped
    weights = {name: w * (1 if (name in _CROPPED) == keeps_short else 0.1) for name, w in weights.items()}
    style = draws.choice("hair.style", weights)
    low, high = _HAIR_LENGTHS[style]
    # Lengths are skewed to the short end, longer on average for women.
    power = 1.0 + 0.8 * male
    dyed = draws.present("hair.color", 0.07 * clip((person.age - 14) / 4, 0, 1))
    return HairStyle(
        style=style,
        length_m=draws.number("hair.length_m", lambda u: low + (high - low) * u**power),
        parting=draws.number("hair.parting", lambda u: 0.0 if 0.4 < u < 0.6 else clip(2.2 * (u - 0.5), -0.9, 0.9)),
        volume=draws.normal("hair.volume", 0.35 + 0.25 * curl, 0.17, 0, 1),
        fringe=draws.number("hair.fringe", lambda u: (1 - person.hair.recession) * clip(1.6 * u - 0.6, 0, 1)),
        color=draws.color("hair.color", DYED_COLORS, _DYE_WEIGHTS) if dyed else None,
    )


_CROPPED = ("bald", "buzz", "short")
#: Lowest and highest length in meters by hair style.
_HAIR_LENGTHS: dict[str, tuple[float, float]] = {
    "bald": (0.0, 0.0),
    "buzz": (0.003, 0.012),
    "short": (0.03, 0.09),
    "wavy": (0.1, 0.32),
    "curly": (0.06, 0.25),
    "long": (0.28, 0.55),
    "tied": (0.25, 0.5),
}
_DYE_WEIGHTS: dict[str, float] = {
    "blond": 3.0,
    "red": 2.0,
    "auburn": 2.0,
    "black": 2.0,
    "dark brown": 1.0,
    "pink": 1.0,
    "blue": 1.0,
    "green": 0.5,
    "purple": 1.0,
}
_BEARD_LENGTHS: dict[str, tuple[float, float]] = {
    "none": (0.0, 0.0),
    "stubble": (0.001, 0.003),
    "moustache": (0.006, 0.015),
    "goatee": (0.008, 0.03),
    "full": (0.01, 0.06),
}


def _beard(draws: Draws, person: Person, habit: float) -> FacialHair:
    # Below 0.2 nothing grows that could be worn.
    grows = clip((person.beard_density - 0.2) / 0.5, 0, 1)
    weights = {
        "none": 1.0 if grows == 0 else 0.5,
        "stubble": 0.3 * min(1.0, 2 * grows),
        "moustache": 0.14 * grows,
        "goatee": 0.16 * grows,
        "full": 0.4 * grows,
    }
    shaves = habit * sum(weights.values()) < weights["none"] + weights["stubble"]
    weights = {name: w * (1 if (name in ("none", "stubble")) == shaves else 0.1) for name, w in weights.items()}
    style = draws.choice("beard.style", weights)
    low, high = _BEARD_LENGTHS[style]
    return FacialHair(style=style, length_m=draws.number("beard.length_m", lambda u: low + (high - low) * u * u))


def _makeup(draws: Draws, likely: float) -> MakeUp:
    worn = draws.uniforms("makeup?", 1)[0] < 0.6 * likely
    lipstick = draws.present("makeup.lipstick", 0.7 * worn)
    shadow = draws.present("makeup.shadow", 0.45 * worn)
    return MakeUp(
        lipstick=draws.color("makeup.lipstick", LIP_COLORS, dict.fromkeys(LIP_COLORS, 1.0) | {"red": 2.0, "pink": 2.0})
        if lipstick
        else None,
        lipstick_strength=draws.uniform("makeup.lipstick_strength", 0.35, 0.8),
        shadow=draws.color("makeup.shadow", SHADOW_COLORS, dict.fromkeys(SHADOW_COLORS, 1.0)) if shadow else None,
        shadow_strength=draws.uniform("makeup.shadow_strength", 0.3, 0.7),
        blush=draws.number("makeup.blush", lambda u: 0.7 * u * worn),
        liner=draws.number("makeup.liner", lambda u: clip(1.6 * u - 0.6, 0, 1) * worn),
    )


def _glasses(draws: Draws, person: Person, sunglasses: float) -> Glasses:
    weights = {
        "round": 0.2,
        "rect": 0.32,
        "aviator": 0.1,
        "cateye": 0.03 + 0.12 * (1 - person.gender),
        "halfrim": 0.12,
        "sunglasses": sunglasses,
    }
    style = draws.choice("glasses.style", weights)
    dark = style == "sunglasses"
    return Glasses(
        style=style,
        color=draws.color("glasses.color", COLORS, _RIM_COLORS),
        tint=draws.number("glasses.tint", lambda u: 0.75 + 0.22 * u if dark else 0.12 * u * u),
        thickness=draws.normal("glasses.thickness", 0.4, 0.2, 0.05, 1),
    )


def _hat(draws: Draws) -> Hat:
    weights = {"cap": 0.36, "beanie": 0.27, "brim": 0.2, "headscarf": 0.1, "helmet": 0.07}
    return Hat(kind=draws.choice("hat.kind", weights), color=_cloth_color(draws, "hat.color"))


def _bag(draws: Draws, male: float, grown: float) -> Bag:
    weights = {"handbag": 0.02 + 0.55 * (1 - male) * grown, "backpack": 0.5}
    return Bag(kind=draws.choice("bag.kind", weights), color=_cloth_color(draws, "bag.color"))


def _top_weights(male: float) -> dict[str, float]:
    weights = {"tshirt": 0.3, "shirt": 0.2, "sweater": 0.2, "hoodie": 0.14, "tanktop": 0.06}
    return weights | {"blouse": 0.2 * (1 - male) ** 2}


def _bottom_weights(male: float) -> dict[str, float]:
    weights = {"trousers": 0.38, "jeans": 0.36, "shorts": 0.12}
    return weights | {"skirt": 0.2 * (1 - male) ** 4, "leggings": 0.12 * (1 - male) ** 2}


#: By kind: lowest and highest sleeve, lowest and highest length, necklines, mean fit.
_CUTS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[str, ...], float]] = {
    "tshirt": ((0.22, 0.42), (0.45, 0.8), ("crew", "vee", "round"), 0.45),
    "shirt": ((0.35, 1.0), (0.55, 0.85), ("collar",), 0.45),
    "sweater": ((0.9, 1.0), (0.5, 0.8), ("crew", "vee", "turtle"), 0.55),
    "hoodie": ((0.9, 1.0), (0.55, 0.85), ("crew",), 0.65),
    "tanktop": ((0.0, 0.0), (0.4, 0.75), ("round", "vee"), 0.35),
    "blouse": ((0.3, 1.0), (0.45, 0.75), ("round", "vee", "collar"), 0.5),
    "trousers": ((0.0, 0.0), (0.92, 1.0), ("crew",), 0.45),
    "jeans": ((0.0, 0.0), (0.92, 1.0), ("crew",), 0.35),
    "shorts": ((0.0, 0.0), (0.25, 0.5), ("crew",), 0.5),
    "skirt": ((0.0, 0.0), (0.25, 0.9), ("crew",), 0.5),
    "leggings": ((0.0, 0.0), (0.88, 1.0), ("crew",), 0.08),
    "dress": ((0.0, 1.0), (0.3, 0.95), ("round", "vee", "collar"), 0.4),
    "coat": ((1.0, 1.0), (0.55, 0.95), ("collar",), 0.55),
    "jacket": ((1.0, 1.0), (0.1, 0.35), ("collar", "crew"), 0.55),
    "blazer": ((1.0, 1.0), (0.25, 0.4), ("collar",), 0.4),
    "vest": ((0.0, 0.0), (0.05, 0.2), ("vee",), 0.4),
}
#: Kinds that come in one color only.
_PLAIN = frozenset({"jeans", "leggings", "hoodie"})


def _garment(draws: Draws, path: str, kinds: Mapping[str, float]) -> Garment:
    kind = draws.choice(f"{path}.kind", kinds)
    # An impossible fixed kind is refused by Look, which can say what is allowed there.
    sleeves, lengths, necklines, fit = _CUTS[kind]
    plain = 1.0 if kind in _PLAIN else 0.8 if kind in BOTTOMS + OUTERS else 0.5
    patterned = 1 - plain
    patterns = {"plain": plain, "stripes": 0.34, "checks": 0.26, "dots": 0.18, "print": 0.22}
    color = _cloth_color(draws, f"{path}.color", _JEANS_COLORS if kind == "jeans" else _CLOTH_COLORS)
    # A pattern in the color of its ground would not be seen.
    others = {
        name: weight for name, weight in _CLOTH_COLORS.items() if name not in _CLOSE.get(color.name, (color.name,))
    }
    return Garment(
        kind=kind,
        color=color,
        color2=_cloth_color(draws, f"{path}.color2", others),
        pattern=draws.choice(
            f"{path}.pattern", {name: w if name == "plain" else w * patterned for name, w in patterns.items()}
        ),
        scale_m=draws.number(f"{path}.scale_m", lambda u: 0.02 * 5**u),
        sleeve=draws.uniform(f"{path}.sleeve", *sleeves),
        length=draws.uniform(f"{path}.length", *lengths),
        neckline=draws.choice(f"{path}.neckline", dict.fromkeys(necklines, 1.0)),
        fit=draws.normal(f"{path}.fit", fit, 0.15, 0, 1),
    )


#: Colors too close to each other to make a pattern.
_CLOSE: dict[str, tuple[str, ...]] = {
    "black": ("black", "navy", "burgundy", "brown"),
    "navy": ("navy", "black", "blue", "purple"),
    "blue": ("blue", "navy", "purple"),
    "purple": ("purple", "navy", "blue", "burgundy"),
    "brown": ("brown", "black", "olive", "burgundy"),
    "burgundy": ("burgundy", "black", "red", "brown", "purple"),
    "red": ("red", "burgundy", "orange"),
    "orange": ("orange", "red", "yellow"),
    "white": ("white", "beige"),
    "beige": ("beige", "white"),
    "gray": ("gray", "olive"),
    "olive": ("olive", "gray", "brown", "green"),
    "green": ("green", "olive", "turquoise"),
    "turquoise": ("turquoise", "green", "light blue"),
    "light blue": ("light blue", "turquoise"),
    "yellow": ("yellow", "orange"),
}


def _cloth_color(draws: Draws, path: str, weights: Mapping[str, float] = _CLOTH_COLORS) -> Color:
    return draws.color(path, COLORS, weights)
