"""ID-Aligner (Chen et al., 2024): an adapter, or low-rank weights of one person, trained on by rewards.

A picture is made from noise without gradients, to one of the last steps, chosen by chance; the next step has gradients,
and the picture that it sees behind the noise is decoded (algorithms 1 and 2; guidance 1). Two rewards are given:

- for identity (equations 2 to 4 and 7): its face is found, and the vector of a face encoder is to be the reference's;
- for looks (equations 5, 6 and 8): a network is to like it, which learns preferences from pairs by the log-sigmoid of
  the difference of its scores.

L = α₁ · (1 − cosine) + α₂ · (−liking) (equation 9; α₁ = 0.2, α₂ = 0.001), and the usual loss of denoising beside them,
so that the reward is not all that is left.

Nobody's preferences were asked for here. Of a pair, the better one is a picture of the data; the worse one is either
what the network guesses of it through much noise, smeared, or the same picture bent out of shape, which stands for the
paper's twisted poses. The scores are linear in features of the base's image encoder and learned alongside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.diffusion import Base
from ipse.diffusion.adapters import Adapter, AdapterLayer
from ipse.diffusion.attention import attached, layers_of
from ipse.diffusion.components import squared
from ipse.diffusion.spatial import controlled
from ipse.diffusion.trajectory import Denoiser, sample, to_latent, to_pixels
from ipse.diffusion.tuning import fit
from ipse.encoders import Encoder
from ipse.errors import IpseError
from ipse.images import resize
from ipse.personalize.adapting import Adapting, Batch, Conditions, Fitted, Options, Trained, Words
from ipse.personalize.face_adapter import FaceAdapter
from ipse.personalize.references import FaceReader, Features

# Adam's steps do not depend on scale: by this gain the liking learns faster than what it judges.
_GAIN = 25.0
# How far points move that bend a picture, as a share of its sides, and how many there are along a side.
_BEND, _POINTS = 0.12, 4


class Taste(nn.Module):
    """How much a picture is liked: linear in features of the base's image encoder; 0 for all at first.

    Parameters
    ----------
    vision
        A CLIP image encoder; it is used, and neither changed nor kept among the weights.
    centered
        Whether it takes pixels of -1 to 1.
    """

    def __init__(self, vision: nn.Module, *, centered: bool) -> None:
        super().__init__()
        # Within a tuple, the encoder is no submodule.
        self._vision, self._centered = (vision,), centered
        self.norm = nn.LayerNorm(vision.config.projection_dim + vision.config.hidden_size, elementwise_affine=False)
        self.weight = nn.Parameter(torch.zeros(1, *self.norm.normalized_shape))

    def features(self, pixels: Tensor) -> Tensor:
        """(n, …) of pictures (n, 3, H, W) of 0 to 1, with gradients."""
        (vision,) = self._vision
        side = vision.config.image_size
        pixels = squared(pixels, side, gray=0.5)
        seen = vision(pixel_values=2 * pixels - 1 if self._centered else pixels)
        return self.norm(torch.cat([seen.image_embeds, seen.last_hidden_state.mean(1)], 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(n,) scores, to learn preferences by."""
        return _GAIN * (self.features(pixels) @ self.weight[0])

    def reward(self, pixels: Tensor) -> Tensor:
        """(n,) scores that the taste itself learns nothing from."""
        return _GAIN * (self.features(pixels) @ self.weight[0].detach())

    def preference(self, better: Tensor, worse: Tensor) -> Tensor:
        """−log σ(f(better) − f(worse)) of pairs of pictures, the mean (equation 5)."""
        return -functional.logsigmoid(self(better) - self(worse)).mean()


def bent(pixels: Tensor) -> Tensor:
    """Pictures (n, 3, H, W) bent out of shape by a smooth random field."""
    count = len(pixels)
    moved = 2 * _BEND * torch.randn(count, 2, _POINTS, _POINTS, device=pixels.device)
    moved = functional.interpolate(moved, pixels.shape[-2:], mode="bicubic", align_corners=True)
    still = torch.eye(2, 3, device=pixels.device).expand(count, -1, -1)
    places = functional.affine_grid(still, list(pixels.shape), align_corners=False) + moved.permute(0, 2, 3, 1)
    return functional.grid_sample(pixels, places.to(pixels), padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class RewardOptions(Options):
    """How rewards are given.

    Attributes
    ----------
    identity, aesthetic
        Their weights α₁ and α₂; with 0 for both only the loss of denoising is left.
    steps, last
        Of the way from noise, and among how many of the last the one with gradients is chosen.
    seen
        Rows of a batch that rewards see: making pictures is dear.
    """

    identity: float = 0.2
    aesthetic: float = 0.001
    steps: int = 8
    last: int = 3
    seen: int = 4


class Rewarded(Adapting):
    """An `Adapting` whose loss has rewards; its network has a `Taste`."""

    options_kind = RewardOptions

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction, both rewards, and what the taste learns from."""
        options = self.options
        predicted = self.predict(batch)
        error, parts = self.error(predicted, batch)
        if not (options.identity or options.aesthetic):
            return error, parts
        learned = self._learned(predicted, batch)
        strange = found = liked = error.new_zeros(())
        rows = batch.known.nonzero()[: options.seen, 0]
        if len(rows):
            pixels = self._pixels(self.made(batch, rows))
            (person,) = batch.people
            strange, found = self.unlike_made(pixels, person["vector"][rows])
            liked = self.network.taste.reward(pixels).mean()
        parts |= {"unlike_made": strange, "faces": found, "liked": liked, "preference": learned}
        return error + options.identity * strange - options.aesthetic * liked + learned, parts

    def made(self, batch: Batch, rows: Tensor) -> Tensor:
        """(n, c, h, w) the clean latents that one of the last steps from noise sees, with gradients through that."""
        options = self.options
        words = Words(batch.words.text[rows], batch.words.ids[rows], [who[rows] for who in batch.words.subjects])
        people = [{name: value[rows] for name, value in person.items()} for person in batch.people]
        stop = options.steps - 1 - int(torch.randint(min(options.last, options.steps), ()))
        with torch.no_grad():
            acting = self.condition(people, words, 1.0)
            way = replace(self._foundation, unet=self.unet, text=acting.text)
            with attached(self.unet, *acting.handles), controlled(self.unet, acting.control):
                x = sample(way, batch.noise[rows], options.steps, stop=stop)
        acting = self.condition(people, words, 1.0)
        timestep = way.timesteps(options.steps)[stop]
        with attached(self.unet, *acting.handles), controlled(self.unet, acting.control):
            return replace(way, text=acting.text)(x, timestep).clean

    def unlike_made(self, pixels: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """1 less the cosine to vectors (n, D), the mean over pictures with a face, and the share of these."""
        shown = (pixels.detach().permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
        faces = [self.reader.find(picture) for picture in shown]
        rows = [row for row, found in enumerate(faces) if found]
        share = pixels.new_tensor(len(rows) / len(pixels))
        if not rows:
            return pixels.new_zeros(()), share
        size = (pixels.shape[3], pixels.shape[2])
        five = torch.tensor(np.stack([(faces[row][0].face.landmarks + 0.5) / size for row in rows]))
        return 1 - (self.likeness.of(pixels[rows], five) * vectors[rows]).sum(1).mean(), share

    def _learned(self, predicted: Tensor, batch: Batch) -> Tensor:
        """What the taste learns from: pictures against smeared and bent ones."""
        rows = batch.steps.argsort(descending=True)[: self.options.seen]
        with torch.no_grad():
            good = self._pixels(batch.clean[rows])
            smeared = self._pixels(self.guess(predicted, batch)[rows].detach())
        taste = self.network.taste
        return taste.preference(good, smeared) + taste.preference(good, bent(good))

    def _pixels(self, latents: Tensor) -> Tensor:
        return (to_pixels(self.base.pipeline.vae, latents) / 2 + 0.5).clamp(0, 1)

    @cached_property
    def _foundation(self) -> Denoiser:
        return self.base.denoiser("", 1.0)


def _taste(base: Base) -> Taste:
    vision = getattr(base.pipeline, "image_encoder", None)
    if vision is None:
        raise IpseError(f"The base {base.name} has no image encoder to like pictures by.", "Use the world base.")
    return Taste(vision, centered=base.kind == "world")


@system(
    name="ID-Aligner",
    paper="ID-Aligner: Enhancing Identity-Preserving Text-to-Image Generation with Reward Feedback Learning",
    year=2024,
    arxiv="2404.15449",
    room="personalize",
    claim="Rewards for identity and looks make adapters and low-rank weights alike nearer to the person and nicer.",
    evidence=("personalize.id-aligner.*", "personalize.id-aligner-lora.*"),
    works_means=(
        "for an adapter and for low-rank weights, similarity by an encoder that gave no reward rises over where it "
        "began and over as many more steps without rewards; prompt accuracy does not fall, and looks do not collapse."
    ),
    status="experimental",
)
class IDAligner(Rewarded, FaceAdapter):
    """The face adapter, trained on by rewards from where ``start`` of its recipe says; see the module."""

    name = "id-aligner"

    @classmethod
    def build(cls, base: Base, sizes: Mapping[str, int], **options: float) -> nn.Module:
        """See `FaceAdapter.build`."""
        adapter = super().build(base, sizes, **options)
        adapter.taste = _taste(base)
        return adapter


class _LowRank(Rewarded):
    """Low-rank changes of the attention of the U-Net."""

    name = "id-aligner-lora"
    features = ("vector",)

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """The changes, and nothing else."""
        return Conditions(words.text, [self.network.on(self.unet, lora=strength)])


class IDAlignerLoRA:
    """A `Personalizer` that tunes low-rank weights for one person, with rewards; see the module.

    The paper changes the text encoder, too; here it stays as it is, and so does the base, beside which the changes act.

    Parameters
    ----------
    base
        What makes the pictures.
    encoder
        Of faces: it gives the reward, and cannot judge.
    steps, guidance
        As in `Base.generate`.

    Attributes
    ----------
    tuning, rank, rate
        Steps of tuning, rank of the changes, and learning rate.
    options
        How rewards are given.
    """

    name = "id-aligner-lora"
    most_people = 1
    strengths = (0.4, 0.7, 1.0)
    tuning = 60
    rank = 8
    rate = 1e-3
    options = RewardOptions(seen=1)

    def __init__(
        self,
        base: Base,
        *,
        encoder: str | Encoder = "face-world",
        steps: int = 20,
        guidance: float | None = None,
    ) -> None:
        self.base, self.steps, self.guidance = base, steps, guidance
        self.reader = FaceReader(base, encoder)
        told = self.reader.fingerprints(_LowRank.features).values()
        self.trained_with = tuple(dict.fromkeys((*told, *base.trained_with)))

    def fit(self, *people: Sequence[npt.NDArray[np.uint8]]) -> Fitted:
        """Tune for a person (algorithm 2).

        Raises
        ------
        IpseError
            If there is more than one, or the photographs are of no use.
        """
        if len(people) != 1:
            raise IpseError(f"The method {self.name} shows one person, not {len(people)}.", "Name one.")
        (photographs,) = people
        person = self.reader.person(photographs, _LowRank.features)
        clean = self._latents(photographs, person["vector"][0].cpu().numpy())
        unet = self.base.pipeline.unet
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = {layer.index: AdapterLayer(layer, tokens=False, rank=self.rank) for layer in layers_of(unet)}
            network = Adapter(layers)
            network.taste = _taste(self.base)
            record = {"trained_with": self.trained_with, "file": ""}
            method = _LowRank(
                self.base, Trained(network, record), encoder=self.reader.encoder, steps=self.steps,
                guidance=self.guidance,
            )  # fmt: skip
            method.options = self.options
            for part in (unet, self.base.pipeline.vae, self.base.pipeline.image_encoder):
                part.requires_grad_(False)
            _, _, words = method.words("A close-up portrait of {a person}.", 1)
            words = Words(words.text[-1:], words.ids[-1:], [who[-1:] for who in words.subjects])
            fit(network.parameters(), lambda _: method.loss(self._batch(clean, words, person))[0], self.tuning,
                rate=self.rate)  # fmt: skip
        digests = [hashlib.sha256(np.ascontiguousarray(one)).hexdigest() for one in photographs]
        return Fitted(method, [person], [digests])

    def _latents(self, photographs: Sequence[npt.NDArray[np.uint8]], vector: npt.NDArray[np.float32]) -> Tensor:
        """(n, c, h, w) of the faces, cut as portraits, of photographs that show the person of a vector alone."""
        found = [(picture, self.reader.find(picture)) for picture in photographs]
        single = [(picture, faces[0].face) for picture, faces in found if len(faces) == 1]
        like = self.reader.features(*zip(*single, strict=True), ["vector"])["vector"] @ vector
        limit = getattr(self.reader.encoder, "threshold", None) or 2.0
        kept = [pair for pair, own in zip(single, like, strict=True) if own >= min(1 - limit, like.max())]
        height, width = self.base.size
        cut = np.stack([resize(self.reader.portrait(*pair), width, height) for pair in kept])
        vae = self.base.pipeline.vae
        with torch.no_grad():
            pixels = torch.from_numpy(cut).permute(0, 3, 1, 2).to(self.base.device, vae.dtype)
            return to_latent(vae, pixels / 127.5 - 1)

    def _batch(self, clean: Tensor, words: Words, person: Features) -> Batch:
        """All photographs, each with noise of its own, and the same words and person for all."""
        count, scheduler = len(clean), self.base.pipeline.scheduler
        steps = torch.randint(len(scheduler.alphas_cumprod), (count,)).to(clean.device)
        noise = torch.randn(clean.shape).to(clean)
        each = {name: value.expand(count, *value.shape[1:]) for name, value in person.items()}
        told = Words(*(value.expand(count, *value.shape[1:]) for value in (words.text, words.ids)), [
            who.expand(count, -1) for who in words.subjects
        ])  # fmt: skip
        return Batch(
            clean, noise, scheduler.add_noise(clean, noise, steps), steps,
            scheduler.alphas_cumprod.to(clean)[steps], scheduler.get_velocity(clean, noise, steps), told, [each], each,
            torch.ones(count, dtype=torch.bool, device=clean.device),
        )  # fmt: skip
