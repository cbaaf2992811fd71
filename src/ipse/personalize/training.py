"""Training of adapters: the base stands still, and learns nothing of anybody; what is beside it learns to show people.

Pictures and captions are those of `ipse.diffusion.training.data`, latents and features of faces are computed once and
kept beside them. The reference of a picture is another of the same person, of another Look where there is one: what the
two share is who it is, so that there is nothing to gain from copying the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from ipse._files import write_whole
from ipse.diffusion import Base
from ipse.diffusion.training.data import Corpus, column_of, keypoints_of, pack, parts_of, persons_of
from ipse.diffusion.training.denoiser import Captions, DenoiserOptions, draw_steps, latents_of, spread_steps
from ipse.diffusion.training.loop import Feed, Stage, train
from ipse.diffusion.training.recipe import StageRecipe, options_of, size_of
from ipse.diffusion.training.vae import PartWeights
from ipse.encoders import DlibFaceEncoder
from ipse.errors import DataError, TrainingError
from ipse.images import contact_sheet
from ipse.personalize.adapting import Adapting, Batch, Trained, Words, begin_with, elsewhere, read_weights, save_trained
from ipse.personalize.contract import METHODS, class_of
from ipse.personalize.likeness import critic_of
from ipse.personalize.references import PIXEL_FEATURES, PLACES, FaceReader, Features, Reader
from ipse.training.loop import Step
from ipse.training.recipe import read_recipe
from ipse.world.caption import subjects
from ipse.zoo.cache import cache_dir

_BLOCK = 64
# Held-out pictures for the loss; pictures made to look at, and their steps.
_JUDGED, _MADE, _STEPS = 128, 8, 10
_BATCH = 16


@dataclass(frozen=True)
class AdapterRecipe(StageRecipe):
    """A training of an adapter. In its file, ``system`` stands for `stage`; `size` is the base's own.

    Attributes
    ----------
    encoder
        Of what the system reads, such as faces; not that of the public domain, which judges.
    points
        The network that places the five points.
    critic
        The encoder that gives losses on identity: one that was trained to say what `encoder` says, such as
        ``face-robust`` of ``face-world``; or empty for that itself.
    start
        A trained adapter whose weights it begins with, of another system, too; empty for none.
    inputs
        Fingerprints of the base, of the encoders and of `start`, by name: filled in when training begins.
    """

    encoder: str = "face-world"
    points: str = "landmarks-world"
    critic: str = ""
    start: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A recipe from what a YAML file holds; see `StageRecipe.from_dict`."""
        if not isinstance(data, Mapping) or "system" not in data:
            raise TrainingError("The recipe names no system.", "See recipes/adapters/ for examples.")
        return super().from_dict({"stage": data["system"], **{k: v for k, v in data.items() if k != "system"}})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe from a YAML file; see `StageRecipe.load`."""
        return cls.from_dict(read_recipe(path, "recipes/adapters/"))


# --- Features, computed once ------------------------------------------------------------------------------------------


class FeatureStore:
    """Features of all pictures of a corpus's folder, computed once each and mapped into memory.

    Parameters
    ----------
    corpus
        Pictures.
    reader
        What looks at them.
    on_look
        Called with the pictures looked at and their number.
    """

    def __init__(
        self, corpus: Corpus, reader: Reader, on_look: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        self.corpus, self.reader, self.on_look = corpus, reader, on_look
        self._arrays: dict[str, npt.NDArray[np.floating[Any]]] = {}

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """(M,) whether a picture shows one person."""
        places = self[self.reader.place]
        return ~np.isnan(places).reshape(len(places), -1).any(1)

    def give(self, name: str, values: npt.NDArray[np.floating[Any]]) -> None:
        """Take (M, …) of a feature that no network tells, such as where the person is."""
        self._arrays[name] = values

    def __getitem__(self, name: str) -> npt.NDArray[np.floating[Any]]:
        """(M, …) of a feature; NaN or 0 where a picture does not show one person."""
        if name not in self._arrays:
            self._arrays[name] = self._open(name)
        return self._arrays[name]

    def _open(self, name: str) -> npt.NDArray[np.floating[Any]]:
        known = [self.corpus.fingerprint, self.reader.finder, *self.reader.fingerprints([name]).values()]
        key = hashlib.sha256("\n".join(known).encode()).hexdigest()[:24]
        path = self.corpus.folder / f"{name}-{key}.npy"
        if not path.exists():
            try:
                self._fill(name, path.with_suffix(".part.npy"))
                path.with_suffix(".part.npy").rename(path)
            except OSError as error:
                raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Make room.") from error
        return np.load(path, mmap_mode="r")

    def _fill(self, name: str, part: Path) -> None:
        """Look at all pictures; after a break, at those that are missing."""
        pixels, total = self.corpus.pixels, len(self.corpus.pixels)
        place = part.with_suffix(".count")
        start = _count_in(place) if part.exists() else 0
        array = np.load(part, mmap_mode="r+") if start else None
        for first in range(start, total, _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, total))
            if name == self.reader.place:
                values = np.stack([self.reader.locate(picture) for picture in pixels[rows]])
            else:
                values = self.look(name, rows)
            if array is None:
                kind = np.float32 if name in ("five", "length") else np.float16
                array = np.lib.format.open_memmap(part, "w+", kind, (total, *values.shape[1:]))
            array[rows] = values
            array.flush()
            write_whole(place, str(int(rows[-1]) + 1).encode())
            self.on_look(int(rows[-1]) + 1, total)
        place.unlink(missing_ok=True)

    def look(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(n, …) of a feature of some rows of the folder, computed now."""
        return self.reader.look(list(self.corpus.pixels[rows]), self[self.reader.place][rows], name)


def _count_in(place: Path) -> int:
    """The number in a file; 0 where there is none."""
    try:
        return int(place.read_text())
    except (OSError, ValueError):
        return 0


# --- Captions ---------------------------------------------------------------------------------------------------------


class SubjectFinder:
    """Finds the words for a person in captions of the world.

    Parameters
    ----------
    tokenizer
        Of the base.
    """

    def __init__(self, tokenizer: Any) -> None:
        spelled = {tuple(tokenizer(words, add_special_tokens=False)["input_ids"]) for words in subjects()}
        self._spelled = sorted(spelled, key=len, reverse=True)
        longest = sorted(subjects(), key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:an? |the )?(?:{'|'.join(map(re.escape, longest))})\b")

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, L) bool of tokens (B, L): the first words for a person in each row, without the article."""
        out = torch.zeros_like(ids, dtype=torch.bool)
        for row, own in enumerate(ids.tolist()):
            for place in range(len(own)):
                found = next((w for w in self._spelled if tuple(own[place : place + len(w)]) == w), None)
                if found:
                    out[row, place : place + len(found)] = True
                    break
        return out

    def mark(self, caption: str) -> str | None:
        """A caption with the first words for a person in braces; None if there are none."""
        marked, count = self._pattern.subn(lambda found: f"{{{found[0]}}}", caption, count=1)
        return marked if count else None


# --- The stage --------------------------------------------------------------------------------------------------------


class Pairs:
    """References: for a picture, others of the same person.

    Parameters
    ----------
    person, look
        (N,) of each picture. Everybody has two pictures or more.
    one_look
        Whether those of the same Look come first, rather than those of others.
    """

    def __init__(self, person: npt.NDArray[np.int64], look: npt.NDArray[np.int64], one_look: bool = False) -> None:
        self.person, self.look, self.one_look = person, look, one_look
        order = np.argsort(person, kind="stable")
        people, starts = np.unique(person[order], return_index=True)
        self._rows = dict(zip(people.tolist(), np.split(order, starts[1:]), strict=True))

    def __call__(
        self, rows: npt.NDArray[np.int64], draw: np.random.Generator, same: float = 0.0
    ) -> npt.NDArray[np.int64]:
        """For each row another of the same person, of a Look that comes first where there is one; or, as often as
        `same`, the row itself.
        """
        out = rows.copy()
        for place, row in enumerate(rows):
            own = self._rows[int(self.person[row])]
            own = own[own != row]
            others = own[(self.look[own] == self.look[row]) == self.one_look]
            others = others if len(others) else own
            chosen = draw.integers(len(others))
            if draw.random() >= same:
                out[place] = others[chosen]
        return out


class AdapterStage(Stage):
    """Train the adapter of a system.

    Parameters
    ----------
    recipe, corpus, device
        As in `Stage`.
    base
        Stands still.
    method
        Untrained.
    store
        Features of the corpus's folder.
    look
        (M,) Looks of its pictures.
    parts
        (M, height, width) what they show, of `parts_of`, where the options ask for it.
    """

    name = "adapter"

    def __init__(
        self,
        recipe: AdapterRecipe,
        corpus: Corpus,
        device: torch.device,
        base: Base,
        method: Adapting,
        store: FeatureStore,
        look: npt.NDArray[np.int64],
        parts: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        super().__init__(recipe, corpus, device)
        self.weigh = PartWeights(parts, method.options.features, recipe.pixels, device)
        self.base, self.method, self.network = base, method, method.network
        self.trained_with = method.trained_with
        self.store = store
        pipeline = base.pipeline
        self.latents = Feed(latents_of(corpus, pipeline.vae, device, store.on_look), device)
        options = method.options
        told = DenoiserOptions(drop=0.0, full=options.full, short=options.short, gamma=options.gamma)
        self.captions, self.subject = Captions(corpus, told, device), SubjectFinder(pipeline.tokenizer)
        self.pairs = {
            id(part): Pairs(part.person, look[part.rows], method.one_look) for part in (self.corpus, self.held_out)
        }
        self.nobody = method.reader.nobody(method.features)
        self.scheduler = pipeline.scheduler
        self.share = self.scheduler.alphas_cumprod.to(device)

    def seen(self, stored: npt.NDArray[np.int64], more: Sequence[str] = ()) -> Features:
        """Features (n, …) of some rows of the folder: those of the method, and more."""
        out = {}
        for name in dict.fromkeys((*self.method.features, *more)):
            values = self.store.look(name, stored) if name in PIXEL_FEATURES else self.store[name][stored]
            out[name] = torch.from_numpy(np.asarray(values, np.float32)).to(self.device)
        return out

    def batch(
        self, part: Corpus, rows: npt.NDArray[np.int64], references: npt.NDArray[np.int64], tokens: Tensor,
        steps: Tensor, known: Tensor,
    ) -> Batch:  # fmt: skip
        """What the method is trained or judged on: rows of a part of the corpus, with noise from torch."""
        clean = self.latents(part.rows[rows]).float()
        noise = torch.randn_like(clean)
        more = ("five", "vector") if self.method.options.likeness else ()
        own = self.seen(part.rows[rows], (*self.method.regions, *more))
        shown = self.seen(part.rows[references])
        shown |= {name: own[name] for name in PLACES if name in shown}
        nobody = elsewhere(self.nobody, shown)
        person = {
            name: torch.where(known.view(-1, *(1,) * (value.ndim - 1)), value, nobody[name].to(value))
            for name, value in shown.items()
        }
        with torch.no_grad():
            text = self.base.pipeline.text_encoder(input_ids=tokens.long()).last_hidden_state
        return Batch(
            clean,
            noise,
            self.scheduler.add_noise(clean, noise, steps),
            steps,
            self.share[steps],
            self.scheduler.get_velocity(clean, noise, steps),
            Words(text, tokens.long(), [self.subject(tokens)]),
            [person],
            own,
            known,
            self.progress,
            self.counts(part.rows[rows], clean),
        )

    def counts(self, stored: npt.NDArray[np.int64], latents: Tensor) -> Tensor:
        """(n, 1, h, w): how much each place of the latents of some rows of the folder counts, 1 in the mean."""
        weights = nn.functional.adaptive_avg_pool2d(self.weigh(stored), latents.shape[2:])
        return weights / weights.mean((1, 2, 3), keepdim=True)

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's own loss of a batch; see `Stage.loss`."""
        options = self.method.options_at(self.progress)
        self.captions.options = replace(self.captions.options, full=options.full, short=options.short)
        references = self.pairs[id(self.corpus)](rows, draw, options.same)
        tokens = self.captions(self.corpus.rows[rows], draw)
        chance = draw.random(len(rows))
        text_ends, person_ends = np.cumsum([options.drop_both + options.drop_text, options.drop_person])
        silent = torch.from_numpy(chance < text_ends).to(self.device)
        tokens[silent] = torch.from_numpy(self.captions.nothing).to(tokens)
        unknown = (chance < options.drop_both) | ((chance >= text_ends) & (chance < person_ends))
        steps = draw_steps(len(rows), self.share, options.focus, draw)
        known = torch.from_numpy(~unknown).to(self.device)
        return self.method.loss(self.batch(self.corpus, rows, references, tokens, steps, known))

    def figures(self, network: nn.Module) -> dict[str, float]:
        """How good it is on people it was not trained on.

        Returns
        -------
        dict
            ``loss`` of the prediction with full captions; ``loss_nobody`` where nobody is told;
            ``similarity`` of pictures made to their references and to those of others, by the encoder that it was
            trained with; share of them in which a face is found.
        """
        method = self.method.of(network)
        rows = np.arange(min(_JUDGED, len(self.held_out)))
        references = self.pairs[id(self.held_out)](rows, np.random.default_rng(0))
        steps = spread_steps(len(rows), len(self.share)).to(self.device)
        total = {"loss": 0.0, "loss_nobody": 0.0}
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            tokens = self.captions.full(self.held_out.rows[part])
            for name in total:
                torch.manual_seed(start)
                known = torch.full((len(part),), name == "loss", device=self.device)
                chosen = references[start : start + _BATCH], tokens, steps[start : start + _BATCH]
                batch = self.batch(self.held_out, part, *chosen, known)
                loss, _ = method.denoising_error(method.predict(batch), batch)
                total[name] += float(loss) * len(part)
        self._made = self._pictures(method)
        return {name: value / len(rows) for name, value in total.items()} | self._similarity()

    def _pictures(self, method: Adapting) -> list[tuple[int, npt.NDArray[np.uint8]]]:
        """Pictures of some held-out people by captions of other pictures of theirs: (reference's row, picture)."""
        method.steps = _STEPS
        part = self.held_out
        _, rows = np.unique(part.person, return_index=True)
        rows = rows[:_MADE]
        references = self.pairs[id(part)](rows, np.random.default_rng(1))
        made = []
        for row, reference, caption in zip(rows, references, part.captions(rows), strict=True):
            prompt = self.subject.mark(caption)
            if prompt:
                fitted = method.fitted([self.seen(part.rows[[reference]])], [[]])
                made += [(int(part.rows[reference]), one.image) for one in fitted.generate(prompt, 1, int(row))]
        return made

    def _similarity(self) -> dict[str, float]:
        if not self._made:
            return {}
        reader, like, other = self.method.reader, [], []
        known = self.store.look("vector", np.array([row for row, _ in self._made], np.int64))
        for place, (_, picture) in enumerate(self._made):
            vector = reader.vector(picture)
            if vector is not None:
                alike = known @ vector
                like.append(alike[place])
                other += np.delete(alike, place).tolist()
        told = {"faces": len(like) / len(self._made)}
        return told | (
            {"similarity": float(np.mean(like)), "similarity_others": float(np.mean(other))} if other else {}
        )

    def sheet(self, network: nn.Module) -> Image.Image | None:
        """References of held-out people, each beside the picture that was made."""
        pixels = self.store.corpus.pixels
        pairs = [image for row, picture in self._made for image in (np.asarray(pixels[row]), picture)]
        return contact_sheet(pairs, 8, gap=2) if pairs else None

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the adapter: a file called as the system is."""
        save_trained(out / f"{self.recipe.stage}.safetensors", network, self.method.trained.record)


def features_of(
    recipe: AdapterRecipe,
    base: Base,
    data: Sequence[str | Path],
    cache: str | Path | None = None,
    on_pack: Callable[[int, int], None] = lambda done, total: None,
    on_look: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStore:
    """Features of the pictures that a recipe is trained on, each computed when it is first asked for.

    Parameters
    ----------
    recipe, base, data, cache, on_pack, on_look
        As in `train_adapter`, which says what is raised.
    """
    reads = system_of(recipe, base).reads
    corpus = pack(data, cache or cache_dir() / "packs", base.size, on_pack=on_pack)
    points = {"points": recipe.points} if reads is FaceReader else {}
    return FeatureStore(corpus, reads(base, recipe.encoder, **points), on_look)


def system_of(recipe: AdapterRecipe, base: Base) -> type[Adapting]:
    """The class of a recipe's system.

    Raises
    ------
    TrainingError
        If there is none that is trained so, on that base and by that encoder.
    """
    kind = class_of(recipe.stage) if recipe.stage in METHODS else None
    if kind is None or not issubclass(kind, Adapting):
        known = [name for name in METHODS if issubclass(class_of(name), Adapting)]
        raise TrainingError(f"There is no system {recipe.stage!r} to train.", f"There are {', '.join(known)}.")
    if recipe.encoder == DlibFaceEncoder.name:
        raise TrainingError(f"{recipe.encoder} judges: no adapter is trained with it.", "Use face-world.")
    if base.kind != "world":
        raise TrainingError(
            f"The base {base.name} was not trained by ipse.", "Its adapters are published ones: name their file."
        )
    return kind


def stage_of(
    recipe: AdapterRecipe,
    base: Base,
    data: Sequence[str | Path],
    store: FeatureStore,
    stage: type[AdapterStage] = AdapterStage,
) -> tuple[AdapterRecipe, Corpus, Callable[[StageRecipe, Corpus, torch.device], AdapterStage]]:
    """A recipe with all that decides it, what it is trained on, and what makes its stage of both.

    Parameters
    ----------
    recipe, base, data
        As in `train_adapter`, which says what is raised.
    store
        Of `features_of`.
    stage
        What is trained: the adapter alone, or more beside it.
    """
    kind = system_of(recipe, base)
    corpus, reader = store.corpus, store.reader
    recipe = replace(recipe, size=size_of(*base.size))
    if "person" in kind.regions:
        store.give("person", persons_of(data, corpus))
    if "pose" in kind.features:
        store.give("pose", keypoints_of(data, corpus))
    look = column_of(data, corpus, "look")
    chosen = np.flatnonzero(store.found)
    people, counts = np.unique(corpus.person[chosen], return_counts=True)
    chosen = chosen[np.isin(corpus.person[chosen], people[counts > 1])]
    if not len(chosen):
        raise DataError("In the data nobody is to be seen twice.", "Render people with several pictures each.")
    for part in ("unet", "vae", "text_encoder", "image_encoder"):
        if (network := getattr(base.pipeline, part, None)) is not None:
            network.requires_grad_(False).eval()
    encoders = reader.fingerprints(kind.features)
    # What gives a loss has a part in training, too.
    asked = options_of(kind.options_kind, recipe).likeness
    if asked and not isinstance(reader, FaceReader):
        raise TrainingError(
            f"{recipe.stage} reads whole bodies, and `likeness` is of faces.", "Leave it out of the recipe's options."
        )
    taught = reader.fingerprints((*kind.features, "vector")) if asked else encoders
    critic = critic_of(recipe.critic, reader.encoder)
    taught = {**taught, critic.name: critic.fingerprint} if recipe.critic else taught
    kept = [name for name in kind.features if name not in PIXEL_FEATURES]
    sizes = {name: int(store[name].shape[-1]) for name in kept if store[name].ndim > 1}
    begun, start = read_weights(recipe.start) if recipe.start else ({}, "")
    recipe = replace(recipe, inputs={"base": base.fingerprint, **taught} | ({"start": start} if start else {}))
    record = {
        "system": recipe.stage,
        "network": dict(recipe.network),
        "sizes": sizes,
        "base": {"name": base.name, "kind": base.kind, "sha256": base.fingerprint},
        "encoder": recipe.encoder,
        "encoders": encoders,
        "trained_with": list(taught.values()),
        "seed": recipe.seed,
        "steps": recipe.steps,
        "recipe": recipe.fingerprint,
        "data": corpus.fingerprint,
        "license": "Apache-2.0",
    }

    def make(recipe: StageRecipe, corpus: Corpus, device: torch.device) -> AdapterStage:
        method = kind(base, Trained(kind.build(base, sizes, **recipe.network), record), encoder=reader.encoder)
        method.options, method.critic = options_of(kind.options_kind, recipe), critic
        begin_with(method.network, begun)
        parts = parts_of(data, corpus) if method.options.features != 1 else None
        return stage(recipe, corpus, device, base, method, store, look, parts)

    return recipe, corpus.choose(chosen), make


def train_adapter(
    recipe: AdapterRecipe,
    base: Base,
    data: Sequence[str | Path],
    out: str | Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    end: int | None = None,
    cache: str | Path | None = None,
    on_pack: Callable[[int, int], None] = lambda done, total: None,
    on_look: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[Step], None] = lambda step: None,
    stage: type[AdapterStage] = AdapterStage,
) -> dict[str, Any]:
    """Train the adapter of a recipe.

    Parameters
    ----------
    recipe
        How.
    base
        For which; one that was trained by ipse.
    data
        Folders of pictures with captions; see `ipse.diffusion.training.data.pack`.
    out
        Folder of the run.
    resume, minutes, end, on_step
        As in `ipse.diffusion.training.loop.train`.
    cache, on_pack
        As in `ipse.diffusion.training.stages.run`.
    on_look
        Called with pictures looked at for their faces, and their number.
    stage
        As in `stage_of`.

    Returns
    -------
    dict
        The record; empty if time was up before the end.

    Raises
    ------
    TrainingError
        As `train`, and if the recipe names no system that is trained so, or the judge as its encoder.
    DataError
        If data cannot be read or written, or show nobody twice.
    """
    store = features_of(recipe, base, data, cache, on_pack, on_look)
    recipe, corpus, make = stage_of(recipe, base, data, store, stage)
    return train(make, recipe, corpus, out, resume=resume, minutes=minutes, end=end, on_step=on_step)
