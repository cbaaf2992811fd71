"""InstantID (Wang et al., 2024): face tokens in decoupled cross-attention, and IdentityNet on five points.

A resampler makes tokens of the vector of a face encoder. Each cross-attention layer of the base attends to them beside
the text, and so does IdentityNet, a ControlNet that reads them in place of the text and is shown five points of the
face: eyes, nose and corners of the mouth, no more, so that the place of the face is given and little else. The points
are those of the photograph, cut as a portrait. The base stays as it is; adapter and IdentityNet are trained together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ipse.catalogue import system
from ipse.diffusion import Base, layouts
from ipse.diffusion.adapters import Adapter, Resampler
from ipse.diffusion.spatial import Control, control_for, five_picture
from ipse.errors import WeightsError
from ipse.personalize.adapting import Adapting, Conditions, Words
from ipse.personalize.references import Features

_VISIBLE = np.ones(5, bool)


@system(
    name="InstantID",
    paper="InstantID: Zero-shot Identity-Preserving Generation in Seconds",
    year=2024,
    arxiv="2401.07519",
    room="personalize",
    claim="One photograph, seconds, and a base that stays as it is: face tokens and a ControlNet on five points.",
    evidence=("personalize.instantid.*",),
    works_means=(
        "with one reference, nearer to the person than an adapter on image features at equal prompt accuracy; the face "
        "is where the five points are; without IdentityNet, or without the adapter, less near."
    ),
    status="experimental",
)
class InstantID(Adapting):
    """`Adapting` by face tokens and IdentityNet; see the module.

    ``network`` of its recipe: ``tokens``, ``width``, ``depth`` and ``heads`` of the resampler, and ``scale``, by which
    vectors of length 1 are multiplied.

    Attributes
    ----------
    token_share, control_share
        How much of the strength the tokens in the base and IdentityNet get: 0 takes one of them out.
    """

    name = "instantid"
    features = ("vector", "length", "five")
    token_share = 1.0
    control_share = 1.0

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 16,
        width: int = 192,
        depth: int = 2,
        heads: int = 4,
        scale: float = 16.0,
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        context = unet.config.cross_attention_dim
        adapter = Adapter.new(unet, Resampler(sizes["vector"], width, context, tokens, depth, heads))
        adapter.scale = scale
        return nn.ModuleDict({"adapter": adapter, "control": control_for(unet).requires_grad_(True)})

    def published(self, path: Path) -> nn.Module:
        """The folder of the project: ``ip-adapter.bin`` and ``ControlNetModel``, for SDXL."""
        from diffusers import ControlNetModel

        folder = path if path.is_dir() else path.parent
        adapter = layouts.load(folder / "ip-adapter.bin", self.unet, layout="instantid")
        # The project takes face vectors as long as the encoder makes them.
        adapter.scale = None
        try:
            control = ControlNetModel.from_pretrained(folder / "ControlNetModel")
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{folder / 'ControlNetModel'} cannot be read: {' '.join(str(error).split())[:200]}",
                "Copy the folder ControlNetModel of the project beside ip-adapter.bin.",
            ) from error
        return nn.ModuleDict({"adapter": adapter, "control": control})

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Tokens beside the text in the base, tokens in place of the text in IdentityNet."""
        (person,) = people
        adapter, control = self.network["adapter"], self.network["control"]
        scale = person["length"][:, None] if adapter.scale is None else adapter.scale
        tokens = adapter.tokens(scale * person["vector"])
        handle = adapter.on(self.unet, tokens, strength=self.token_share * strength)
        picture = self._points(person["five"]).to(tokens)
        return Conditions(words.text, [handle], Control(control, picture, self.control_share * strength, tokens))

    def _points(self, five: Tensor) -> Tensor:
        """(B, 3, H, W) pictures of the points (B, 5, 2), given as shares of the sides."""
        height, width = self.base.size
        places = five.cpu().numpy() * (width, height) - 0.5
        return torch.stack([five_picture(own, _VISIBLE, (height, width)) for own in places])
