"""StoryMaker (Zhou et al., 2024): characters with hair and clothes, several in a picture, each kept to its place.

For each character, tokens of the face (a face encoder's vector that looks at the features of the face) and of the whole
figure (learned queries that look at those of hair, clothes and body) stand side by side; a learned vector tells the
first character from the second, and tokens of its own stand for the background: the positional-aware perceiver
resampler. All are keys of one decoupled cross-attention, with low-rank changes of all attention beside it.

In training, the share of each pixel's attention that goes to a character's tokens is drawn to where that character is,
and that of the background's tokens to the rest, by the mean squared error (λ = 0.1); maps are averaged over the layers
below the finest. The error of the prediction counts more within characters. The pose is told by a ControlNet, so that
it need not be taken from the photograph; afterwards it can be told or left out.

Sizes, weights and the training follow the released code, but for two things. Pictures of two people are made of the
middle halves of two pictures, side by side, with a caption of both. And the pose is that of five points of the face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.diffusion import Base
from ipse.diffusion.adapters import Adapted, Adapter, FaceResampler, Resampler
from ipse.diffusion.attention import EVERYWHERE, Call, fit_region, split_heads
from ipse.diffusion.spatial import Control, control_for, five_picture
from ipse.diffusion.training.denoiser import velocity_weight
from ipse.personalize.adapting import Adapting, Batch, Conditions, Options, Words
from ipse.personalize.references import Features
from ipse.world.caption import article

_VISIBLE = np.ones(5, bool)


class Characters(nn.Module):
    """The positional-aware perceiver resampler: tokens of the background, then of each character.

    Parameters
    ----------
    inputs, features
        Length of the face vector, channels of the image encoder's features.
    context
        Channels C.
    tokens, figure_tokens
        Of a face and of a figure.
    hidden, width, depth, heads
        Of `FaceResampler` and `Resampler`.
    people
        How many characters there can be.
    drop
        How often, in training, the face of a character is left out, and how often the figure.

    Attributes
    ----------
    each
        Tokens of a character, and of the background.
    """

    def __init__(
        self, inputs: int, features: int, context: int, *, tokens: int, figure_tokens: int, hidden: int, width: int,
        depth: int, heads: int, people: int, drop: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.face = FaceResampler(inputs, features, context, tokens, hidden, depth, heads, shortcut=True)
        self.figure = Resampler(features, width, context, figure_tokens, depth, heads)
        self.each, self.drop = tokens + figure_tokens, drop
        self.places = nn.Parameter(0.02 * torch.randn(people, self.each, context))
        self.background = nn.Parameter(0.02 * torch.randn(1, self.each, context))
        self.proj_out = nn.Linear(context, context)
        self.norm_out = nn.LayerNorm(context)

    def forward(self, people: Sequence[Features], scale: float) -> Tensor:
        """Features (B, …) of each person as (B, (1 + people) · each, C)."""
        out = [self.background.expand(len(people[0]["vector"]), -1, -1)]
        for place, person in zip(self.places, people, strict=False):
            face = self._kept(self.face(scale * person["vector"], person["patches"]))
            own = torch.cat([face, self._kept(self.figure(person["figure"]))], 1) + place
            out.append(self.norm_out(self.proj_out(own)) + own)
        return torch.cat(out, 1)

    def _kept(self, tokens: Tensor) -> Tensor:
        if not self.training:
            return tokens
        return tokens * (torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.drop)


class Watched(Adapted):
    """The handle of an adapter that also keeps how each pixel's attention is shared out.

    Parameters
    ----------
    adapter, tokens
        As in `Adapter.on`.
    each
        Tokens of each character.

    Attributes
    ----------
    maps
        Of each layer, (B, 1 + people, H, W): shares of the background and of each character, which add up to 1.
    """

    def __init__(self, adapter: Adapter, tokens: Tensor, each: int) -> None:
        super().__init__(adapter, tokens, None, 1.0, 1.0, None, EVERYWHERE)
        self.each = each
        self.maps: list[Tensor] = []

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """As `Adapted`."""
        own = self.adapter.layers[str(call.layer.index)]
        if own.to_k is None:
            return out
        key, value = (split_heads(linear(self.tokens), query.shape[1]) for linear in (own.to_k, own.to_v))
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        shares = weights.mean(1).unflatten(-1, (-1, self.each)).sum(-1)
        self.maps.append(shares.transpose(1, 2).unflatten(2, call.grid))
        return out + (weights @ value).transpose(1, 2).flatten(2)


def misplaced(maps: Sequence[Tensor], masks: Tensor) -> Tensor:
    """(B,) how far attention is from where it should be.

    Parameters
    ----------
    maps
        As in `Watched`.
    masks
        (B, people, H, W) of 0 to 1: where each character is, at the size of the latent.
    """
    height, width = masks.shape[-2:]
    below = [one for one in maps if one.shape[-1] < width] or list(maps)
    grid = (height // 2, width // 2)
    mean = torch.stack([functional.interpolate(one, grid, mode="bilinear") for one in below]).mean(0)
    rest = (1 - masks.sum(1, keepdim=True)).clamp_min(0)
    wanted = fit_region(torch.cat([rest, masks], 1), grid)
    return (mean - wanted).square().mean((2, 3)).sum(1) / masks.shape[1]


@dataclass(frozen=True)
class StoryOptions(Options):
    """How StoryMaker is trained.

    Attributes
    ----------
    attention
        λ: weight of the loss on attention; 0 leaves characters free to mingle, which is what it is measured against.
    inside
        How much more the error counts within characters.
    two
        How often pictures show two people.
    drop_pose
        How often the pose is not told.
    """

    attention: float = 0.1
    inside: float = 5.0
    two: float = 0.5
    drop_pose: float = 0.5


@system(
    name="StoryMaker",
    paper="StoryMaker: Towards Holistic Consistent Characters in Text-to-image Generation",
    year=2024,
    arxiv="2409.12576",
    room="personalize",
    claim="Face, hair, clothes and body of several characters stay the same over a series of pictures.",
    evidence=("personalize.storymaker.*",),
    works_means=(
        "with two characters, what belongs to one is seen on the other less often than with an adapter of the same "
        "tokens and no masks; clothes and hair are more alike over five prompts; the pose is the one that is given, "
        "not that of the reference."
    ),
    status="experimental",
)
class StoryMaker(Adapting):
    """`Adapting` for one or two characters; see the module.

    ``network`` of its recipe: ``tokens``, ``figure_tokens``, ``hidden``, ``width``, ``depth``, ``heads`` and ``drop``
    of `Characters`; ``rank`` of the low-rank changes; ``scale``, by which vectors of length 1 are multiplied.

    Attributes
    ----------
    pose
        (people, 5, 2) where faces are to be, each by five points as shares of the picture's sides; None leaves it to
        the prompt.
    """

    name = "storymaker"
    features = ("vector", "patches", "figure")
    regions = ("five", "person")
    options_kind = StoryOptions
    most_people = 2
    pose: npt.NDArray[np.float32] | None = None

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 4,
        figure_tokens: int = 16,
        hidden: int = 512,
        width: int = 192,
        depth: int = 2,
        heads: int = 4,
        rank: int = 8,
        drop: float = 0.1,
        scale: float = 16.0,
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        characters = Characters(
            sizes["vector"], sizes["patches"], unet.config.cross_attention_dim, tokens=tokens,
            figure_tokens=figure_tokens, hidden=hidden, width=width, depth=depth, heads=heads,
            people=cls.most_people, drop=drop,
        )  # fmt: skip
        adapter = Adapter.new(unet, characters, rank=rank)
        adapter.scale = scale
        return nn.ModuleDict({"adapter": adapter, "control": control_for(unet).requires_grad_(True)})

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """The characters' tokens beside those of the text, and the pose where it is told."""
        adapter = self.network["adapter"]
        handle = adapter.on(self.unet, adapter.tokens(people, adapter.scale), strength=strength, lora=strength)
        return Conditions(words.text, [handle], self._posed(self.pose, strength))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction, more within characters, and λ times how misplaced attention is."""
        options, adapter = self.options, self.network["adapter"]
        batch, masks, five = self.paired(batch) if torch.rand(()) < options.two else self._single(batch)
        handle = Watched(adapter, adapter.tokens(batch.people, adapter.scale), adapter.projection.each)
        posed = None if torch.rand(()) < options.drop_pose else self._posed(five, 1.0)
        predicted = self.predict(batch, Conditions(batch.words.text, [handle], posed))
        inside = (masks.sum(1, keepdim=True).clamp(max=1) * batch.known[:, None, None, None]).to(predicted)
        plain = (predicted.float() - batch.goal).square()
        error = (plain * (1 + options.inside * inside)).mean((1, 2, 3)) * velocity_weight(batch.share, options.gamma)
        astray = (misplaced(handle.maps, masks) * batch.known).sum() / batch.known.sum().clamp_min(1)
        total, parts = error.mean() + options.attention * astray, {"mse": plain.mean(), "misplaced": astray}
        if not options.likeness:
            return total, parts
        unlike = self.unlike(predicted, batch)
        return total + options.likeness * unlike, parts | {"unlike": unlike}

    def _single(self, batch: Batch) -> tuple[Batch, Tensor, npt.NDArray[np.float32]]:
        masks = fit_region(batch.own["person"], batch.clean.shape[-2:])[:, None]
        return batch, masks, batch.own["five"].cpu().numpy()[:, None]

    def paired(self, batch: Batch) -> tuple[Batch, Tensor, npt.NDArray[np.float32]]:
        """Pictures of two people: the middle half of each picture beside that of the one before it.

        Returns
        -------
        tuple
            The batch, with the face of the first of both where its own features say one is; (B, 2, h, w) where the
            two are, and (B, 2, 5, 2) the points of their faces.
        """
        width = batch.clean.shape[-1]
        middle = slice(width // 4, width // 4 + width // 2)
        clean = torch.cat([batch.clean[..., middle], batch.clean.roll(1, 0)[..., middle]], -1)
        a = batch.share[:, None, None, None]
        noisy = a.sqrt() * clean + (1 - a).sqrt() * batch.noise
        goal = a.sqrt() * batch.noise - (1 - a).sqrt() * clean
        alone = fit_region(batch.own["person"], clean.shape[-2:])
        left, right = alone[..., middle], alone.roll(1, 0)[..., middle]
        masks = torch.stack([functional.pad(left, (0, left.shape[-1])), functional.pad(right, (left.shape[-1], 0))], 1)
        five = batch.own["five"].cpu().numpy()
        both = np.stack([five - np.float32([0.25, 0]), np.roll(five, 1, 0) + np.float32([0.25, 0])], 1)
        (person,) = batch.people
        people = [person, {name: value.roll(1, 0) for name, value in person.items()}]
        known = batch.known & batch.known.roll(1, 0)
        told = replace(
            batch, clean=clean, noisy=noisy, goal=goal, words=self._both(batch.words), people=people, known=known,
            own=batch.own | {"five": torch.from_numpy(both[:, 0])},
        )  # fmt: skip
        return told, masks, both

    def _both(self, words: Words) -> Words:
        """Captions of each row's person and the one before it; where one has none, none."""
        tokenizer, encoder = self.base.pipeline.tokenizer, self.base.pipeline.text_encoder
        (subject,) = words.subjects
        names = [tokenizer.decode(ids[own]).strip() for ids, own in zip(words.ids, subject, strict=True)]
        texts = [
            f"A photo of {article(one)} and {article(other)}." if one and other else ""
            for one, other in zip(names, names[-1:] + names[:-1], strict=True)
        ]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        ids = ids.to(words.ids.device)
        with torch.no_grad():
            return Words(encoder(ids).last_hidden_state, ids, [torch.zeros_like(subject)] * 2)

    def _posed(self, five: npt.NDArray[np.float32] | None, strength: float) -> Control | None:
        """A control by the points (…, people, 5, 2) of the faces of one picture or several."""
        if five is None:
            return None
        size = self.base.size
        rows = np.asarray(five, np.float32).reshape(-1, *np.shape(five)[-3:])
        drawn = [
            torch.stack([five_picture(one * size[::-1] - 0.5, _VISIBLE, size) for one in row]).amax(0) for row in rows
        ]
        return Control(self.network["control"], torch.stack(drawn).to(self.base.device), strength)
