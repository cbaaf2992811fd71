"""The contract of every personalizing system: references in, pictures of the person out.

A prompt marks the words for the person by braces, in the order in which people were given::

    method = open_method("bare", load_base("world"))
    ada = method.fit(photographs)                              # (H, W, 3) uint8 arrays
    for picture in ada.generate("A portrait of {a woman}, smiling.", n=4, strength=0.8):
        ...                                                    # an `ipse.diffusion.base.Generated`
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ipse.errors import IpseError

if TYPE_CHECKING:
    from ipse.diffusion import Base, Generated

_MARK = re.compile(r"\{([^{}]*)\}")

METHODS = {
    "bare": "ipse.personalize.bare:Bare",
    "face-adapter": "ipse.personalize.face_adapter:FaceAdapter",
    "image-adapter": "ipse.personalize.image_adapter:ImageAdapter",
    "instantid": "ipse.personalize.instantid:InstantID",
    "consistentid": "ipse.personalize.consistentid:ConsistentID",
    "photoverse": "ipse.personalize.photoverse:PhotoVerse",
    "arc2face": "ipse.personalize.arc2face:Arc2Face",
    "infinite-id": "ipse.personalize.infinite_id:InfiniteID",
    "facechain-fact": "ipse.personalize.facechain_fact:FaceChainFact",
    "dp-adapter": "ipse.personalize.dp_adapter:DPAdapter",
    "masterweaver": "ipse.personalize.masterweaver:MasterWeaver",
    "imagine-yourself": "ipse.personalize.imagine_yourself:ImagineYourself",
    "freecure": "ipse.personalize.freecure:FreeCure",
    "id-aligner": "ipse.personalize.id_aligner:IDAligner",
    "id-aligner-lora": "ipse.personalize.id_aligner:IDAlignerLoRA",
    "storymaker": "ipse.personalize.storymaker:StoryMaker",
    "pose2id": "ipse.personalize.pose2id:Pose2ID",
}
"""Every method by name, with its class. To add one, write its module and add its line here."""


class Personalized(Protocol):
    """A method that knows whom it is to show."""

    def generate(self, prompt: str, n: int = 1, seed: int = 0, strength: float = 1.0) -> Iterator[Generated]:
        """Make pictures, one after another as they are ready.

        Parameters
        ----------
        prompt
            What they show; see `marked` for the words for the person.
        n
            How many; picture number i has the seed `seed` + i and does not depend on how many are made.
        seed
            Of the first. Equal seeds start from the noise that the base starts from.
        strength
            How much the person counts: 0 not at all, 1 as the method was made for.

        Raises
        ------
        IpseError
            If the prompt does not suit the method, the numbers cannot be, or memory runs out.
        """
        ...


class Personalizer(Protocol):
    """A method on a base.

    A class of `METHODS` is made from a base, and by keyword from ``steps`` and ``guidance`` as in `Base.generate`; and
    from ``adapter`` and ``encoder`` where it has a trained part; see `open_method`.

    Attributes
    ----------
    name
        As in `METHODS`.
    base
        What makes its pictures.
    trained_with
        Fingerprints of all encoders and classifiers that it was trained with: none of them may judge it.
    most_people
        How many people it can show in one picture.
    strengths
        The strengths that it is measured at where nobody says.
    """

    name: str
    base: Base
    trained_with: tuple[str, ...]
    most_people: int
    strengths: tuple[float, ...]

    def fit(self, *people: Sequence[npt.NDArray[np.uint8]]) -> Personalized:
        """Learn whom to show, by encoding alone or by tuning.

        Parameters
        ----------
        people
            Of each person one or more photographs (H, W, 3) uint8.

        Raises
        ------
        IpseError
            If there are more people than the method can show, or photographs that it cannot use.
        """
        ...


def class_of(name: str) -> Any:
    """The class of a method.

    Raises
    ------
    IpseError
        If there is none of that name, naming those that there are.
    """
    if name not in METHODS:
        raise IpseError(f"There is no method {name!r}.", f"There are: {', '.join(METHODS)}.")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def open_method(
    name: str,
    base: Base,
    *,
    adapter: str | Path | None = None,
    encoder: str | Path | None = None,
    steps: int = 20,
    guidance: float | None = None,
) -> Personalizer:
    """A method by its name.

    Parameters
    ----------
    name
        One of `METHODS`.
    base
        What makes the pictures.
    adapter
        Its trained part: a file of ``ipse train adapter``, or a published file or folder; by default that which comes
        with ipse.
    encoder
        Of faces; by default the one that the adapter was trained with.
    steps, guidance
        As in `Base.generate`.

    Raises
    ------
    IpseError
        If there is none of that name, naming those that there are, or it has no such part.
    WeightsError
        If its trained part is missing, or of another method, base or encoder.
    """
    kind = class_of(name)
    given = {"adapter": adapter, "encoder": encoder}
    given = {option: value for option, value in given.items() if value is not None}
    for option in given.keys() - inspect.signature(kind).parameters.keys():
        raise IpseError(f"The method {name} has no {option}.", f"Drop {given[option]}.")
    return kind(base, **given, steps=steps, guidance=guidance)


def marked(prompt: str) -> tuple[str, list[tuple[int, int]]]:
    """A prompt without its marks, and where in it the words for each person are.

    Parameters
    ----------
    prompt
        With the words for people in braces: ``A portrait of {a woman}, smiling.``

    Returns
    -------
    tuple
        The text, and of each person the first character and the one after the last.

    Raises
    ------
    IpseError
        If the braces do not come in pairs, or hold nothing.
    """
    text, places, end = "", [], 0
    for found in _MARK.finditer(prompt):
        text += prompt[end : found.start()]
        places.append((len(text), len(text) + len(found[1])))
        text, end = text + found[1], found.end()
    text += prompt[end:]
    if set("{}") & set(text) or any(not text[a:b].strip() for a, b in places):
        raise IpseError(
            f"The braces of the prompt {prompt!r} do not mark words.",
            "Write it like: A portrait of {a woman}, smiling.",
        )
    return text, places
