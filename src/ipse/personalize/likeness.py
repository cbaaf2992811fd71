"""Who a picture would show that is not finished yet: the face vector of a predicted latent, with gradients to it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ipse.diffusion import Base
from ipse.diffusion.trajectory import to_pixels
from ipse.encoders import Encoder
from ipse.encoders.backbones.iresnet import IResNet
from ipse.encoders.trained import TrainedEncoder
from ipse.errors import TrainingError
from ipse.faces.align import TEMPLATES, fit_similarity


def critic_of(name: str, encoder: Encoder) -> Encoder:
    """What gives the loss on identity: an encoder that says what another says, and is harder to please, or that itself.

    Parameters
    ----------
    name
        As ``start`` of `ipse.training.recipe.TrainRecipe`; empty for `encoder`.
    encoder
        Whose vectors are asked for.

    Raises
    ------
    TrainingError
        If it was not trained to match the encoder (``earlier`` of its recipe).
    WeightsError
        If there is none, or it is damaged.
    """
    from ipse.training.tasks.common import start_file

    if not name:
        return encoder
    critic = TrainedEncoder(start_file(name))
    if critic.matches != encoder.fingerprint:
        raise TrainingError(
            f"The critic {name} was not trained to say what {encoder.name} says.",
            "Train one with `earlier` and the loss `distilled`, as recipes/encoders/face-robust.yaml does.",
        )
    return critic


class Likeness:
    """Face vectors of latents, for losses on identity.

    Parameters
    ----------
    base
        Whose autoencoder decodes.
    encoder
        Of faces, with a differentiable form and chips that are aligned by five points. It cannot judge what is trained
        with it.
    """

    def __init__(self, base: Base, encoder: Encoder) -> None:
        self._vae = base.pipeline.vae
        self._network = encoder.torch_module().requires_grad_(False).to(base.device).eval()
        self._template = TEMPLATES[encoder.chip.template]

    def __call__(self, latents: Tensor, five: Tensor) -> Tensor:
        """(n, D) vectors of length 1.

        Parameters
        ----------
        latents
            (n, c, h, w), clean ones.
        five
            (n, 5, 2) where the face is: points as shares of the sides of the picture.
        """
        return self.of((to_pixels(self._vae, latents) / 2 + 0.5).clamp(0, 1), five)

    def with_maps(self, latents: Tensor, five: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The vectors, and (n, C, h, w) what the encoder's first three stages say, of length 1 at every place.

        Raises
        ------
        TrainingError
            If the encoder is no residual network with stages.
        """
        networks = [module for module in self._network.modules() if isinstance(module, IResNet)]
        if not networks:
            raise TrainingError("The encoder has no stages whose maps could be compared.", "Leave `maps` at 0.")
        maps: list[Tensor] = []
        hooks = [
            stage.register_forward_hook(lambda _, __, out: maps.append(functional.normalize(out, dim=1)))
            for stage in networks[0].stages[:3]
        ]
        try:
            return self(latents, five), maps
        finally:
            for hook in hooks:
                hook.remove()

    def of(self, pixels: Tensor, five: Tensor) -> Tensor:
        """(n, D) vectors of pictures (n, 3, H, W) of 0 to 1; see above."""
        return functional.normalize(self._network(self._chips(pixels, five)), dim=-1)

    def _chips(self, pixels: Tensor, five: Tensor) -> Tensor:
        """(n, 3, side, side) faces cut out of (n, 3, H, W), as `ipse.faces.align` does, with gradients."""
        size, template = np.array(pixels.shape[:1:-1]), self._template
        places = five.double().cpu().numpy() * size - 0.5
        maps = fit_similarity(template.points["arcface5"], places)
        steps = np.arange(template.size) + template.origin
        x, y = np.meshgrid(steps, steps)
        inside = np.einsum("nij,jhw->nhwi", maps, np.stack([x, y, np.ones_like(x)]))
        # From places of pixels' centers to -1 … 1 between the edges.
        grid = torch.from_numpy(2 * (inside + 0.5) / size - 1).to(pixels)
        return functional.grid_sample(pixels, grid, align_corners=False)
