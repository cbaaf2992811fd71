"""The one vocabulary of attributes: what they are called, what values they take, what hides them.

The names and values are those of the world's facts (`ipse.world.caption.facts`), so that what is drawn, what is told in
captions, what networks learn and what they tell of photographs are the same words. A network may put several values
together under `Attribute.otherwise`, such as all kinds of glasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rest:
    """All values of an attribute but some.

    Attributes
    ----------
    name, words
        What it is called, and how it is said.
    but
        The values it does not stand for.
    """

    name: str
    words: str
    but: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """Something that can be seen of a face.

    Attributes
    ----------
    label
        What people call it.
    of
        Whether it goes with the person, the day's look, or the picture.
    values
        What it may be, and how that is said; empty for what is only told as a number.
    otherwise
        What a network calls several values that it does not tell apart.
    unit
        Of a number.
    hidden_by
        Other attributes, each with the value that hides this one from sight.
    """

    label: str
    of: Literal["person", "look", "shot"]
    values: Mapping[str, str]
    otherwise: Rest | None = None
    unit: str = ""
    hidden_by: tuple[tuple[str, str], ...] = ()

    def said(self, value: str) -> str:
        """A value in words that need no label, such as ``brown eyes``."""
        if self.otherwise and value == self.otherwise.name:
            return self.otherwise.words
        return self.values[value]


def _each(noun: str, *names: str) -> dict[str, str]:
    return {name: f"{name} {noun}" for name in names}


_BEHIND_MASK = (("mask", "yes"),)
_HATS = {
    "cap": "a cap",
    "beanie": "a beanie",
    "brimmed hat": "a brimmed hat",
    "headscarf": "a headscarf",
    "helmet": "a helmet",
}
_UNDER_HAT = tuple(("hat", kind) for kind in ("worn", *_HATS))

VOCABULARY: dict[str, Attribute] = {
    "gender": Attribute("gender", "person", {"female": "a woman or girl", "male": "a man or boy"}),
    "age": Attribute("age", "person", {}, unit="years"),
    "age_group": Attribute(
        "age group",
        "person",
        {
            "child": "a child",
            "teen": "a teenager",
            "young": "a young adult",
            "middle": "somebody middle-aged",
            "elder": "an elderly person",
        },
    ),
    "skin_tone": Attribute(
        "skin tone", "person", _each("skin", "light", "medium", "dark"), unit="of 10 on the Monk scale"
    ),
    "eye_color": Attribute(
        "eye color",
        "person",
        _each("eyes", "brown", "hazel", "blue", "green", "gray"),
        Rest("light", "eyes lighter than brown", ("brown",)),
        hidden_by=(("glasses", "sunglasses"), ("expression", "closed_eyes")),
    ),
    "freckles": Attribute("freckles", "person", {"yes": "freckles"}),
    "hairline": Attribute("hairline", "person", {"receding": "a receding hairline"}, hidden_by=_UNDER_HAT),
    "hair_color": Attribute(
        "hair color",
        "look",
        _each(
            "hair",
            *("black", "dark brown", "brown", "light brown", "blond", "auburn", "red", "gray", "white"),
            *("pink", "blue", "green", "purple"),
        ),
        hidden_by=_UNDER_HAT,
    ),
    "hair_style": Attribute(
        "hair style",
        "look",
        {
            "bald": "a bald head",
            "buzz": "cropped hair",
            **_each("hair", "short", "wavy", "curly", "long"),
            "tied": "hair tied back",
        },
        hidden_by=_UNDER_HAT,
    ),
    "hair_length": Attribute("hair length", "look", _each("hair", "short", "long"), hidden_by=_UNDER_HAT),
    "beard": Attribute(
        "beard",
        "look",
        {
            "none": "no beard",
            "stubble": "stubble",
            "moustache": "a mustache",
            "goatee": "a goatee",
            "full": "a full beard",
        },
        Rest("worn", "a beard", ("none",)),
        hidden_by=_BEHIND_MASK,
    ),
    "lipstick": Attribute(
        "lipstick",
        "look",
        _each("lipstick", "red", "pink", "brown", "burgundy", "coral", "purple"),
        hidden_by=_BEHIND_MASK,
    ),
    "eye_shadow": Attribute("eye shadow", "look", _each("eye shadow", "blue", "green", "purple", "pink", "gold")),
    "glasses": Attribute(
        "glasses",
        "look",
        {
            "none": "no glasses",
            "round": "round glasses",
            "rect": "rectangular glasses",
            "aviator": "aviator glasses",
            "cateye": "cat-eye glasses",
            "halfrim": "half-rim glasses",
            "clear": "clear glasses",
            "sunglasses": "sunglasses",
        },
        Rest("worn", "glasses", ("none",)),
    ),
    "hat": Attribute("hat", "look", {"none": "no hat", **_HATS}, Rest("worn", "a hat", ("none",))),
    "mask": Attribute("mask", "look", {"no": "no mask", "yes": "a mask"}),
    "scarf": Attribute("scarf", "look", {"no": "no scarf", "yes": "a scarf"}),
    "expression": Attribute(
        "expression",
        "shot",
        {
            "neutral": "a neutral expression",
            "smile": "a smile",
            "big_smile": "a broad smile",
            "smirk": "a smirk",
            "surprise": "surprise",
            "anger": "anger",
            "sad": "sadness",
            "disgust": "disgust",
            "fear": "fear",
            "wink": "a wink",
            "squint": "a squint",
            "talk": "talking",
            "open_mouth": "an open mouth",
            "pucker": "puckered lips",
            "cheek_puff": "puffed-out cheeks",
            "tongue_out": "the tongue out",
            "closed_eyes": "closed eyes",
        },
        Rest("other", "another expression", ("neutral", "smile", "big_smile")),
        hidden_by=_BEHIND_MASK,
    ),
    "quality": Attribute("quality", "shot", _each("picture", "blurry", "grainy", "low-resolution", "black-and-white")),
    "yaw": Attribute("head turned", "shot", {}, unit="degrees"),
    "pitch": Attribute("head raised", "shot", {}, unit="degrees"),
}
"""All attributes by name. Of numbers, ``yaw`` is positive where the face points to the image's right edge, ``pitch``
where it is raised."""


@dataclass(frozen=True)
class Says:
    """What of ours says the same as a CelebA attribute.

    Attributes
    ----------
    attribute
        Ours, a name of `VOCABULARY`.
    values
        Those that mean yes; with `negated`, those that mean no.
    negated
        See `values`.
    below
        Of a number: yes below it.
    """

    attribute: str
    values: tuple[str, ...] = ()
    negated: bool = False
    below: float | None = None

    def told(self, value: str | float) -> bool | None:
        """Yes or no for a value of ours; None where the value stands for some of both."""
        if self.below is not None:
            return float(value) < self.below
        rest = VOCABULARY[self.attribute].otherwise
        if rest and value == rest.name:
            return self.negated if set(self.values) <= set(rest.but) else None
        return (value in self.values) != self.negated


CELEBA: dict[str, Says | None] = {
    "5_o_Clock_Shadow": Says("beard", ("stubble",)),
    "Arched_Eyebrows": None,
    "Attractive": None,
    "Bags_Under_Eyes": None,
    "Bald": Says("hair_style", ("bald",)),
    "Bangs": None,
    "Big_Lips": None,
    "Big_Nose": None,
    "Black_Hair": Says("hair_color", ("black",)),
    "Blond_Hair": Says("hair_color", ("blond",)),
    "Blurry": Says("quality", ("blurry",)),
    "Brown_Hair": Says("hair_color", ("dark brown", "brown", "light brown")),
    "Bushy_Eyebrows": None,
    "Chubby": None,
    "Double_Chin": None,
    "Eyeglasses": Says("glasses", ("none",), negated=True),
    "Goatee": Says("beard", ("goatee",)),
    "Gray_Hair": Says("hair_color", ("gray", "white")),
    "Heavy_Makeup": None,
    "High_Cheekbones": None,
    "Male": Says("gender", ("male",)),
    "Mouth_Slightly_Open": None,
    "Mustache": Says("beard", ("moustache",)),
    "Narrow_Eyes": None,
    "No_Beard": Says("beard", ("none",)),
    "Oval_Face": None,
    "Pale_Skin": None,
    "Pointy_Nose": None,
    "Receding_Hairline": Says("hairline", ("receding",)),
    "Rosy_Cheeks": None,
    "Sideburns": None,
    "Smiling": Says("expression", ("smile", "big_smile")),
    "Straight_Hair": None,
    "Wavy_Hair": Says("hair_style", ("wavy",)),
    "Wearing_Earrings": None,
    "Wearing_Hat": Says("hat", ("none",), negated=True),
    "Wearing_Lipstick": Says("lipstick", negated=True),  # any color
    "Wearing_Necklace": None,
    "Wearing_Necktie": None,
    "Young": Says("age", below=40),
}
"""The 40 attributes of CelebA (Liu et al., 2015), and what of ours says the same; None where nothing does."""


def celeba_labels(values: Mapping[str, str | float]) -> dict[str, bool]:
    """What values of ours by name say in CelebA's words; attributes that they leave open are absent."""
    out = {}
    for name, says in CELEBA.items():
        if says and says.attribute in values and (label := says.told(values[says.attribute])) is not None:
            out[name] = label
    return out
