"""What systems share that put a person into a base by a trained adapter.

A system is a subclass of `Adapting` that says which features it is shown (`Adapting.features`), what is trained
(`Adapting.build`) and how both act (`Adapting.condition`); often no more. Reading photographs, prompts, files,
guidance, strength and the training loss are here and in `ipse.personalize.training`.

Shapes: B rows of a batch, L tokens of a prompt, C channels of the text. With classifier-free guidance a picture is two
rows: the empty prompt with nobody, then the prompt with the person.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ipse._files import write_whole
from ipse.diffusion import Base, Generated
from ipse.diffusion.attention import Handle, attached
from ipse.diffusion.base import Encoded
from ipse.diffusion.spatial import Control, SideAdapter, controlled
from ipse.encoders import Encoder
from ipse.errors import IpseError, WeightsError
from ipse.personalize.contract import marked
from ipse.personalize.likeness import Likeness
from ipse.personalize.references import PLACES, FaceReader, Features, Reader
from ipse.zoo.shipped_files import SHIPPED

FORMAT = "ipse.adapter/1"
ADAPTERS = SHIPPED / "adapters"
"""Where adapters are that come with ipse, each called as its system."""

_ARTICLES = ("a", "an", "the")


@dataclass(frozen=True, eq=False)
class Words:
    """Prompts.

    Attributes
    ----------
    text
        (B, L, C) encoded.
    ids
        (B, L) tokens, of the first text encoder.
    subjects
        Of each person, (B, L) bool: the tokens that stand for them, articles left out.
    """

    text: Tensor
    ids: Tensor
    subjects: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class Conditions:
    """What acts on the network.

    Attributes
    ----------
    text
        (B, L, C) in place of the encoded prompts.
    handles
        On its attention.
    control
        Beside its own features.
    """

    text: Tensor
    handles: Sequence[Handle] = ()
    control: Control | SideAdapter | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step of training sees.

    Attributes
    ----------
    clean, noise, noisy
        (B, c, h, w) latents of the pictures, and what is added to them at `steps`.
    steps
        (B,) levels of noise.
    share
        (B,) ``alphas_cumprod`` there.
    goal
        (B, c, h, w) velocities to predict.
    words
        Captions of the pictures; some are empty.
    people
        Features of references, one entry for each person of a picture; those of `PLACES` are of the picture itself,
        where the person is to be. Some are of nobody.
    own
        Features of the pictures themselves, `Adapting.regions` among them; with a loss on identity also ``five``, where
        the face is, and ``vector``.
    known
        (B,) bool: rows that are told who is shown.
    progress
        Share of the training that is done, from 0 to 1.
    weight
        (B, 1, h, w) how much each place counts, 1 in the mean of a picture; or 1.
    """

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    steps: Tensor
    share: Tensor
    goal: Tensor
    words: Words
    people: Sequence[Features]
    own: Features
    known: Tensor
    progress: float = 0.0
    weight: Tensor | float = 1.0


@dataclass(frozen=True)
class Options:
    """How an adapter is trained, beside what decides it for all networks. Systems may add to it.

    Attributes
    ----------
    full, short
        How often the caption with every fact is taken, and how often one is cut off at a comma or full stop.
    drop_text, drop_person, drop_both
        How often there is no caption, nobody, or neither, for classifier-free guidance.
    same
        How often the reference is the picture itself, rather than another of the same person: of another Look where
        there is one, or of the same for systems that say so.
    gamma, focus, features
        See `ipse.diffusion.training.denoiser.DenoiserOptions`.
    likeness
        Weight of the loss on identity, 1 less the cosine of the face that a prediction stands for and the picture's.
    maps
        Weight, within that loss, of how far the encoder's feature maps of the two faces are apart: the mean squared
        distance of its first stages (as in Zhang et al., 2018, without learned weights).
    seen
        Rows of a batch that it sees: decoding is dear.
    likeness_from, likeness_to
        Shares of the levels of noise between which it sees: with less noise the picture itself still says who it shows,
        behind more no face is to be guessed yet.
    """

    full: float = 0.5
    short: float = 0.2
    drop_text: float = 0.05
    drop_person: float = 0.05
    drop_both: float = 0.05
    same: float = 0.0
    gamma: float = 5.0
    focus: float = 0.0
    features: float = 1.0
    likeness: float = 0.0
    maps: float = 0.0
    seen: int = 2
    likeness_from: float = 0.0
    likeness_to: float = 0.5


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained adapter.

    Attributes
    ----------
    network
        What was trained.
    record
        ``system``, ``network`` (options of `Adapting.build`), ``base``, ``encoders``, ``trained_with``, ``seed``,
        ``recipe``: JSON values.
    sha256
        Of its file; empty where it is not from one.
    """

    network: nn.Module = field(repr=False)
    record: Mapping[str, Any]
    sha256: str = ""


def save_trained(path: str | Path, network: nn.Module, record: Mapping[str, Any]) -> Path:
    """Write an adapter in half precision: a safetensors file that holds its record, too, and the record as JSON."""
    tensors = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in network.state_dict().items()}
    told = {"format": FORMAT, **record}
    write_whole(path, to_bytes(tensors, {"ipse.adapter": json.dumps(told, sort_keys=True)}))
    write_whole(Path(path).with_suffix(".json"), json.dumps(told, indent=1).encode() + b"\n")
    return Path(path)


def read_record(path: str | Path) -> dict[str, Any] | None:
    """The record in an adapter's file; None if ipse did not write it.

    Raises
    ------
    WeightsError
        If the file cannot be read.
    """
    if Path(path).suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get("ipse.adapter")
    except Exception as error:  # safetensors has errors of its own
        raise WeightsError(f"The adapter {path} cannot be read: {error}.", "Name another file.") from error
    if told is None:
        return None
    record = json.loads(told)
    if record.get("format") != FORMAT:
        raise WeightsError(f"{path} is of the format {record.get('format')}.", f"This version reads {FORMAT}.")
    return record


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """The weights in an adapter's file, in single precision, and the file's sha256.

    Raises
    ------
    WeightsError
        If there is no such file, or `save_trained` did not write it.
    """
    if not Path(path).is_file() or read_record(path) is None:
        raise WeightsError(f"There is no adapter {path} to begin with.", f"Train one: {_HOW}.")
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    return tensors, hashlib.sha256(Path(path).read_bytes()).hexdigest()


def begin_with(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network weights of another by their names; what it has beside them stays as it is.

    Raises
    ------
    WeightsError
        If it has no place for some of them.
    """
    own = network.state_dict()
    wrong = [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise WeightsError(
            f"The adapter to begin with has {wrong[0]} and {len(wrong) - 1} more that this one has not.",
            "Name one whose network has the same parts of the same sizes.",
        )
    network.load_state_dict(dict(weights), strict=False)


class Adapting:
    """A `Personalizer` with a trained adapter.

    Parameters
    ----------
    base
        What makes the pictures; it stays as it is.
    adapter
        Its file, or what `Trained` holds; by default that which comes with ipse.
    encoder
        Of faces, or of what else it reads; by default the one that the adapter was trained with, by its name.
    steps, guidance
        As in `Base.generate`.

    Raises
    ------
    WeightsError
        If there is no adapter, or it is of another system, for another base or of another encoder.
    """

    name: ClassVar[str]
    features: ClassVar[tuple[str, ...]]
    """What it is shown of a person; see `ipse.personalize.references`."""
    reads: ClassVar[type[Reader]] = FaceReader
    """What looks at photographs."""
    one_look: ClassVar[bool] = False
    """Whether references are of the same Look where there are such: what somebody wears is part of who is shown."""
    regions: ClassVar[tuple[str, ...]] = ()
    """What training knows of each picture beside these, such as where the face is."""
    prompted: ClassVar[bool] = True
    """Whether it reads prompts."""
    critic: Encoder | None = None
    """Gives the loss on identity in training; by default the reader's encoder does."""
    most_people = 1
    strengths: tuple[float, ...] = (0.4, 0.7, 1.0)
    options_kind: ClassVar[type[Options]] = Options

    def __init__(
        self,
        base: Base,
        adapter: str | Path | Trained | None = None,
        *,
        encoder: str | Path | Encoder | None = None,
        steps: int = 20,
        guidance: float | None = None,
    ) -> None:
        self.base, self.steps, self.guidance = base, steps, guidance
        self.options = self.options_kind()
        if isinstance(adapter, Trained):
            self.reader = self.reads(base, encoder or self.reads.usual)
            self.trained = adapter
        else:
            self._open(adapter, encoder)
        self.trained_with = tuple(dict.fromkeys((*self.trained.record["trained_with"], *base.trained_with)))
        self.network = self.trained.network.to(base.device, base.pipeline.unet.dtype).eval()

    # --- What a system says -----------------------------------------------------------------------------------------

    @classmethod
    def build(cls, base: Base, sizes: Mapping[str, int], **options: Any) -> nn.Module:
        """What is trained, untrained.

        Parameters
        ----------
        base
            That it is for.
        sizes
            Last dimension of each feature by name.
        options
            The recipe's ``network``.
        """
        raise NotImplementedError

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """How the people act on the network.

        Parameters
        ----------
        people
            Features (B, …), one entry for each person of a picture.
        words
            B prompts.
        strength
            0: nothing acts, to the bit; 1: as trained.
        """
        raise NotImplementedError

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What training makes small, and what it is made of: by default the error of the prediction."""
        return self.error(self.predict(batch), batch)

    def options_at(self, progress: float) -> Options:
        """Options of a step of training, of which a share of all comes before it; by default always the recipe's."""
        return self.options

    def published(self, path: Path) -> nn.Module:
        """What is trained, read from a published file or folder."""
        raise WeightsError(f"{path} is no adapter that {self.name} reads.", f"Train one: {_HOW}.")

    # --- Training ---------------------------------------------------------------------------------------------------

    def of(self, network: nn.Module) -> Self:
        """The same with another network, such as the average of one that is being trained."""
        other = copy.copy(self)
        other.network = network
        return other

    def predict(self, batch: Batch, acting: Conditions | None = None) -> Tensor:
        """(B, c, h, w) what the network says of a batch, under the conditions of its people or under others."""
        acting = acting or self.condition(batch.people, batch.words, 1.0)
        with attached(self.unet, *acting.handles), controlled(self.unet, acting.control):
            return self.unet(batch.noisy, batch.steps, encoder_hidden_states=acting.text).sample

    def error(self, predicted: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of denoising, and of identity where the options ask for that."""
        error, parts = self.denoising_error(predicted, batch)
        if not self.options.likeness:
            return error, parts
        unlike = self.unlike(predicted, batch)
        return error + self.options.likeness * unlike, parts | {"unlike": unlike}

    def unlike(self, predicted: Tensor, batch: Batch) -> Tensor:
        """1 less the cosine of the faces of predicted pictures and of these as they are, of rows with some noise; and
        how far their feature maps are apart, where the options weigh that.

        The own picture's face and not the reference's: that would be less like it in expression, too, and what words
        say of the face would count less.
        """
        options = self.options
        level = batch.steps / len(self.base.pipeline.scheduler.alphas_cumprod)
        inside = (level >= options.likeness_from) & (level < options.likeness_to)
        rows = (batch.known & inside).nonzero()[: options.seen, 0]
        if not len(rows):
            return predicted.new_zeros(())
        guess, five, vectors = self.guess(predicted, batch)[rows], batch.own["five"][rows], batch.own["vector"][rows]
        if not options.maps:
            return 1 - (self.likeness(guess, five) * vectors).sum(1).mean()
        with torch.no_grad():
            _, wanted = self.likeness.with_maps(batch.clean[rows], five)
        faces, maps = self.likeness.with_maps(guess, five)
        apart = [(one - other).square().sum(1).mean() for one, other in zip(maps, wanted, strict=True)]
        return 1 - (faces * vectors).sum(1).mean() + options.maps * torch.stack(apart).mean()

    @cached_property
    def likeness(self) -> Likeness:
        """Whose face a latent shows, by the critic."""
        return Likeness(self.base, self.critic or self.reader.encoder)

    def denoising_error(self, predicted: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error, weighted by place and the level of noise, and by itself."""
        from ipse.diffusion.training.denoiser import velocity_weight

        squares = (predicted.float() - batch.goal).square()
        weighed = (squares * batch.weight).mean((1, 2, 3))
        return (weighed * velocity_weight(batch.share, self.options.gamma)).mean(), {"mse": squares.mean()}

    def guess(self, predicted: Tensor, batch: Batch) -> Tensor:
        """(B, c, h, w) the clean latent that a predicted velocity stands for."""
        a = batch.share[:, None, None, None]
        return a.sqrt() * batch.noisy - (1 - a).sqrt() * predicted

    @property
    def paints(self) -> bool:
        """Whether it can paint a part of a picture; see `Fitted.inpaint`."""
        return True

    # --- Using ------------------------------------------------------------------------------------------------------

    @property
    def unet(self) -> nn.Module:
        """The network that is acted on."""
        return self.drawing.pipeline.unet

    @property
    def drawing(self) -> Base:
        """What makes the pictures: the base, unless a system has one of its own."""
        return self.base

    def fit(self, *people: Sequence[npt.NDArray[np.uint8]]) -> Fitted:
        """Look at photographs; nothing is tuned.

        Raises
        ------
        IpseError
            If there are more people than the method can show, or photographs of somebody are of no use.
        """
        if not 1 <= len(people) <= self.most_people:
            raise IpseError(
                f"The method {self.name} shows {_count(self.most_people)}; photographs of {len(people)} were given.",
                "Name fewer, or another method.",
            )
        seen = [self.reader.person(photographs, self.features) for photographs in people]
        shown = [[hashlib.sha256(np.ascontiguousarray(p)).hexdigest() for p in one] for one in people]
        return self.fitted(seen, shown)

    def fitted(self, people: Sequence[Features], photographs: Sequence[Sequence[str]]) -> Fitted:
        """What makes pictures of people whose features are known; see `Fitted`."""
        return Fitted(self, people, photographs)

    def words(self, prompt: str, people: int) -> tuple[str, Encoded, Words]:
        """A prompt without its marks, as the base reads it, and as rows: one, or two with guidance.

        Raises
        ------
        IpseError
            If it does not mark the words for each person, or the base does not read so far.
        """
        text, places = marked(prompt)
        if self.prompted and len(places) != people:
            raise IpseError(
                f"The prompt {prompt!r} marks words for {_count(len(places))}, and there are photographs of {people}.",
                "Put the words for each person in braces: A portrait of {a woman}, smiling.",
            )
        base = self.drawing
        encoded = base.encode_prompt(text, self.guidance)
        tokenizer = base.pipeline.tokenizer
        given = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
        rows = [encoded.text] if encoded.negative is None else [encoded.negative, encoded.text]
        texts = [text] if encoded.negative is None else ["", text]
        ids = torch.tensor(tokenizer(texts, **given)["input_ids"], device=base.device)
        subjects = []
        for start, end in places if self.prompted else ():
            own = torch.zeros_like(ids, dtype=torch.bool)
            own[-1] = _tokens_between(tokenizer, text, start, end, ids.shape[1]).to(ids.device)
            if not own.any():
                raise IpseError(
                    f"The words {text[start:end]!r} stand behind the {ids.shape[1] - 2} tokens that the base reads.",
                    "Put them nearer to the beginning of the prompt, or make it shorter.",
                )
            subjects.append(own)
        return text, encoded, Words(torch.cat(rows), ids, subjects)

    def _open(self, adapter: str | Path | None, encoder: str | Path | Encoder | None) -> None:
        path = Path(adapter) if adapter is not None else ADAPTERS / f"{self.name}.safetensors"
        if not path.exists():
            what = f"There is no adapter {path}." if adapter else f"No adapter for {self.name} comes with ipse yet."
            raise WeightsError(what, f"Train one: {_HOW}; then name its file by --adapter.")
        record = read_record(path) if path.is_file() else None
        if record is None:
            self.reader = self.reads(self.base, encoder or self.reads.usual)
            told = {"file": path.name, "trained_with": list(self.reader.fingerprints(self.features).values())}
            self.trained = Trained(self.published(path), told, _sha256(path))
            return
        self._check(path, record)
        self.reader = self.reads(self.base, encoder or record["encoder"])
        for name, fingerprint in self.reader.fingerprints(self.features).items():
            if record["encoders"].get(name) != fingerprint:
                theirs = " and ".join(f"{name} ({known[:12]})" for name, known in record["encoders"].items())
                raise WeightsError(
                    f"The adapter {path.name} was trained with {theirs}, and here is {name} ({fingerprint[:12]}).",
                    "Name the encoder that it was trained with, or train the adapter again.",
                )
        network = self.build(self.base, record["sizes"], **record["network"])
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise WeightsError(f"{path} is damaged: {' '.join(str(error).split())[:200]}", "Copy it again.") from error
        self.trained = Trained(network, record, hashlib.sha256(path.read_bytes()).hexdigest())

    def _check(self, path: Path, record: Mapping[str, Any]) -> None:
        if record["system"] != self.name:
            raise WeightsError(f"{path} is an adapter of {record['system']}.", f"Use --method {record['system']}.")
        theirs = record["base"]
        if theirs["sha256"] != self.base.fingerprint:
            raise WeightsError(
                f"The adapter {path.name} was trained for the base {theirs['name']} ({theirs['sha256'][:12]}); this is "
                f"{self.base.name} ({self.base.fingerprint[:12]}).",
                "Name its base by --base, or an adapter that was trained for this one.",
            )


class Fitted:
    """An `Adapting` that knows whom to show.

    Parameters
    ----------
    method
        Which.
    people
        Features (1, …) of each.
    photographs
        sha256 of the photographs of each, for provenance.
    """

    def __init__(self, method: Adapting, people: Sequence[Features], photographs: Sequence[Sequence[str]]) -> None:
        self.method, self.people, self.photographs = method, people, photographs

    def generate(self, prompt: str, n: int = 1, seed: int = 0, strength: float = 1.0) -> Iterator[Generated]:
        """Make pictures; see `ipse.personalize.contract.Personalized`."""
        method = self.method
        text, encoded, acting = self._acting(prompt, strength)
        pictures = method.drawing.generate(text, n, seed, method.steps, method.guidance, encoded=encoded)
        if not strength:
            # A system that trains a network of its own has it from here on.
            pictures = method.base.generate(text, n, seed, method.steps, method.guidance)
        yield from self._made(pictures, n, acting, prompt, strength)

    def inpaint(
        self,
        image: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.floating[Any]],
        prompt: str,
        n: int = 1,
        seed: int = 0,
        strength: float = 1.0,
    ) -> Iterator[Generated]:
        """Paint what a mask covers anew, with the person in it.

        Parameters
        ----------
        image, mask
            As in `ipse.diffusion.inpainting.inpaint`.
        prompt, n, seed, strength
            As in `generate`.

        Raises
        ------
        IpseError
            As both of them, and if the method does not paint.
        """
        from ipse.diffusion.inpainting import inpaint

        method = self.method
        if strength and not method.paints:
            raise IpseError(
                f"The method {method.name} does not paint within a mask.", "Use another, such as facechain-fact."
            )
        text, encoded, acting = self._acting(prompt, strength)
        drawing = method.drawing if strength else method.base
        pictures = inpaint(drawing, image, mask, text, n, seed, method.steps, method.guidance, encoded)
        return self._made(pictures, n, acting, prompt, strength)

    def _acting(self, prompt: str, strength: float) -> tuple[str, Encoded, Conditions]:
        """A prompt without its marks, what the network reads of it, and how the people act."""
        method = self.method
        if not strength >= 0:
            raise IpseError(f"The strength is {strength}.", "Use a number from 0 (not at all) to 1 (as trained).")
        with torch.no_grad():
            text, encoded, words = method.words(prompt, len(self.people))
            people = self.people
            if len(words.ids) == 2:
                nobody = method.reader.nobody(method.features)
                people = [beside(elsewhere(nobody, person), person) for person in people]
            acting = method.condition(people, words, strength)
        *negative, positive = acting.text.chunk(len(words.ids))
        return text, replace(encoded, text=positive, negative=negative[0] if negative else None), acting

    def _made(
        self, pictures: Iterator[Generated], n: int, acting: Conditions, prompt: str, strength: float
    ) -> Iterator[Generated]:
        method, more = self.method, self._provenance(prompt, strength)
        for _ in range(n):
            # Nothing acts while whoever asked looks at a picture.
            with attached(method.unet, *acting.handles), controlled(method.unet, acting.control), torch.no_grad():
                picture = next(pictures)
            yield replace(picture, more={**picture.more, **more})

    def _provenance(self, prompt: str, strength: float) -> dict[str, object]:
        trained = self.method.trained
        adapter = {"sha256": trained.sha256} if trained.sha256 else {"file": trained.record.get("file", "")}
        return {
            "method": self.method.name,
            "strength": strength,
            "marked_prompt": prompt,
            "adapter": adapter,
            "encoders": self.method.reader.fingerprints(self.method.features),
            "photographs": self.photographs,
        }


def elsewhere(nobody: Features, person: Features) -> Features:
    """Features of nobody, who is where the person is to be: places are no part of who somebody is."""
    return nobody | {name: person[name] for name in PLACES if name in person}


def beside(first: Features, second: Features) -> Features:
    """Features of rows, and of more rows below them; where one has fewer patches, they are repeated.

    Parameters
    ----------
    first, second
        (A, …) and (B, …) of the same names.
    """
    out = {}
    for name, ours in first.items():
        theirs = second[name]
        if ours.ndim > 2 and ours.shape[1] != theirs.shape[1]:
            ours = ours.repeat(1, theirs.shape[1] // ours.shape[1], *(1,) * (ours.ndim - 2))
        out[name] = torch.cat([ours.to(theirs), theirs])
    return out


def _tokens_between(tokenizer: Any, text: str, start: int, end: int, length: int) -> Tensor:
    """(length,) bool: the tokens of the characters from start to end, but for an article in front."""
    words = text[start:end].split()
    if len(words) > 1 and words[0].lower() in _ARTICLES:
        start += text[start:end].index(words[0]) + len(words[0])

    def count(part: str) -> int:
        return len(tokenizer(part, add_special_tokens=False)["input_ids"]) if part.strip() else 0

    before = 1 + count(text[:start])  # the token of the beginning comes first
    inside = torch.zeros(length, dtype=torch.bool)
    inside[before : before + count(text[start:end])] = True
    inside[-1] = False  # that of the end, where the text goes on
    return inside


def _sha256(path: Path) -> str:
    """Of a file; of a folder, over the names and contents of all files in it."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for one in sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(f"{one.relative_to(path).as_posix()}\0{_sha256(one)}\n".encode())
    return digest.hexdigest()


def _count(people: int) -> str:
    return "nobody" if people == 0 else "one person" if people == 1 else f"{people} people"


_HOW = "ipse train adapter, by a recipe of recipes/adapters"
