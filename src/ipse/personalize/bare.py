"""The base by itself: what prompts are worth before anybody's identity is put in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ipse.personalize.contract import marked

if TYPE_CHECKING:
    from ipse.diffusion import Base, Generated


class Bare:
    """A `Personalizer` that looks at no photograph: its pictures show anybody.

    Parameters
    ----------
    base
        What makes the pictures.
    steps, guidance
        As in `Base.generate`.
    """

    name = "bare"
    most_people = 1_000_000
    strengths = (0.0,)

    def __init__(self, base: Base, steps: int = 20, guidance: float | None = None) -> None:
        self.base, self.steps, self.guidance = base, steps, guidance
        self.trained_with = base.trained_with

    def fit(self, *people: Sequence[npt.NDArray[np.uint8]]) -> Bare:
        """Nothing is learned of anybody."""
        return self

    def generate(self, prompt: str, n: int = 1, seed: int = 0, strength: float = 0.0) -> Iterator[Generated]:
        """As `Base.generate`, without the marks; strength has nothing to act on."""
        return self.base.generate(marked(prompt)[0], n, seed, self.steps, self.guidance)
