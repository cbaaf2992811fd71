"""A last stage of the base: its U-Net learns to show the person whom it is told, beside what words say.

Captions of the world name nobody, so nothing in a base that was trained on them stands for who somebody is, and an
adapter beside a frozen one can say it and is hardly heard. Models that were trained on pictures of the Internet know
thousands of people by their names. In place of names stands here an adapter of a face encoder's vector: the U-Net is
trained together with it, on pictures of people whose vector another of their pictures gave, and some of nobody, so that
words alone go on as before. Then the adapter is thrown away. What stays knows nobody by heart, and follows what the
adapters that are trained after it say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ipse.diffusion.training.assemble import PEOPLE
from ipse.diffusion.training.data import Corpus
from ipse.personalize.training import AdapterStage


class PeopleStage(AdapterStage):
    """Train the U-Net of a base together with an adapter that is not kept.

    Parameters
    ----------
    recipe, corpus, device, others
        As in `AdapterStage`.
    """

    name = PEOPLE
    #: The network knows much already, and the adapter nothing.
    shares: ClassVar[Mapping[str, float]] = {"unet.": 0.3}

    def __init__(self, recipe: Any, corpus: Corpus, device: torch.device, *others: Any) -> None:
        super().__init__(recipe, corpus, device, *others)
        self.unet = self.base.pipeline.unet.requires_grad_(True)
        self.network = nn.ModuleDict({"adapter": self.method.network, "unet": self.unet})

    def figures(self, network: nn.Module) -> dict[str, float]:
        """See `AdapterStage.figures`; with both networks' averages."""
        moving = {name: value.clone() for name, value in self.unet.state_dict().items()}
        self.unet.load_state_dict(network["unet"].state_dict())
        try:
            return super().figures(network["adapter"])
        finally:
            self.unet.load_state_dict(moving)

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of a `UNet2DConditionModel`, and nothing of the adapter."""
        network["unet"].to(memory_format=torch.contiguous_format).save_pretrained(out / "weights")
