"""The generator of Pose2ID (Yuan et al., 2025): a person of a re-identification picture, in eight standard poses.

The vector of a body encoder becomes tokens by a linear map and a norm, as in the project's code. The project gives them
to the network in place of a text, and lets it look into a second network that is shown the picture. Here the base has a
text and stays as it is: each of its cross-attention layers attends to the tokens beside it (IP-Adapter, Ye et al.,
2023), and in place of the second network to tokens that a resampler makes of what the encoder says of each place. The
pose is a figure of sticks, which a T2I-adapter reads once; the project's guider, too, is a small convolutional network.

The reference of a picture is another of the same person in the same Look: cameras know people by what they wear. To
features of a picture are added those of the pictures made (`ipse.gallery.centralize.centralize_by_generation`)::

    made = method.views(picture)                  # eight pictures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ipse.catalogue import system
from ipse.diffusion import Base
from ipse.diffusion.adapters import Adapter, LinearProjection, Resampler
from ipse.diffusion.spatial import SideAdapter, body_picture, side_adapter_for
from ipse.personalize.adapting import Adapting, Conditions, Words
from ipse.personalize.bodies import BodyReader, standard_poses
from ipse.personalize.references import Features

_PROMPT = "A full-body picture of {a person}, against a plain gray background."


@system(
    name="Pose2ID, generator",
    paper="From Poses to Identity: Training-Free Person Re-Identification via Feature Centralization",
    year=2025,
    arxiv="2503.00938",
    room="personalize",
    claim="A person generated in standard poses from the features of one picture gives more features of that person, "
    "whose mean with the picture's own is nearer to the person's center.",
    evidence=("pose2id.*",),
    works_means="Features averaged with those of generated pictures have a higher mAP and rank-1 than alone, and with "
    "neighbors as well than with neighbors alone; they are nearer to the true centers; with pictures generated of "
    "somebody else the gain vanishes; re-ranking on top still helps.",
    status="experimental",
)
class Pose2ID(Adapting):
    """`Adapting` on the features of a body, in a pose; see the module.

    ``network`` of its recipe: ``tokens`` of the vector, by ``scale`` of which it is multiplied; ``place_tokens``,
    ``width``, ``depth`` and ``heads`` of the resampler.
    """

    name = "pose2id"
    features = ("vector", "local", "pose")
    reads = BodyReader
    one_look = True

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 4,
        place_tokens: int = 16,
        width: int = 192,
        depth: int = 2,
        heads: int = 4,
        scale: float = 16.0,
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        context = unet.config.cross_attention_dim
        adapter = Adapter.new(unet, LinearProjection(sizes["vector"], context, tokens))
        adapter.scale = scale
        places = Resampler(sizes["local"], width, context, place_tokens, depth, heads)
        pose = side_adapter_for(unet).requires_grad_(True)
        return nn.ModuleDict({"adapter": adapter, "places": places, "pose": pose})

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Tokens of the person beside those of the text, and the pose beside the network's own features."""
        (person,) = people
        adapter = self.network["adapter"]
        tokens = torch.cat(
            [adapter.tokens(adapter.scale * person["vector"]), self.network["places"](person["local"])], 1
        )
        picture = self._figures(person["pose"]).to(tokens)
        handle = adapter.on(self.unet, tokens, strength=strength)
        return Conditions(words.text, [handle], SideAdapter(self.network["pose"], picture, strength))

    def views(self, picture: npt.NDArray[np.uint8], seed: int = 0) -> list[npt.NDArray[np.uint8]]:
        """The person of a picture (H, W, 3) in each of `standard_poses`, at the size of the base."""
        (person,) = self.fit([picture]).people
        made = []
        for number, pose in enumerate(standard_poses()):
            placed = person | {"pose": torch.from_numpy(pose)[None].to(person["pose"])}
            (one,) = self.fitted([placed], [[]]).generate(_PROMPT, 1, seed + number)
            made.append(one.image)
        return made

    def _figures(self, poses: Tensor) -> Tensor:
        """(B, 3, H, W) pictures of ``pose`` (B, 17, 3)."""
        height, width = self.base.size
        told = poses.cpu().numpy()
        places = told[:, :, :2] * (width, height) - 0.5
        return torch.stack([body_picture(*own, (height, width)) for own in zip(places, told[:, :, 2] > 0, strict=True)])
