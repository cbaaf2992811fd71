"""The text encoder of the base: what a caption says, in states that a U-Net can read.

A U-Net sees of a text what its cross-attention reads out of the states of single tokens. Contrast with pictures, which
the joint encoder is trained by, asks for one vector of a whole caption only, and much of what single states know gets
lost on the way. So this encoder learns the opposite: facts of the picture are read from its caption by attention, with
one query for each, as a U-Net would read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from ipse.diffusion.components import make_tokenizer
from ipse.diffusion.training.data import Corpus, drawn_captions, up_to_end
from ipse.diffusion.training.loop import Feed, Stage
from ipse.diffusion.training.recipe import StageRecipe, options_of

_JUDGED, _BATCH = 1024, 64
_UNSAID = -1


@dataclass(frozen=True)
class TextOptions:
    """How captions are chosen and facts read.

    Attributes
    ----------
    full
        How often the caption with every fact is taken rather than one of the others.
    keys, values
        Channels that the queries compare, and that they read.
    """

    full: float = 0.7
    keys: int = 48
    values: int = 64


class FactsReader(nn.Module):
    """Reads facts from the states of a text by attention, one query for each.

    Parameters
    ----------
    width
        Channels of the states.
    classes
        How many values each fact has.
    options
        See `TextOptions`.
    """

    def __init__(self, width: int, classes: Sequence[int], options: TextOptions = TextOptions()) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(classes), options.keys) / options.keys**0.5)
        self.keys, self.values = nn.Linear(width, options.keys), nn.Linear(width, options.values)
        self.tell = nn.ModuleList(nn.Linear(options.values, count) for count in classes)

    def forward(self, states: Tensor) -> list[Tensor]:
        """Logits (n, values) of each fact from (n, t, width) states."""
        looks = (self.queries @ self.keys(states).mT).softmax(-1)
        read = looks @ self.values(states)
        return [tell(read[:, number]) for number, tell in enumerate(self.tell)]


class ReadText(nn.Module):
    """A text encoder and what reads it."""

    def __init__(self, encoder: CLIPTextModel, reader: FactsReader) -> None:
        super().__init__()
        self.encoder, self.reader = encoder, reader

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Logits (n, values) of each fact from (n, t) tokens."""
        return self.reader(self.encoder(input_ids=tokens).last_hidden_state)


class TextStage(Stage):
    """Train a `CLIPTextModel` of the joint encoder's shape, from nothing.

    Parameters
    ----------
    recipe, corpus, device
        As in `Stage`.
    config
        The shape.
    facts
        (M,) what all pictures of the corpus's folder show, of `facts_of`.
    """

    name = "text"

    def __init__(
        self,
        recipe: StageRecipe,
        corpus: Corpus,
        device: torch.device,
        config: CLIPTextConfig,
        facts: Sequence[Mapping[str, str]],
    ) -> None:
        super().__init__(recipe, corpus, device)
        self.options = options_of(TextOptions, recipe)
        self.names, numbers, classes = numbered(facts)
        reader = FactsReader(config.hidden_size, classes, self.options)
        self.network: ReadText = ReadText(CLIPTextModel(config), reader)
        self.tokens, self.facts = Feed(corpus.tokens, device), Feed(numbers, device)
        self.end = make_tokenizer().eos_token_id

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """See `missed` and `Stage.loss`."""
        stored = self.corpus.rows[rows]
        which = torch.from_numpy(drawn_captions(len(rows), self.options.full, draw)).to(self.device)
        tokens = self.tokens(stored)[torch.arange(len(rows), device=self.device), which]
        return missed(self.network(up_to_end(tokens, self.end)), self.facts(stored)), {}

    def figures(self, network: nn.Module) -> dict[str, float]:
        """``right`` and ``least``: how often facts are told of full captions of up to 1,024 pictures of other people,
        in the mean over facts that 20 of them have, and of the worst of these.
        """
        rows = self.held_out.rows[:_JUDGED]
        right, known = np.zeros(len(self.names)), np.zeros(len(self.names))
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            true = self.facts(part)
            told = torch.stack([one.argmax(1) for one in network(up_to_end(self.tokens(part)[:, 0], self.end))], 1)
            right += (told == true).sum(0).cpu().numpy()
            known += (true != _UNSAID).sum(0).cpu().numpy()
        often = known >= min(20, known.max())
        shares = right[often] / known[often]
        return {"right": float(shares.mean()), "least": float(shares.min())}

    def sheet(self, network: nn.Module) -> None:
        """There is nothing to see."""
        return None

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of a `CLIPTextModel`."""
        network.encoder.save_pretrained(out / "weights")


def missed(told: Sequence[Tensor], true: Tensor) -> Tensor:
    """Cross-entropy of facts, the mean over all that there are.

    Parameters
    ----------
    told
        Logits (n, values) of each.
    true
        (n, facts) numbers of values, -1 where there is none.
    """
    losses = [
        functional.cross_entropy(logits.float(), true[:, number], ignore_index=_UNSAID, reduction="sum")
        for number, logits in enumerate(told)
    ]
    return torch.stack(losses).sum() / (true != _UNSAID).sum().clamp(min=1)


def numbered(facts: Sequence[Mapping[str, str]]) -> tuple[tuple[str, ...], npt.NDArray[np.int64], tuple[int, ...]]:
    """Facts as numbers.

    Returns
    -------
    tuple
        Names of the facts that have more than one value; (N, names) numbers of values, -1 where a picture does not have
        the fact; and how many values each has.
    """
    values: dict[str, set[str]] = {}
    for one in facts:
        for name, value in one.items():
            values.setdefault(name, set()).add(value)
    order = {
        name: {v: i for i, v in enumerate(sorted(values[name]))} for name in sorted(values) if len(values[name]) > 1
    }
    numbers = [[known.get(one.get(name, ""), _UNSAID) for name, known in order.items()] for one in facts]
    return tuple(order), np.array(numbers, np.int64).reshape(len(facts), len(order)), tuple(map(len, order.values()))
