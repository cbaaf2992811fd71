"""MasterWeaver (Wei et al., 2024): the words for a face change it as they would change anybody's.

Tokens of an image encoder's features, gathered by learned queries that look at each other in the end, are attended to
beside the text by keys and values of their own. Three things keep that from fixing more than who it is:

- the editing-direction loss. Of a prompt without and with words for the face ("a woman", "a woman, smiling") what each
  layer finds in the text differs; that difference with the person in the network shall point where it does in the base
  alone, at each pixel of the face: 1 − cos(Δ with the person, Δ of the base), at middle levels of noise.
- face-augmented data. The reference is the picture's own face, or that and one of the same person with other
  attributes, or the other alone. The paper edits faces by a GAN; the world renders the same person with other hair,
  glasses, beard and expression.
- the background loss. Another person mixed in shall change nothing outside of the face.

Formulas, shares and ranges are those of the project's published training code, but for this: there the encoder is
trained in two stages, the second with these losses, and here all is trained with them from the beginning; the base
without any tokens stands for one that is shown an empty picture; and the editing direction is asked of a share of the
rows in every step, rather than of all in every second step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.diffusion import Base, layouts
from ipse.diffusion.adapters import Adapter, FinalResampler
from ipse.diffusion.attention import Call, Handle, Where, attached, fit_region, layers_of
from ipse.personalize.adapting import Adapting, Batch, Conditions, Options, Words
from ipse.personalize.references import Features

SUBJECTS = ("woman", "man", "girl", "boy", "person")
"""Who is edited."""
EDITS = (
    "a {}, smiling",
    "a {}, smiling broadly",
    "a {}, looking angry",
    "a {}, looking sad",
    "a {}, looking surprised",
    "a {} with closed eyes",
    "a {} with black hair",
    "a {} with brown hair",
    "a {} with blond hair",
    "a {} with red hair",
    "a {} with gray hair",
    "a {} with short hair",
    "a {} with long hair",
    "a {} wearing round glasses",
    "a {} wearing sunglasses",
    "a {} wearing a cap",
    "a {} with a full beard",
    "a {} with a mustache",
    "a young {}",
    "an elderly {}",
)
"""Words for a face, in words of the world."""
FRAMES = ("A portrait of {}.", "A close-up portrait of {}.", "A headshot of {}.", "A photo of {}.", "A picture of {}.")


@dataclass(frozen=True)
class WeaverOptions(Options):
    """Options of training.

    Attributes
    ----------
    own, both
        How often the reference is the picture's own face, or that and one with other attributes; else the other alone.
        1 and 0 leave the augmentation out.
    edit, background
        Weights of the two losses; 0 leaves one out, and saves its time.
    edited
        Share of the rows of a batch that the editing direction is asked of.
    lowest, highest
        Levels of noise, of 1,000, that it is asked at.
    """

    own: float = 1 / 6
    both: float = 1 / 2
    edit: float = 1.0
    background: float = 1.0
    edited: float = 0.25
    lowest: int = 100
    highest: int = 350


class Directions(Handle):
    """Keeps what layers found in the text, before anything is added to it.

    Parameters
    ----------
    unet
        Its first block with cross-attention behind the middle is looked at.

    Attributes
    ----------
    found
        (B, Q, C) of each layer, with height and width of the feature map.
    """

    def __init__(self, unet: nn.Module) -> None:
        first = min(layer.name.split(".")[1] for layer in layers_of(unet) if layer.cross and "up_blocks" in layer.name)
        self.where = Where("cross", (f"up_blocks.{first}.",))
        self.found: list[tuple[Tensor, tuple[int, int]]] = []

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """As it is."""
        self.found.append((out, call.grid))
        return out


def edit_cosine(mine: Sequence[tuple[Tensor, tuple[int, int]]], base: Sequence[tuple[Tensor, tuple[int, int]]],
                face: Tensor) -> Tensor:  # fmt: skip
    """Cosine between two editing directions, mean over the pixels of the face and over layers.

    Parameters
    ----------
    mine, base
        See `Directions`: 2B rows, B prompts without the edit and the same with it.
    face
        (B, H, W) of 0 to 1: where the face is.
    """
    means = []
    for (own, grid), (other, _) in zip(mine, base, strict=True):
        share = fit_region(face, grid).flatten(1)
        (plain, edited), (base_plain, base_edited) = own.chunk(2), other.chunk(2)
        cosine = functional.cosine_similarity(edited - plain, base_edited - base_plain, -1)
        means.append((share * cosine).sum() / share.sum().clamp_min(1e-6))
    return torch.stack(means).mean()


@system(
    name="MasterWeaver",
    paper="MasterWeaver: Taming Editability and Identity for Personalized Text-to-Image Generation",
    year=2024,
    arxiv="2405.05806",
    room="personalize",
    claim="A faithful identity together with better control by the text than other methods without tuning.",
    evidence=("personalize.masterweaver.*",),
    works_means=(
        "with the editing-direction loss words for the face are met more often at no lower similarity than by the same "
        "adapter without, and directions are nearer to the base's; the augmentation adds a further gain."
    ),
    status="experimental",
)
class MasterWeaver(Adapting):
    """`Adapting` that keeps the base's editing directions; see the module.

    ``network`` of its recipe: ``tokens``, ``depth`` and ``heads`` of the resampler.
    """

    name = "masterweaver"
    features = ("patches",)
    regions = ("face",)
    options_kind = WeaverOptions

    @classmethod
    def build(
        cls, base: Base, sizes: Mapping[str, int], *, tokens: int = 16, depth: int = 1, heads: int = 4
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        context = unet.config.cross_attention_dim
        return Adapter.new(unet, FinalResampler(sizes["patches"], context, context, tokens, depth, heads))

    def published(self, path: Path) -> nn.Module:
        """The project's ``adapter_final.pt``, for Stable Diffusion 1.5 with CLIP ViT-L/14 as its image encoder."""
        return layouts.load(path, self.unet, layout="masterweaver")

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Tokens of the person beside those of the text, in every cross-attention layer."""
        (person,) = people
        # In training there are always two looks, and queries share their attention between these and each other.
        twice = torch.cat([person["patches"]] * 2, 1)
        return self._by(self.network.tokens(twice), words.text, strength)

    def _by(self, tokens: Tensor, text: Tensor, strength: float = 1.0) -> Conditions:
        return Conditions(text, [self.network.on(self.unet, tokens, strength=strength)])

    # --- Training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction, the background loss and the editing-direction loss."""
        options, face, text = self.options, batch.own["face"], batch.words.text
        tokens = self.network.tokens(self.augmented(batch))
        predicted = self.predict(batch, self._by(tokens, text))
        loss, told = self.error(predicted, batch)
        if options.background:
            with torch.no_grad():
                share = 0.2 + 0.6 * torch.rand(len(tokens), 1, 1, device=tokens.device)
                mixed = self.predict(batch, self._by(share * tokens + (1 - share) * tokens.flip(0), text))
            outside = 1 - fit_region(face, predicted.shape[-2:])[:, None]
            background = (outside * (predicted - mixed)).square().mean()
            loss, told = loss + options.background * background, told | {"background": background}
        if options.edit:
            rows = slice(max(1, round(options.edited * len(tokens))))
            cosine = self.edit_direction(batch.clean[rows], tokens[rows], face[rows])
            loss, told = loss + options.edit * (1 - cosine), told | {"edit_cosine": cosine}
        return loss, told

    def augmented(self, batch: Batch) -> Tensor:
        """(B, 2m, C) features of the picture's own face and of one with other attributes, or of one of them twice."""
        (person,) = batch.people
        other, own = person["patches"], batch.own["patches"]
        chance = torch.rand(len(own), 1, 1, device=own.device)
        # Nobody stays nobody.
        known = batch.known[:, None, None]
        own_alone, with_own = chance < self.options.own, chance < self.options.own + self.options.both
        return torch.cat([torch.where(known & with_own, own, other), torch.where(known & own_alone, own, other)], 1)

    def edit_direction(self, clean: Tensor, tokens: Tensor, face: Tensor) -> Tensor:
        """Cosine between the directions of random edits with the person and in the base alone; see `edit_cosine`.

        Parameters
        ----------
        clean
            (B, c, h, w) latents of pictures.
        tokens
            (B, n, C) of the people in them.
        face
            (B, H, W) of 0 to 1: where their faces are.
        """
        options, unet, scheduler = self.options, self.unet, self.base.pipeline.scheduler
        plain, edited = zip(*(_edit() for _ in clean), strict=True)
        steps = torch.randint(options.lowest, options.highest, (len(clean),), device=clean.device)
        noisy = scheduler.add_noise(clean, torch.randn_like(clean), steps).repeat(2, 1, 1, 1)
        text, steps = self._read([*plain, *edited]), steps.repeat(2)

        def found(*handles: Handle) -> list[tuple[Tensor, tuple[int, int]]]:
            seen = Directions(unet)
            with attached(unet, seen, *handles):
                unet(noisy, steps, encoder_hidden_states=text)
            return seen.found

        with torch.no_grad():
            base = found()
        return edit_cosine(found(*self._by(tokens.repeat(2, 1, 1), text).handles), base, face)

    @torch.no_grad()
    def _read(self, prompts: Sequence[str]) -> Tensor:
        pipeline = self.base.pipeline
        ids = pipeline.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        return pipeline.text_encoder(ids.to(self.base.device)).last_hidden_state


def _edit() -> tuple[str, str]:
    """A prompt, and the same with an edit; chance from torch."""
    frame, subject, edit = (options[int(torch.randint(len(options), ()))] for options in (FRAMES, SUBJECTS, EDITS))
    return frame.format(f"a {subject}"), frame.format(edit.format(subject))
