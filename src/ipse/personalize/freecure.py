"""FreeCure (Cai et al., 2024): what the base alone shows of a prompt is put back into a personalized picture.

Nothing is trained, and any other method can be wrapped. An identity drowns words of the prompt in cross-attention,
while self-attention is left as the base has it; so that is where the base can help.

The base alone makes its picture from the same noise and the same prompt. Where that shows what the prompt asks for
(hair, glasses, a beard, a hat, …), its keys and values stand beside those of the personalized picture in each
self-attention layer: foundation-aware self-attention, equations 3 and 4 with ω = 2. Equation 4 multiplies scores by ω
in the mask; the released code adds ω to them and shuts out the rest, and so does this.

What has no place of its own, an expression, comes back by asymmetric prompt guidance (section 4.2): the picture is
turned back into noise half of the way (γ = 0.5), by a prompt that does not tell the expression, and forth again by one
that does, both without the identity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ipse.catalogue import system
from ipse.diffusion import Base, Generated
from ipse.diffusion.attention import attached
from ipse.diffusion.reference import Record, Reference
from ipse.diffusion.trajectory import invert, sample
from ipse.encoders import Encoder
from ipse.faces import HogDetector, LandmarkPredictor
from ipse.faces.parts import LABELS
from ipse.personalize.adapting import Adapting, Fitted, read_record
from ipse.personalize.contract import marked, open_method

PARTS: Mapping[str, str] = {
    "hair": r"hair|bald|bangs|ponytail",
    "glasses": r"(?:sun)?glasses|goggles",
    "beard": r"beard|stubble|mustache|moustache|goatee",
    "hat": r"cap|beanie|hat|headscarf|helmet",
    "mask": r"mask",
    "scarf": r"scarf",
    "lips": r"lipstick|lips",
    "eyes": r"eyes",
    "brows": r"(?:eye)?brows",
    "top": r"shirt|sweater|blouse|hoodie|top|vest|pullover",
    "coat": r"coat|jacket|blazer",
    "dress": r"dress",
}
"""Parts of `ipse.faces.parts.LABELS` with the words that ask for something there."""

_EXPRESSION = (
    r"(?:smiling|grinning)(?: broadly)?|smirking|laughing|frowning|crying|winking|squinting|talking|shouting"
    r"|(?:looking )?(?:surprised|angry|sad|disgusted|frightened|scared|happy)"
    r"|(?:with |and )?(?:an? |the )?(?:neutral expression|open mouth|puckered lips|tongue out|closed eyes)"
)
_TELLS = re.compile(rf"\b(?:{_EXPRESSION})\b", re.IGNORECASE)


def asked_parts(prompt: str) -> list[str]:
    """The parts of a person that a prompt says something about, those of an expression left out."""
    rest = _TELLS.sub("", prompt)
    return [part for part, words in PARTS.items() if re.search(rf"\b(?:{words})\b", rest, re.IGNORECASE)]


def without_expression(prompt: str) -> str | None:
    """A prompt that does not tell the expression; None where it told none."""
    if not _TELLS.search(prompt):
        return None
    first, *others = prompt.rstrip(". ").split(", ")
    kept = [" ".join(_TELLS.sub("", first).split()), *(clause for clause in others if not _TELLS.search(clause))]
    return f"{', '.join(kept)}."


@system(
    name="FreeCure",
    paper="Foundation Cures Personalization: Improving Personalized Models' Prompt Consistency via Hidden Foundation "
    "Knowledge",
    year=2024,
    arxiv="2411.15277",
    room="personalize",
    claim="Without training, prompts are followed better by many personalizing methods, and the identity is kept.",
    evidence=("personalize.freecure.*",),
    works_means=(
        "over an adapter and over a method that embeds the identity in the text, accuracy of one to four prompted "
        "attributes rises at 95 % or more of the similarity, no weight changed, and beats lowering the strength to the "
        "same similarity."
    ),
    status="experimental",
)
class FreeCure:
    """A `Personalizer` over another; see the module.

    Parameters
    ----------
    base
        What makes the pictures.
    adapter
        That of the method to wrap, which its file names; by default the face adapter that comes with ipse.
    over
        The method to wrap, where there is one already.
    encoder, steps, guidance
        As in `ipse.personalize.open_method`, for the method to wrap.

    Attributes
    ----------
    weight
        ω: 0 puts no more weight on what the base shows than on the picture itself.
    depth
        γ: share of the way back to noise.

    Raises
    ------
    WeightsError
        As the wrapped method.
    """

    name = "freecure"
    weight = 2.0
    depth = 0.5

    def __init__(
        self,
        base: Base,
        adapter: str | Path | None = None,
        *,
        over: Adapting | None = None,
        encoder: str | Path | Encoder | None = None,
        steps: int = 20,
        guidance: float | None = None,
    ) -> None:
        if over is None:
            known = read_record(adapter) if adapter is not None and Path(adapter).is_file() else None
            which = known["system"] if known else "face-adapter"
            over = open_method(which, base, adapter=adapter, encoder=encoder, steps=steps, guidance=guidance)
        self.over, self.base = over, over.base
        self.steps, self.guidance = over.steps, over.guidance
        self.trained_with, self.most_people, self.strengths = over.trained_with, over.most_people, over.strengths

    @cached_property
    def _looking(self) -> tuple[HogDetector, LandmarkPredictor]:
        return HogDetector(), LandmarkPredictor()

    def fit(self, *people: Sequence[npt.NDArray[np.uint8]]) -> Cured:
        """As the wrapped method."""
        return Cured(self, self.over.fit(*people))

    def mask(self, picture: npt.NDArray[np.uint8], parts: Sequence[str]) -> Tensor | None:
        """Where a picture (H, W, 3) shows some parts of the people in it: (H, W) of 0 and 1, None if nowhere."""
        detector, predictor = self._looking
        chosen = [LABELS.index(part) for part in parts]
        shown = np.zeros(picture.shape[:2], bool)
        for found in predictor.predict(picture, detector.detect(picture)):
            shown |= np.isin(found.parts_in(*picture.shape[:2]), chosen)
        return torch.from_numpy(shown).float() if shown.any() else None

    def aware(self, record: Record, mask: Tensor) -> Reference:
        """Foundation-aware self-attention: beside itself, a picture sees what the base's shows in the mask."""
        return Reference(record, region=mask, strength=math.exp(self.weight))

    @torch.no_grad()
    def guide(self, picture: npt.NDArray[np.uint8], told: str, untold: str) -> npt.NDArray[np.uint8]:
        """Asymmetric prompt guidance: a picture with the expression that `told` has and `untold` has not."""
        base, levels = self.base, round(self.depth * self.steps)
        back = invert(base.denoiser(untold, 1.0), base.encode(picture), self.steps, levels=levels)[-1]
        forth = sample(base.denoiser(told, self.guidance), back, self.steps, skip=self.steps - levels)
        return base.decode(forth)


class Cured:
    """A `FreeCure` that knows whom to show.

    Parameters
    ----------
    method
        Which.
    fitted
        Of the wrapped method.
    """

    def __init__(self, method: FreeCure, fitted: Fitted) -> None:
        self.method, self.fitted = method, fitted

    def generate(self, prompt: str, n: int = 1, seed: int = 0, strength: float = 1.0) -> Iterator[Generated]:
        """Make pictures; see `ipse.personalize.contract.Personalized`."""
        method = self.method
        method.base.check(n, seed, method.steps)
        text = marked(prompt)[0]
        parts, untold = asked_parts(text), without_expression(text)
        for number in range(seed, seed + n):
            picture, healed = self._made(prompt, text, number, strength, parts)
            if untold and strength:
                picture = replace(picture, image=method.guide(picture.image, text, untold))
            told = {"method": method.name, "over": method.over.name, "parts": parts if healed else []}
            yield replace(picture, more={**picture.more, **told, "untold": untold or ""})

    def _made(self, prompt: str, text: str, seed: int, strength: float, parts: Sequence[str]) -> tuple[Generated, bool]:
        """The wrapped method's picture, and whether the base took part in it."""
        method, base = self.method, self.method.base
        mask, record = None, Record()
        if parts and strength:
            with attached(base.pipeline.unet, record), torch.no_grad():
                foundation = next(base.generate(text, 1, seed, method.steps, method.guidance))
            mask = method.mask(foundation.image, parts)
        if mask is None:
            return next(self.fitted.generate(prompt, 1, seed, strength)), False
        with attached(method.over.unet, method.aware(record, mask)):
            return next(self.fitted.generate(prompt, 1, seed, strength)), True
