"""PLIP: pictures of people and what is said of them in one space, so that words find people."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse._files import atomic_write
from ipse.catalogue import system
from ipse.encoders.backbones import backbone
from ipse.errors import DataError, TrainingError, WeightsError
from ipse.images import read_image, resize
from ipse.training.data import WorldRows
from ipse.training.loop import Writing, read_state, save_state
from ipse.training.samplers import IdentitySampler, Sampler, ShuffledSampler
from ipse.training.tasks.common import begin_with, start_file

FORMAT = "ipse.words/1"

_PAD, _MASK, _UNKNOWN, _FIRST = 0, 1, 2, 3
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Vocabulary:
    """Words with numbers.

    Attributes
    ----------
    words
        In the order of their numbers, from 3 on; 0 is padding, 1 what is masked, 2 an unknown word.
    telling
        Those that name an attribute, such as colors and garments.
    """

    words: tuple[str, ...]
    telling: frozenset[str]

    def __len__(self) -> int:
        return len(self.words) + _FIRST

    def encode(self, texts: Sequence[str], length: int = 64) -> npt.NDArray[np.int64]:
        """(N, length) numbers of words; what is beyond the length is left out."""
        number = {word: place for place, word in enumerate(self.words, _FIRST)}
        rows = np.full((len(texts), length), _PAD)
        for row, text in zip(rows, texts, strict=True):
            found = [number.get(word, _UNKNOWN) for word in _WORD.findall(text.lower())][:length]
            row[: len(found)] = found
        return rows


@dataclass(frozen=True, eq=False)
class Described:
    """Pictures of people with captions.

    Attributes
    ----------
    pictures
        (N, H, W, 3) uint8.
    labels
        (N,) numbers of people in one Look: captions speak of clothes.
    people
        (N,) numbers of people.
    captions
        Of each, the one with every fact first.
    facts
        Of each, what the picture shows by attribute.
    """

    pictures: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    people: npt.NDArray[np.int64]
    captions: Sequence[Sequence[str]]
    facts: Sequence[Mapping[str, str]]

    def __len__(self) -> int:
        return len(self.pictures)

    def vocabulary(self, least: int = 3) -> Vocabulary:
        """The words of the captions that come `least` times; those of facts are the telling ones."""
        counts = Counter(word for texts in self.captions for text in texts for word in _WORD.findall(text.lower()))
        words = tuple(sorted(word for word, count in counts.items() if count >= least))
        told = {word for facts in self.facts for value in facts.values() for word in _WORD.findall(value.lower())}
        return Vocabulary(words, frozenset(told & set(words)))


def read_described(
    source: str | Path,
    size: tuple[int, int] = (128, 64),
    files: slice = slice(None),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Described:
    """Read what ``ipse world dataset`` wrote with captions.

    Parameters
    ----------
    source
        The folder.
    size
        Height and width that pictures are brought to.
    files
        Which of its files, by name.
    progress
        Called with the pictures read and their number.

    Raises
    ------
    DataError
        If there is nothing to read, captions are missing, or people are there who are for judging only.
    """
    columns = ["image", "person", "look", "captions", "facts"]
    found, rows = WorldRows.open(source, columns, "Render it with `captions: 3`.", files), []
    total = len(found)
    pictures = np.empty((total, *size, 3), np.uint8)
    for row in found:
        pictures[len(rows)] = resize(read_image(row.pop("image")["bytes"]), size[1], size[0])
        rows.append(row)
        progress(len(rows), total)
    people, looks = (np.array([row[name] for row in rows]) for name in ("person", "look"))
    _, labels = np.unique(people * (looks.max() + 1) + looks, return_inverse=True)
    return Described(
        pictures, labels, people, [row["captions"] for row in rows], [json.loads(row["facts"]) for row in rows]
    )


@dataclass(frozen=True)
class Plan:
    """A training.

    Attributes
    ----------
    steps, people, each, rate, seed
        How often weights move, labels in a batch and pictures of each, the highest learning rate, and of all chance.
    network
        Backbone and its options.
    start
        A network that it begins with, as in `ipse.training.recipe.TrainRecipe`; or empty.
    dim, width, layers
        Length of the vectors, and of the tokens of texts with their layers.
    identity
        Pictures and captions of one label belong together; otherwise only those of one picture, as in CLIP, and a batch
        is as many pictures by chance: others of one label, which would be taken for wrong, are as rare as in the data.
    color, attributes
        Weights of the colorization and of the prediction of masked words; 0 leaves one out.
    temperature
        Of the cosines.
    """

    steps: int = 1500
    people: int = 24
    each: int = 2
    rate: float = 1e-3
    seed: int = 0
    network: Mapping[str, Any] = field(
        default_factory=lambda: {
            "backbone": "iresnet",
            "depths": [1, 2, 3, 2],
            "width": 0.25,
            "stem": 2,
            "dim": 256,
            "size": [128, 64],
        }
    )
    start: str = "body-world"
    dim: int = 128
    width: int = 128
    layers: int = 2
    identity: bool = True
    color: float = 1.0
    attributes: float = 0.5
    temperature: float = 0.07


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norms see their batch as ever, and their running statistics stay.

    Those are of the pictures that come in use, one pass a step, so that networks that are trained with other tasks
    differ in what they learned and not in what they count.
    """
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    before = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracked in zip(norms, before, strict=True):
            norm.track_running_stats = tracked


class PersonWords(nn.Module):
    """Two towers with one space, and what the two tasks between them need.

    Parameters
    ----------
    plan
        Its sizes are used.
    vocabulary
        Of the captions.
    """

    def __init__(self, plan: Plan, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.plan, self.vocabulary = plan, vocabulary
        options = dict(plan.network)
        self.trunk = backbone(options.pop("backbone"), **options)
        self.size = tuple(int(side) for side in plan.network["size"])
        with torch.no_grad():
            channels = self.trunk.eval().feature_map(torch.zeros(1, 3, *self.size)).shape[1]
        self.see = nn.Linear(self.trunk.dim, plan.dim, bias=False)
        self.words = nn.Embedding(len(vocabulary), plan.width, padding_idx=_PAD)
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, plan.width))
        layer = nn.TransformerEncoderLayer(
            plan.width, 4, 2 * plan.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.read = nn.TransformerEncoder(layer, plan.layers, enable_nested_tensor=False)
        self.say = nn.Linear(plan.width, plan.dim, bias=False)
        # Between the towers: places of the picture, words, and one looking at the other.
        self.place = nn.Linear(channels, plan.width)
        self.to_words = nn.MultiheadAttention(plan.width, 4, batch_first=True)
        self.to_places = nn.MultiheadAttention(plan.width, 4, batch_first=True)
        self.paint = nn.Sequential(nn.Linear(2 * plan.width, plan.width), nn.GELU(), nn.Linear(plan.width, 12))
        self.name = nn.Sequential(nn.LayerNorm(plan.width), nn.Linear(plan.width, len(vocabulary)))

    def picture_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, dim) of length 1, of (N, 3, H, W) floats from -1 to 1."""
        return functional.normalize(self.see(self.trunk(pixels)))

    def tokens(self, numbers: torch.Tensor) -> torch.Tensor:
        """(N, L, width) of (N, L) words."""
        return self.read(self.words(numbers) + self.places[:, : numbers.shape[1]], src_key_padding_mask=numbers == _PAD)

    def text_vectors(self, numbers: torch.Tensor) -> torch.Tensor:
        """(N, dim) of length 1, of (N, L) words; at least one in each."""
        there = (numbers != _PAD)[:, :, None].float()
        return functional.normalize(self.say((self.tokens(numbers) * there).sum(1) / there.sum(1)))

    def contrast(self, seen: torch.Tensor, said: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Identity-based contrast: every picture names the captions of its label, and every caption its pictures."""
        cosines = seen @ said.T / self.plan.temperature
        same = labels[:, None] == labels if self.plan.identity else torch.eye(len(labels), dtype=torch.bool)
        wanted = same / same.sum(1, keepdim=True)
        return -((wanted * cosines.log_softmax(1)).sum(1) + (wanted * cosines.T.log_softmax(1)).sum(1)).mean() / 2

    def colorize(self, pixels: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Text-guided colorization: the mean squared error of the colors of a gray picture, painted by the caption."""
        gray = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        with _statistics_kept(self.trunk):
            seen = self.trunk.feature_map(gray)
        places = self.place(seen.flatten(2).transpose(1, 2))
        tokens = self.tokens(numbers)
        told = self.to_words(places, tokens, tokens, key_padding_mask=numbers == _PAD, need_weights=False)
        # Four colors for every place of the map.
        painted = self.paint(torch.cat([places, told[0]], 2)).transpose(1, 2).unflatten(2, seen.shape[2:])
        painted = functional.pixel_shuffle(painted, 2)
        return functional.mse_loss(painted, functional.adaptive_avg_pool2d(pixels, painted.shape[2:]))

    def predict(self, pixels: torch.Tensor, numbers: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Image-guided prediction: the cross-entropy of masked words, seen in the picture."""
        if not hidden.any():
            return pixels.sum() * 0
        with _statistics_kept(self.trunk):
            seen = self.trunk.feature_map(pixels)
        places = self.place(seen.flatten(2).transpose(1, 2))
        tokens = self.tokens(numbers.masked_fill(hidden, _MASK))
        looked = tokens + self.to_places(tokens, places, places, need_weights=False)[0]
        return functional.cross_entropy(self.name(looked[hidden]), numbers[hidden])

    # -- use ---------------------------------------------------------------------------------------------------------

    def fitted(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A picture (H, W, 3) of any size as one of the network's own."""
        return resize(picture, self.size[1], self.size[0])

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """(N, dim) of length 1, of (H, W, 3) pictures of any size that show one person each."""
        found = []
        for start in range(0, len(pictures), 64):
            some = np.stack([self.fitted(each) for each in pictures[start : start + 64]])
            found.append(self.picture_vectors(_pixels(some)).numpy())
        return np.concatenate(found) if found else np.empty((0, self.plan.dim), np.float32)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(N, dim) of length 1.

        Raises
        ------
        DataError
            If a text has no word that is known.
        """
        numbers = self.vocabulary.encode(texts)
        for text, row in zip(texts, numbers, strict=True):
            if not (row >= _FIRST).any():
                raise DataError(
                    f"No word of {text!r} is known.", "Say such as: a man in a red coat with a backpack, in English."
                )
        return self.text_vectors(torch.from_numpy(numbers)).numpy()

    def save(self, path: str | Path, trained: str = "") -> None:
        """Write a safetensors file, filters and matrices in half precision; `trained` is its `run_fingerprint`."""
        from safetensors.torch import save

        tensors = {
            name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
            for name, value in self.state_dict().items()
        }
        words = {"words": self.vocabulary.words, "telling": sorted(self.vocabulary.telling)}
        told = {
            "format": FORMAT,
            "plan": json.dumps(asdict(self.plan)),
            "vocabulary": json.dumps(words),
            "trained": trained,
        }
        with atomic_write(Path(path)) as file:
            file.write(save(tensors, told))


def open_words(path: str | Path) -> PersonWords:
    """Read what `PersonWords.save` wrote.

    Raises
    ------
    WeightsError
        If the file is missing or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise ValueError(f"its format is {told.get('format')}")
            words = json.loads(told["vocabulary"])
            vocabulary = Vocabulary(tuple(words["words"]), frozenset(words["telling"]))
            made = PersonWords(Plan(**json.loads(told["plan"])), vocabulary)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        made.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is no network of pictures and words: {error}.", "`ipse train words DATA` makes one."
        ) from error
    return made.eval()


def run_fingerprint(data: Described, plan: Plan) -> str:
    """sha256 of all that decides what `fit_words` makes: pictures, labels, captions, facts, plan and first weights.

    Raises
    ------
    WeightsError
        If the network that the plan starts with is not there, or damaged.
    """
    start = ""
    if plan.start:
        path = start_file(plan.start)
        try:
            start = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise WeightsError(
                f"The network {path} cannot be read: {error.strerror}.", "Give one that is there, or none."
            ) from error
    # Where the first network lies decides nothing.
    told = [asdict(plan) | {"start": start}, data.pictures.shape, data.labels.tolist()]
    words = [[list(texts) for texts in data.captions], [dict(facts) for facts in data.facts]]
    digest = hashlib.sha256(json.dumps([told, words], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(data.pictures).data)
    return digest.hexdigest()


def _trained_by(weights: Path) -> str:
    """The `run_fingerprint` of a finished network; empty if it knows none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), "pt") as file:
            return (file.metadata() or {}).get("trained", "")
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{weights} is damaged: {error}.", "Remove it, or train in another folder.") from error


@system(
    name="PLIP",
    paper="PLIP: Language-Image Pre-training for Person Representation Learning",
    year=2023,
    arxiv="2305.08386",
    room="training",
    claim="Colors painted by captions, masked words seen in pictures and contrast between identities make a space in "
    "which words find people, and pictures find people, better than contrast between single pictures and captions.",
    evidence=["reid.plip.*"],
    works_means="On world bodies with captions: rank-1 of text to person, accuracy of attributes and mAP between "
    "pictures all above those of contrast between instances with the same data and backbone; without one of the tasks "
    "its own figure falls.",
    status="experimental",
)
def fit_words(
    data: Described, out: str | Path, plan: Plan | None = None, on_step: Callable[[int, int, float], None] | None = None
) -> Path:
    """Train pictures and words into one space (Zuo et al., 2023; from the abstract and summaries).

    Three losses are summed: identity-based contrast between pictures and captions, in which all of one label belong
    together; text-guided colorization of the gray picture; and image-guided prediction of masked words that name
    attributes. One label is a person in one Look, for captions tell clothes. A run that was stopped goes on.

    Parameters
    ----------
    data
        See `read_described`.
    out
        Folder of the checkpoint and of ``words.safetensors``.
    plan
        By default the paper's three tasks.
    on_step
        Called every ten steps with steps done, steps in all and the mean loss.

    Returns
    -------
    pathlib.Path
        The weights; what is there already, trained by the same plan on the same data, is not trained again.

    Raises
    ------
    TrainingError
        If there are too few labels, a loss is no number, or the folder holds another run, finished or not.
    WeightsError
        If the network that it begins with, or a finished one in the folder, cannot be read.
    DataError
        If the folder cannot be written.
    """
    plan, folder = plan or Plan(), Path(out)
    weights, checkpoint = folder / "words.safetensors", folder / "checkpoint.pt"
    ours = {"trained": run_fingerprint(data, plan)}
    if weights.exists():
        if _trained_by(weights) != ours["trained"]:
            raise TrainingError(f"{weights} was trained on other data or by another plan.", "Give another folder.")
        return weights
    torch.manual_seed(plan.seed)
    network = PersonWords(plan, data.vocabulary())
    if plan.start:
        begin_with(network.trunk, plan.start)
    told = [word in network.vocabulary.telling for word in network.vocabulary.words]
    telling = torch.tensor([False] * _FIRST + told)
    sampler = _sampler(data, plan)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps, pct_start=0.1)
    step = 0
    if checkpoint.exists():
        state = read_state(checkpoint, ours)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step = state["step"]
    recent: list[float] = []
    network.train()
    while step < plan.steps:
        torch.manual_seed(int(np.random.SeedSequence([plan.seed, step]).generate_state(1, np.uint64)[0] >> 1))
        loss = _loss(network, data, sampler.batch(step), telling, np.random.default_rng([plan.seed, step]))
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss is {float(loss)} at step {step + 1}.", "Lower the rate.")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        step += 1
        recent.append(float(loss.detach()))
        if on_step and (step % 10 == 0 or step == plan.steps):
            on_step(step, plan.steps, float(np.mean(recent)))
            recent = []
        if step % 100 == 0:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step, **ours}
            with Writing(folder, checkpoint):
                folder.mkdir(parents=True, exist_ok=True)
                save_state(checkpoint, state | {"schedule": schedule.state_dict()})
    with Writing(folder, checkpoint):
        folder.mkdir(parents=True, exist_ok=True)
        network.eval().save(weights, ours["trained"])
        checkpoint.unlink(missing_ok=True)
    return weights


def _sampler(data: Described, plan: Plan) -> Sampler:
    if plan.identity:
        return IdentitySampler(data.labels, plan.people, plan.each, seed=plan.seed, alone="drop")
    return ShuffledSampler(len(data), plan.people * plan.each, plan.seed)


def _loss(
    network: PersonWords, data: Described, rows: npt.NDArray[np.int64], telling: torch.Tensor, draw: np.random.Generator
) -> torch.Tensor:
    """The loss of a batch; every picture comes with one of its captions."""
    plan = network.plan
    pixels = _pixels(data.pictures[rows])
    flipped = torch.from_numpy(draw.random(len(rows)) < 0.5)
    said = list(_captions(data, rows, flipped.tolist(), draw))
    numbers = torch.from_numpy(network.vocabulary.encode(said))
    pixels = torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)
    labels = torch.from_numpy(data.labels[rows])
    loss = network.contrast(network.picture_vectors(pixels), network.text_vectors(numbers), labels)
    if plan.color:
        loss = loss + plan.color * network.colorize(pixels, numbers)
    if plan.attributes:
        hidden = telling[numbers] & (torch.rand(numbers.shape) < 0.5)
        loss = loss + plan.attributes * network.predict(pixels, numbers, hidden)
    return loss


_SIDES = {"left": "right", "right": "left"}


def _captions(
    data: Described, rows: npt.NDArray[np.int64], flipped: Sequence[bool], draw: np.random.Generator
) -> Iterator[str]:
    """A caption of each picture; that of a mirrored one tells left from right the other way."""
    for row, mirrored in zip(rows, flipped, strict=True):
        text = data.captions[row][int(draw.integers(len(data.captions[row])))]
        yield re.sub(r"\b(left|right)\b", lambda found: _SIDES[found[0]], text) if mirrored else text


def _pixels(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
