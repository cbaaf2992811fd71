"""Captions: what a picture shows, first as facts, then in English.

`facts` decides what the picture shows; `captions` only puts these facts into words. Left and right are those of the
image: somebody "turned to the left" faces its left edge.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipse.errors import WorldError
from ipse.world.draws import Draws
from ipse.world.look import Garment, Look, hair_color
from ipse.world.parts import LABELS
from ipse.world.person import Person, age_group, gender_presentation, skin_group
from ipse.world.shot import EXPRESSIONS, FRAMINGS, Shot, apparent_yaw, body_yaw
from ipse.world.values import unknown

Visible = Mapping[str, float] | Collection[str]

#: The share of the picture's pixels a label needs before a caption speaks of it; others need `_LEAST_OTHER`.
_LEAST: dict[str, float] = {
    "background": 0.05,
    "hair": 0.002,
    "top": 0.01,
    "bottom": 0.01,
    "dress": 0.01,
    "coat": 0.01,
    "occluder": 0.01,
}
_LEAST_OTHER = 0.0008

#: Tint of lenses from which on the eyes behind them are hidden.
_DARK = 0.4

#: What of the face must be seen for an expression to be told; the others need the mouth only.
_EYES_TELL = frozenset({"wink", "squint", "closed_eyes"})
_BOTH_TELL = frozenset({"neutral", "surprise", "anger", "sad", "disgust", "fear"})

#: Expressions whose place in a sentence is that of an action …
_ACTING: dict[str, str] = {
    "smile": "smiling",
    "big_smile": "smiling broadly",
    "smirk": "smirking",
    "surprise": "looking surprised",
    "anger": "looking angry",
    "sad": "looking sad",
    "disgust": "looking disgusted",
    "fear": "looking frightened",
    "wink": "winking",
    "squint": "squinting",
    "talk": "talking",
}
#: … and those that are something one has.
_HAVING: dict[str, str] = {
    "neutral": "a neutral expression",
    "open_mouth": "an open mouth",
    "pucker": "puckered lips",
    "cheek_puff": "puffed-out cheeks",
    "tongue_out": "the tongue out",
    "closed_eyes": "closed eyes",
}
_TALKING = ("talk_a", "talk_e", "talk_o")
#: Too little of an expression to be seen for certain.
_UNTOLD = ("talk_m",)

_GLASSES: dict[str, str] = {
    "round": "round glasses",
    "rect": "rectangular glasses",
    "aviator": "aviator glasses",
    "cateye": "cat-eye glasses",
    "halfrim": "half-rim glasses",
    "sunglasses": "sunglasses",
    "clear": "glasses",
}
_HATS: dict[str, str] = {
    "cap": "cap",
    "beanie": "beanie",
    "brim": "brimmed hat",
    "headscarf": "headscarf",
    "helmet": "helmet",
}
_BEARDS: dict[str, str] = {
    "stubble": "stubble",
    "moustache": "a mustache",
    "goatee": "a goatee",
    "full": "a full beard",
}
_GARMENTS: dict[str, str] = {"tshirt": "T-shirt", "tanktop": "tank top"}
#: Words that are plural and take no article.
_PLURAL = frozenset({"trousers", "jeans", "shorts", "leggings", "shoes"})
_EYE_COLORS: dict[str, str] = {"dark brown": "brown", "amber": "brown"}
_POSES: dict[str, str] = {
    "standing": "standing",
    "walking": "walking",
    "sitting": "sitting",
    "arms_crossed": "standing with arms crossed",
    "arms_up": "raising both arms",
    "hands_on_hips": "standing with hands on hips",
    "one_hand_raised": "raising one hand",
    "hands_in_pockets": "standing with hands in pockets",
}
_PLACES: dict[str, str] = {
    "studio": "in a studio",
    "room": "in a room",
    "office": "in an office",
    "shelf": "in front of a bookshelf",
    "street": "on a street",
    "park": "in a park",
    "sky": "against the sky",
    "bokeh": "in front of blurred lights",
}
_OCCLUDERS: dict[str, str] = {"hand": "a hand", "cup": "cup", "phone": "phone", "bar": "bar", "leaf": "a leaf"}
_SUBJECTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("child", "female"): ("girl", "young girl"),
    ("child", "male"): ("boy", "young boy"),
    ("child", "unclear"): ("child",),
    ("teen", "female"): ("teenage girl",),
    ("teen", "male"): ("teenage boy",),
    ("teen", "unclear"): ("teenager",),
    ("young", "female"): ("young woman",),
    ("young", "male"): ("young man",),
    ("young", "unclear"): ("young person",),
    ("middle", "female"): ("middle-aged woman",),
    ("middle", "male"): ("middle-aged man",),
    ("middle", "unclear"): ("middle-aged person",),
    ("elder", "female"): ("elderly woman", "older woman"),
    ("elder", "male"): ("elderly man", "older man"),
    ("elder", "unclear"): ("elderly person", "older person"),
    ("unclear", "female"): ("woman",),
    ("unclear", "male"): ("man",),
    ("unclear", "unclear"): ("person",),
}
#: (subject, possessive, "is", "has") by gender.
_PRONOUNS: dict[str, tuple[str, str, str, str]] = {
    "female": ("she", "her", "is", "has"),
    "male": ("he", "his", "is", "has"),
    "unclear": ("they", "their", "are", "have"),
}
_NOUNS: dict[str, tuple[str, ...]] = {
    "portrait": ("close-up portrait", "portrait", "headshot", "close-up photo"),
    "bust": ("photo", "picture", "portrait"),
    "person": ("full-length photo", "full-body picture", "photo"),
    "ear": ("close-up", "close-up photo", "close-up picture"),
}


def article(phrase: str) -> str:
    """The phrase with `a` or `an` before it."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def join(items: Sequence[str]) -> str:
    """Items as an English list, with the comma before the last `and`."""
    if len(items) < 3:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def subjects() -> tuple[str, ...]:
    """All words that captions have for a person, without articles, such as ``young woman``."""
    return tuple(dict.fromkeys(words for options in _SUBJECTS.values() for words in options))


def subject(known: Mapping[str, str]) -> str:
    """Who somebody with these facts is in a caption, such as ``a young woman``; only age group and gender count."""
    group = known.get("age_group", "unclear"), known.get("gender", "unclear")
    if group not in _SUBJECTS:
        raise WorldError(f"Nobody is {' and '.join(group)}; see `facts` for age groups and genders.")
    return article(_SUBJECTS[group][0])


def shown_expression(shot: Shot) -> str | None:
    """The named expression that the facial actions show, whatever the Shot calls it; None where none is clear."""
    for name in (shot.mood, *EXPRESSIONS):
        if name in EXPRESSIONS and _shows(shot.expression, EXPRESSIONS[name]):
            return name
    return None


def _shows(actions: Mapping[str, float], preset: Mapping[str, float]) -> bool:
    return all(actions.get(action, 0.0) >= 0.5 * wanted for action, wanted in preset.items() if wanted >= 0.3) and all(
        strength <= preset.get(action, 0.0) + 0.2 for action, strength in actions.items()
    )


class _Sight:
    """What can be told from the picture, from its framing, the directions in it and (where known) its segmentation."""

    def __init__(self, look: Look, shot: Shot, framing: str, visible: Visible | None) -> None:
        if framing not in FRAMINGS:
            raise unknown("There is no framing called", framing, FRAMINGS)
        for label in visible or ():
            if label not in LABELS:
                raise unknown("There is no segmentation label called", label, LABELS)
        self._visible = visible
        self.framing = framing
        self.yaw = apparent_yaw(shot)
        self.known = visible is not None
        degrade = shot.degrade
        self.colors = degrade.saturation >= 0.35
        self.sharp = degrade.blur_px <= 2.5 and degrade.low_res >= 0.35 and degrade.noise <= 0.12
        near = framing in ("portrait", "bust")
        # Without segmentation nobody knows what an occluder hides, so nothing small is told.
        clear = near and self.sharp and (self.known or shot.occluder is None)
        tinted = look.glasses is not None and look.glasses.tint >= _DARK
        self.front = abs(self.yaw) <= 100
        self.face = near and abs(self.yaw) <= 75 and self.has("face")
        self.mouth = clear and self.face and look.mask is None and self.has("lips")
        self.eyes = clear and self.face and not tinted and self.has("eyes")
        # Closed lids show no eyes to segment; the face around them is enough.
        self.lids = clear and self.face and not tinted

    def has(self, label: str) -> bool:
        """Whether enough of a segmentation class is in the picture, as far as known."""
        if self._visible is None:
            return True
        if isinstance(self._visible, Mapping):
            return self._visible.get(label, 0.0) >= _LEAST.get(label, _LEAST_OTHER)
        return label in self._visible


def facts(person: Person, look: Look, shot: Shot, framing: str, visible: Visible | None = None) -> dict[str, str]:
    """What the picture shows, by name. A fact that cannot be seen is absent.

    Parameters
    ----------
    person, look, shot
        What was rendered.
    framing
        `portrait`, `bust`, `person` or `ear`.
    visible
        The segmentation labels in the picture, as a set or with the share of its pixels. Without it, what may be
        hidden is left out.

    Returns
    -------
    dict
        Any of ``age_group``, ``gender``, ``skin_tone``, ``hair_color``, ``hair_style``, ``hair_length``,
        ``hairline``, ``eye_color``, ``freckles``, ``beard``, ``lipstick``, ``eye_shadow``, ``glasses``, ``hat``,
        ``hat_color``, ``mask_color``, ``scarf_color``, ``expression``, ``head``, ``head_pitch``, ``head_tilt``,
        ``gaze``, ``ear_side``, ``pose``, ``view``, ``bag``, ``bag_color``, ``shoes_color``, ``light_side``,
        ``light_tone``, ``background``, ``background_color``, ``occluder``, ``occluder_color``, ``quality``; and for
        each of ``top``, ``bottom``, ``dress``, ``coat`` its kind, ``_color``, ``_color2``, ``_pattern`` and
        ``_length``. ``glasses``, ``hat`` and ``beard`` are ``none`` where the picture shows that there is none.
    """
    sight = _Sight(look, shot, framing, visible)
    found: dict[str, str] = {}
    found |= _who(person, sight)
    found |= _head_facts(person, look, sight)
    if framing != "ear":
        found |= _face_facts(person, look, shot, sight)
        found |= _worn(look, shot, sight)
        found |= _directions(shot, sight)
    elif abs(sight.yaw) > 30:
        # A face that points to the right edge shows its right side.
        found["ear_side"] = "right" if sight.yaw > 0 else "left"
    found |= _surroundings(shot, sight)
    if not sight.colors:
        found = {name: fact for name, fact in found.items() if "color" not in name and name not in _COLORFUL}
    return found


#: Facts that are colors without being called so.
_COLORFUL = frozenset({"skin_tone", "lipstick", "eye_shadow", "light_tone", "freckles"})


def _who(person: Person, sight: _Sight) -> dict[str, str]:
    found: dict[str, str] = {}
    if sight.has("skin") or sight.has("face") or sight.has("ears"):
        found["skin_tone"] = skin_group(person)
    if sight.framing == "ear":
        return found
    if not 0.4 < person.gender < 0.6:
        found["gender"] = gender_presentation(person)
    if sight.front and (sight.framing == "person" or sight.has("face")):
        found["age_group"] = age_group(person)
    elif person.age < 11 and sight.framing == "person":
        # The proportions of a child tell from behind as well.
        found["age_group"] = "child"
    return found


def _head_facts(person: Person, look: Look, sight: _Sight) -> dict[str, str]:
    found: dict[str, str] = {}
    style, length = look.hair.style, look.hair.length_m
    if sight.framing != "ear":
        if look.hat is None:
            found["hat"] = "none"
        elif sight.has("hat"):
            found["hat"] = _HATS[look.hat.kind]
            found["hat_color"] = look.hat.color.name
    if style == "bald":
        if look.hat is None and sight.framing != "ear":
            found["hair_style"] = "bald"
        return found
    covered = look.hat is not None
    # Hair comes out from under a hat where it is long; otherwise only the segmentation can tell.
    hangs = length >= 0.2 and style != "tied"
    hidden = covered and not sight.known and (look.hat.kind in ("headscarf", "helmet") or not hangs)
    if hidden or not sight.has("hair"):
        return found
    found["hair_color"] = hair_color(person, look).name
    if (covered and not hangs) or sight.framing == "ear":
        return found
    found["hair_style"] = style
    if style == "short" or (style == "curly" and length < 0.09):
        found["hair_length"] = "short"
    elif style == "long" or (style in ("wavy", "curly") and length >= 0.24):
        found["hair_length"] = "long"
    frontal = sight.face and abs(sight.yaw) < 60 and not covered
    if style in ("buzz", "short") and person.hair.recession > 0.55 and frontal:
        found["hairline"] = "receding"
    return found


def _face_facts(person: Person, look: Look, shot: Shot, sight: _Sight) -> dict[str, str]:
    found: dict[str, str] = {}
    expression = shown_expression(shot)
    asleep = expression in ("closed_eyes", "squint", "wink")
    near = sight.framing == "portrait"
    if sight.front and (sight.face or sight.framing == "person"):
        if look.glasses is not None:
            # Dark lenses make sunglasses of any frame; at full length only they can be told from none.
            dark = look.glasses.tint >= _DARK
            if sight.has("glasses") and (sight.face or dark):
                clear = "clear" if look.glasses.style == "sunglasses" else look.glasses.style
                found["glasses"] = "sunglasses" if dark else clear
        elif sight.lids:
            found["glasses"] = "none"
    if look.beard.style == "none":
        if sight.mouth:
            found["beard"] = "none"
    elif sight.face and sight.sharp and look.mask is None and person.beard_density >= 0.2 and sight.has("beard"):
        found["beard"] = look.beard.style
    if look.mask is not None and sight.has("mask") and sight.front:
        found["mask_color"] = look.mask.name
    if look.makeup.lipstick is not None and look.makeup.lipstick_strength >= 0.45 and sight.mouth:
        found["lipstick"] = look.makeup.lipstick.name
    if near and sight.eyes and abs(sight.yaw) <= 50:
        if not asleep:
            found["eye_color"] = _EYE_COLORS.get(person.iris.color.name, person.iris.color.name)
        shadow = look.makeup.shadow
        # Brown and gray are the colors of shadows themselves.
        if shadow is not None and look.makeup.shadow_strength >= 0.5 and shadow.name not in ("brown", "gray"):
            found["eye_shadow"] = shadow.name
    bare = near and sight.face and sight.sharp and look.mask is None
    if bare and person.skin.freckles >= 0.45 and person.skin.tone < 5.5:
        found["freckles"] = "yes"
    if expression is not None and _can_tell(expression, sight):
        found["expression"] = "talk" if expression in _TALKING else expression
    return found


def _can_tell(expression: str, sight: _Sight) -> bool:
    if expression in _UNTOLD:
        return False
    if expression in _EYES_TELL:
        # The far eye of a turned head may be hidden.
        return sight.lids and (expression != "wink" or abs(sight.yaw) < 35)
    if expression in _BOTH_TELL:
        return sight.mouth and sight.eyes
    return sight.mouth


def _worn(look: Look, shot: Shot, sight: _Sight) -> dict[str, str]:
    found: dict[str, str] = {}
    # A portrait shows the collar at most: clothes only where the segmentation says so.
    below = sight.framing != "portrait" or sight.known
    if not below:
        return found
    if look.scarf is not None and sight.has("scarf"):
        found["scarf_color"] = look.scarf.name
    closed = look.outer is not None and look.outer.kind != "vest" and not sight.known
    if look.outer is not None and sight.has("coat"):
        found |= _garment("coat", look.outer, sight)
    if look.dress is not None:
        if sight.has("dress") and not closed:
            found |= _garment("dress", look.dress, sight)
    else:
        if sight.has("top") and not closed:
            found |= _garment("top", look.top, sight)
        long_coat = look.outer is not None and look.outer.length > 0.4 and not sight.known
        if sight.framing == "person" and sight.has("bottom") and not long_coat:
            found |= _garment("bottom", look.bottom, sight)
    if sight.framing == "person":
        if sight.has("shoes"):
            found["shoes_color"] = look.shoes.name
        # From the front a backpack shows its straps only.
        behind = look.bag is not None and look.bag.kind == "backpack" and abs(body_yaw(shot)) < 60
        if look.bag is not None and sight.has("bag") and (sight.known or not behind):
            found["bag"] = look.bag.kind
            found["bag_color"] = look.bag.color.name
    return found


def _garment(place: str, garment: Garment, sight: _Sight) -> dict[str, str]:
    # Nobody can tell a dress from a top by its upper half.
    kind = "top" if place == "dress" and sight.framing != "person" else garment.kind
    found = {place: kind}
    # At full length a fine pattern melts into one color that is neither of the two.
    if sight.framing == "person" and garment.pattern != "plain" and garment.scale_m < 0.04:
        return found
    found[f"{place}_color"] = garment.color.name
    if garment.pattern != "plain" and sight.sharp:
        found[f"{place}_pattern"] = garment.pattern
        if garment.pattern != "print":
            found[f"{place}_color2"] = garment.color2.name
    if kind in ("skirt", "dress") and not 0.35 < garment.length < 0.75:
        found[f"{place}_length"] = "short" if garment.length <= 0.35 else "long"
    return found


def _side(angle: float) -> str:
    return "right" if angle > 0 else "left"


def _directions(shot: Shot, sight: _Sight) -> dict[str, str]:
    found: dict[str, str] = {}
    yaw = sight.yaw
    turn = abs(yaw)
    if sight.framing == "person":
        found["pose"] = shot.pose.name
        facing = body_yaw(shot)
        if abs(facing) < 30:
            found["view"] = "front"
        elif abs(facing) > 150:
            found["view"] = "back"
        elif 60 < abs(facing) < 120:
            found["view"] = _side(facing)
        return found
    if turn < 10:
        found["head"] = "facing the camera"
    elif turn < 25:
        found["head"] = f"turned slightly to the {_side(yaw)}"
    elif turn < 60:
        found["head"] = f"turned to the {_side(yaw)}"
    elif turn < 115:
        found["head"] = f"shown in profile facing {_side(yaw)}"
    elif turn > 150:
        found["head"] = "seen from behind"
    pitch = shot.head.pitch - shot.camera.elevation_deg
    if abs(pitch) > 15 and turn < 60:
        found["head_pitch"] = "raised" if pitch > 0 else "lowered"
    roll = shot.head.roll + shot.camera.roll_deg
    # The aligned portrait has the eyes on one level.
    if sight.framing == "bust" and abs(roll) > 11 and turn < 60:
        found["head_tilt"] = _side(roll)
    if sight.framing == "portrait" and sight.eyes and shown_expression(shot) not in ("closed_eyes", "squint"):
        at_yaw, at_pitch = yaw + shot.gaze.yaw, pitch + shot.gaze.pitch
        if turn >= 12 and abs(at_yaw) < 6 and abs(at_pitch) < 8:
            found["gaze"] = "at the camera"
        elif abs(shot.gaze.yaw) >= 15 and abs(at_yaw) > 15 and at_yaw * shot.gaze.yaw > 0:
            found["gaze"] = f"to the {_side(at_yaw)}"
    return found


def _surroundings(shot: Shot, sight: _Sight) -> dict[str, str]:
    found: dict[str, str] = {}
    light, degrade = shot.light, shot.degrade
    around = light.fill + light.ambient
    aside = abs(light.key_azimuth_deg)
    if light.key >= 1.3 * around and abs(light.key_elevation_deg) < 55:
        if 35 <= aside <= 125:
            found["light_side"] = _side(light.key_azimuth_deg)
        elif aside > 140:
            found["light_side"] = "behind"
    if light.key >= around and aside < 125 and not 3600 < light.temperature_k < 7400:
        found["light_tone"] = "warm" if light.temperature_k <= 3600 else "cool"
    background = shot.background
    if sight.framing != "ear" and sight.has("background"):
        single = background.kind in ("plain", "gradient", "wall", "studio")
        found["background"] = "blurred" if background.blur > 0.6 and not single else background.kind
        if single and background.kind != "studio":
            found["background_color"] = background.color.name
    if shot.occluder is not None and sight.known and sight.has("occluder"):
        found["occluder"] = shot.occluder.kind
        if shot.occluder.kind in ("cup", "phone", "bar"):
            found["occluder_color"] = shot.occluder.color.name
    if not sight.colors and degrade.saturation <= 0.1:
        found["quality"] = "black-and-white"
    elif degrade.low_res <= 0.5:
        found["quality"] = "low-resolution"
    elif degrade.blur_px >= 1.2:
        found["quality"] = "blurry"
    elif degrade.noise >= 0.045:
        found["quality"] = "grainy"
    return found


@dataclass(frozen=True, slots=True)
class _Words:
    """The phrases that a caption is put together from."""

    noun: str
    subject: str
    pronoun: str
    be: str
    have: str
    #: What somebody has: follows `with` or `has`.
    traits: tuple[str, ...]
    #: What somebody wears.
    wear: tuple[str, ...]
    #: What somebody does or is: follows `is`.
    acts: tuple[str, ...]
    place: str
    #: As an addition (`lit from the left`) and as a sentence; empty where there is nothing to say.
    light: str
    light_sentence: str


def captions(
    person: Person,
    look: Look,
    shot: Shot,
    framing: str,
    visible: Visible | None = None,
    n: int = 3,
    seed: int = 0,
) -> list[str]:
    """Up to n different captions, the first with every fact, the others with a choice of them.

    Parameters
    ----------
    person, look, shot, framing, visible
        As in `facts`.
    n
        How many; a picture that shows very little may have fewer.
    seed
        Another seed gives other phrasings of the same facts.
    """
    if n < 1:
        raise WorldError(f"The number of captions is {n}; it must be at least 1.")
    known = facts(person, look, shot, framing, visible)
    # Drawn under the facts as well, or all pictures would have the same turns of phrase in the same order.
    picture = zlib.crc32(repr(sorted(known.items())).encode())
    written: list[str] = []
    for attempt in range(12 * n):
        chance = iter(Draws(Shot, ("caption", seed, picture, attempt)).uniforms("words", 64))
        words = _words(known, framing, chance, keep=1.0 if attempt == 0 else 0.72)
        text = _write(words, framing, chance, full=attempt == 0, quality="quality" in known)
        if text not in written:
            written.append(text)
        if len(written) == n:
            break
    return written


def _choose(options: Sequence[str], chance: Iterator[float]) -> str:
    return options[int(next(chance) * len(options))]


def _words(known: Mapping[str, str], framing: str, chance: Iterator[float], keep: float) -> _Words:
    gender = known.get("gender", "unclear")
    pronoun, possessive, be, have = _PRONOUNS[gender]
    subject = article(_choose(_SUBJECTS[known.get("age_group", "unclear"), gender], chance))
    noun = _choose(_NOUNS[framing], chance)
    if "quality" in known and next(chance) < keep:
        noun = f"{known['quality']} {noun}"
    if framing == "ear":
        subject = f"the {known['ear_side']} ear of a person" if "ear_side" in known else "an ear of a person"
    light, light_sentence = _light(known) if next(chance) < keep else ("", "")

    def some(phrases: list[str]) -> tuple[str, ...]:
        return tuple(phrase for phrase in phrases if next(chance) < keep)

    return _Words(
        noun=noun,
        subject=subject,
        pronoun=pronoun,
        be=be,
        have=have,
        traits=some(_traits(known)),
        wear=some(_clothes(known)),
        acts=some(_acts(known, possessive)),
        place=_place(known) if next(chance) < keep else "",
        light=light,
        light_sentence=light_sentence,
    )


def _traits(known: Mapping[str, str]) -> list[str]:
    phrases: list[str] = []
    if "hair_style" in known or "hair_color" in known:
        phrases.append(_hair(known))
    if "hairline" in known:
        phrases.append("a receding hairline")
    if "skin_tone" in known:
        phrases.append("medium-toned skin" if known["skin_tone"] == "medium" else f"{known['skin_tone']} skin")
    if "eye_color" in known:
        phrases.append(f"{known['eye_color']} eyes")
    if "freckles" in known:
        phrases.append("freckles")
    if known.get("beard", "none") != "none":
        phrases.append(_BEARDS[known["beard"]])
    if known.get("expression") in _HAVING:
        phrases.append(_HAVING[known["expression"]])
    return phrases


def _hair(known: Mapping[str, str]) -> str:
    style, color = known.get("hair_style"), known.get("hair_color", "")
    if style == "bald":
        return "a bald head"
    if style == "buzz":
        return article(f"{color} buzz cut".strip())
    hair = " ".join(
        word
        for word in (known.get("hair_length", ""), style if style in ("wavy", "curly") else "", color, "hair")
        if word
    )
    return f"{hair} tied back" if style == "tied" else hair


def _clothes(known: Mapping[str, str]) -> list[str]:
    phrases: list[str] = []
    if known.get("glasses", "none") != "none":
        phrases.append(_GLASSES[known["glasses"]])
    if known.get("hat", "none") != "none":
        phrases.append(article(f"{known.get('hat_color', '')} {known['hat']}".strip()))
    if "mask_color" in known:
        phrases.append(article(f"{known['mask_color']} face mask"))
    if "lipstick" in known:
        phrases.append(f"{known['lipstick']} lipstick")
    if "eye_shadow" in known:
        phrases.append(f"{known['eye_shadow']} eye shadow")
    if "scarf_color" in known:
        phrases.append(article(f"{known['scarf_color']} scarf"))
    inner = next((_cloth(known, place) for place in ("dress", "top") if place in known), "")
    if "coat" in known:
        coat = _cloth(known, "coat")
        phrases.append(f"{coat} over {inner}" if inner else coat)
    elif inner:
        phrases.append(inner)
    if "bottom" in known:
        phrases.append(_cloth(known, "bottom"))
    if "shoes_color" in known:
        phrases.append(f"{known['shoes_color']} shoes")
    return phrases


def _cloth(known: Mapping[str, str], place: str) -> str:
    noun = _GARMENTS.get(known[place], known[place])
    color, second = known.get(f"{place}_color", ""), known.get(f"{place}_color2", "")
    pattern = known.get(f"{place}_pattern", "plain")
    after = ""
    if pattern == "stripes":
        words = f"{color} and {second} striped" if color else "striped"
    elif pattern == "checks":
        words = f"{color} and {second} checked" if color else "checked"
    elif pattern == "dots":
        words, after = color, f" with {second} dots" if second else " with dots"
    elif pattern == "print":
        words = f"patterned {color}"
    else:
        words = color
    phrase = " ".join(word for word in (known.get(f"{place}_length", ""), words.strip(), noun) if word) + after
    return phrase if noun in _PLURAL else article(phrase)


def _acts(known: Mapping[str, str], possessive: str) -> list[str]:
    phrases: list[str] = []
    if "pose" in known:
        phrases.extend(_pose(known))
    if known.get("expression") in _ACTING:
        phrases.append(_ACTING[known["expression"]])
    if "head" in known:
        phrases.append(known["head"])
    if "head_pitch" in known:
        phrases.append(f"{'raising' if known['head_pitch'] == 'raised' else 'lowering'} {possessive} head")
    if "head_tilt" in known:
        phrases.append(f"tilting {possessive} head to the {known['head_tilt']}")
    if "gaze" in known:
        phrases.append(f"looking {known['gaze']}")
    if "bag" in known:
        bag = f"{known.get('bag_color', '')} {known['bag']}".strip()
        phrases.append(f"carrying {article(bag)}")
    if "occluder" in known:
        phrases.append(f"partly hidden by {_occluder(known)}")
    return phrases


def _pose(known: Mapping[str, str]) -> list[str]:
    pose, view = _POSES[known["pose"]], known.get("view", "")
    if not view:
        return [pose]
    if pose == "walking":
        way = {"front": "toward the camera", "back": "away from the camera"}.get(view, f"to the {view}")
        return [f"walking {way}"]
    facing = {"front": "facing the camera", "back": "facing away from the camera"}.get(view, f"facing {view}")
    return [pose, facing]


def _occluder(known: Mapping[str, str]) -> str:
    thing = _OCCLUDERS.get(known["occluder"], "something")
    if thing in ("cup", "phone", "bar"):
        return article(f"{known.get('occluder_color', '')} {thing}".strip())
    return thing


def _place(known: Mapping[str, str]) -> str:
    kind, color = known.get("background", ""), known.get("background_color", "")
    if kind == "blurred":
        return "against a blurred background"
    if kind in ("plain", "gradient"):
        words = ("plain" if kind == "plain" or not color else "", color, "background")
        return f"against {article(' '.join(word for word in words if word))}"
    if kind == "wall":
        return f"in front of {article(f'{color} wall'.strip())}"
    return _PLACES.get(kind, "")


def _light(known: Mapping[str, str]) -> tuple[str, str]:
    side, tone = known.get("light_side", ""), known.get("light_tone", "")
    light = f"{tone} light".strip()
    if side == "behind":
        return f"with {light} from behind", f"{light.capitalize()} comes from behind."
    if side:
        return f"lit from the {side}", f"{light.capitalize()} comes from the {side}."
    if tone:
        return f"in {light}", f"The light is {tone}."
    return "", ""


def _write(words: _Words, framing: str, chance: Iterator[float], full: bool, quality: bool) -> str:
    forms = [_one_sentence]
    if framing != "ear":
        forms.append(_telling)
        # The others have no place for what is said of the picture itself.
        if not (full and quality):
            forms.append(_statement)
            if words.place and words.acts:
                forms += [_place_first, _act_first]
        if words.traits and not full:
            forms.append(_short)
    return forms[int(next(chance) * len(forms))](words)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _sentences(*parts: str) -> str:
    return " ".join(_capital(part) + "." * (not part.endswith(".")) for part in parts if part)


def _with(words: _Words) -> str:
    return f"{words.subject} with {join(words.traits)}" if words.traits else words.subject


def _wearing(words: _Words) -> str:
    return f"{words.pronoun} {words.be} wearing {join(words.wear)}" if words.wear else ""


def _one_sentence(words: _Words) -> str:
    worn = f"wearing {join(words.wear)}" if words.wear else ""
    parts = [f"{article(words.noun)} of {_with(words)}", worn, join(words.acts), words.place, words.light]
    return _sentences(", ".join(part for part in parts if part))


def _statement(words: _Words) -> str:
    doing = join(words.acts) or "shown"
    return _sentences(f"{_with(words)} is {doing} {words.place}".strip(), _wearing(words), words.light_sentence)


def _telling(words: _Words) -> str:
    described = " and ".join(
        part
        for part in (
            f"{words.have} {join(words.traits)}" if words.traits else "",
            f"{words.be} wearing {join(words.wear)}" if words.wear else "",
        )
        if part
    )
    doing = f"{words.pronoun} {words.be} {join(words.acts)} {words.place}".strip() if words.acts else ""
    return _sentences(
        f"this {words.noun} shows {words.subject}" + (f" {words.place}" if words.place and not words.acts else ""),
        f"{words.pronoun} {described}" if described else "",
        doing,
        words.light_sentence,
    )


def _place_first(words: _Words) -> str:
    return _sentences(f"{words.place}, {_with(words)} is {join(words.acts)}", _wearing(words), words.light_sentence)


def _act_first(words: _Words) -> str:
    return _sentences(
        f"{join(words.acts)}, {_with(words)} is seen {words.place}", _wearing(words), words.light_sentence
    )


def _short(words: _Words) -> str:
    acts = f", {words.acts[0]}" if words.acts else ""
    return _sentences(f"{words.subject} with {words.traits[0]}{acts}")
