"""Tuning: learned words, low-rank and full changes of weights, each exactly undone.

Learned words (textual inversion, Gal et al., 2022) live beside the text encoder and its tokenizer, which stay as they
are; low-rank changes (LoRA, Hu et al., 2021) are peft's and can be switched off to the bit; full changes are undone
by `restored`. Pivotal tuning learns a word, then weights around it (Roich et al., 2021; Ruiz et al., 2022, for prior
preservation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ipse.diffusion.adapters import word_vectors
from ipse.diffusion.attention import Call, Handle, Layer, Where, fit_region
from ipse.errors import IpseError, WeightsError

if TYPE_CHECKING:
    from diffusers import DDIMScheduler
    from transformers import CLIPTextModel, PreTrainedTokenizerBase

# --- Words ------------------------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Learned words, each of one vector or more, for all of the network or for parts of it.

    Parameters
    ----------
    text_encoder, tokenizer
        They are used, and neither changed nor kept among the weights.
    names
        What stands for the person in prompts, such as ``"<someone>"``, and the word that its vectors begin as.
    vectors
        How many for each name.
    levels
        Sets of them: for layers or steps of their own (P+, Voynov et al., 2023), see `encode`.

    Attributes
    ----------
    vectors
        (levels, names · vectors, width).
    """

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerBase,
        names: Mapping[str, str],
        *,
        vectors: int = 1,
        levels: int = 1,
    ) -> None:
        super().__init__()
        # Within a tuple, the encoder is no submodule.
        self._encoder = (text_encoder,)
        self._tokenizer = tokenizer
        self.names = tuple(names)
        self.each = vectors
        table = text_encoder.get_input_embeddings().weight
        starts = []
        for name, word in names.items():
            ids = self._plain(word)
            if not ids:
                raise IpseError(f"The word {name!r} has nothing to begin as.", "Give a word such as 'person'.")
            # A word of several tokens begins as their mean.
            starts.append(table[ids].mean(0).expand(vectors, -1))
        self.vectors = nn.Parameter(torch.cat(starts).detach().float().repeat(levels, 1, 1))

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []

    def _ids(self, prompt: str) -> tuple[list[int], list[int]]:
        """Tokens of a prompt, and for each the number of its learned vector, or -1."""
        tokenizer = self._tokenizer
        pieces: list[tuple[str, int]] = [(prompt, -1)]
        for number, name in enumerate(self.names):
            split: list[tuple[str, int]] = []
            for piece, owner in pieces:
                parts = piece.split(name) if owner < 0 else [piece]
                for i, part in enumerate(parts):
                    split += [(name, number)] * (i > 0) + [(part, owner)]
            pieces = split
        ids, numbers = [tokenizer.bos_token_id], [-1]
        for piece, owner in pieces:
            if owner < 0:
                plain = self._plain(piece)
                ids, numbers = ids + plain, numbers + [-1] * len(plain)
            else:
                # Any token does: its embedding is replaced.
                ids += [tokenizer.eos_token_id] * self.each
                numbers += range(owner * self.each, (owner + 1) * self.each)
        limit = tokenizer.model_max_length
        if any(number >= 0 for number in numbers[limit - 1 :]):
            raise IpseError(
                f"The learned word in {prompt!r} stands beyond the {limit} tokens that are read.", "Shorten the prompt."
            )
        ids, numbers = ids[: limit - 1] + [tokenizer.eos_token_id], numbers[: limit - 1] + [-1]
        rest = limit - len(ids)
        return ids + [tokenizer.pad_token_id] * rest, numbers + [-1] * rest

    def encode(self, prompts: str | Sequence[str], *, layer: int = -1) -> Tensor:
        """Encode prompts with the learned words, for ``prompt_embeds``.

        Parameters
        ----------
        prompts
            One or more; names may stand in them anywhere and many times.
        layer
            Of the text encoder: -1 the last, after its norm (Stable Diffusion), -2 the one before (SDXL).

        Returns
        -------
        Tensor
            (B, L, C); with several levels (levels, B, L, C), for `Texts`.
        """
        (encoder,) = self._encoder
        both = [self._ids(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        ids, numbers = (torch.tensor(rows, device=self.vectors.device) for rows in zip(*both, strict=True))
        words = numbers >= 0
        out = []
        for level in self.vectors:
            with word_vectors(encoder, level[numbers[words]], words):
                found = encoder(ids, output_hidden_states=layer != -1)
            out.append(found.last_hidden_state if layer == -1 else found.hidden_states[layer])
        return out[0] if len(out) == 1 else torch.stack(out)

    def save(self, path: str | Path) -> None:
        """Write the words (safetensors), for `read`; diffusers' ``load_textual_inversion`` reads one word of one level.

        A word is (vectors, width), or with several levels (levels, vectors, width).

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        from ipse.diffusion.layouts import write_tensors

        own = self.vectors.unflatten(1, (-1, self.each)).transpose(0, 1)
        own = own.squeeze(1) if len(self.vectors) == 1 else own
        write_tensors(path, dict(zip(self.names, own, strict=True)))

    def read(self, path: str | Path) -> None:
        """Take words of `save`, or of diffusers' textual inversion in safetensors; those of one level for all levels.

        Raises
        ------
        WeightsError
            If a name is missing there, or has other vectors.
        """
        from ipse.diffusion.layouts import read_tensors

        found = read_tensors(path)[0]
        levels, _, width = self.vectors.shape
        for number, name in enumerate(self.names):
            vectors = found.get(name)
            if vectors is not None and vectors.ndim == 1:
                vectors = vectors[None]
            if vectors is None or vectors.shape not in ((self.each, width), (levels, self.each, width)):
                what = "is not there" if vectors is None else f"is {tuple(vectors.shape)}"
                raise WeightsError(
                    f"In {path} the word {name!r} {what}; {self.each} vectors of {width} are wanted.",
                    f"The file has {', '.join(found)}; use the names, numbers and base that it was learned with.",
                )
            self.vectors.data[:, number * self.each : (number + 1) * self.each] = vectors


class Texts(Handle):
    """Texts of their own for layers and steps: a learned word per layer (P+) or per step (ProSpect).

    Parameters
    ----------
    choices
        (where, text (B or 1, L, C)); the first that fits counts, and where none does, the text of the call.
    rows
        Rows of the batch; with classifier-free guidance in diffusers' pipelines, those of the prompt are the second
        half.
    """

    where = Where("cross")

    def __init__(self, choices: Sequence[tuple[Where, Tensor]], *, rows: slice = slice(None)) -> None:
        self.choices = choices
        self.rows = rows

    def _fitting(self, call: Call) -> Tensor | None:
        fitting = (text for where, text in self.choices if where.covers(call.layer) and where.now(call))
        return next(fitting, None)

    def covers(self, layer: Layer) -> bool:
        """Whether a text may fit the layer."""
        return layer.cross and any(where.covers(layer) for where, _ in self.choices)

    def wants(self, call: Call) -> bool:
        """Whether one does now."""
        return self._fitting(call) is not None

    def context(self, call: Call, context: Tensor) -> Tensor:
        """The text that fits."""
        text = self._fitting(call)
        changed = context.clone()
        own = changed[self.rows]
        changed[self.rows] = text.to(own).repeat_interleave(len(own) // len(text), 0)
        return changed


# --- Weights ----------------------------------------------------------------------------------------------------------

UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention of a U-Net."""
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The attention of a text encoder."""


def _lora_layers(network: nn.Module, name: str) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {
        key: module
        for key, module in network.named_modules()
        if isinstance(module, LoraLayer) and name in module.lora_A
    }


def _refuse_taken(network: nn.Module, name: str) -> None:
    if _lora_layers(network, name):
        raise IpseError(
            f"The network has a low-rank change {name!r} already.", "Give another name, or remove it first."
        )


def add_lora(
    network: nn.Module, rank: int, *, name: str = "default", targets: Sequence[str] = UNET_TARGETS, seed: int = 0
) -> list[nn.Parameter]:
    """Add a low-rank change to linear maps; it changes nothing until it is trained.

    Parameters
    ----------
    network
        A U-Net or text encoder. Its own weights are frozen.
    rank
        Of the change.
    name
        To tell several apart.
    targets
        Ends of the names of the maps.
    seed
        Of the random half.

    Returns
    -------
    list
        The parameters to train.
    """
    from peft import LoraConfig, inject_adapter_in_model

    _refuse_taken(network, name)
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights="gaussian")
        inject_adapter_in_model(config, network, adapter_name=name)
    layers = _lora_layers(network, name).values()
    for layer in layers:
        # peft leaves only the newest on.
        layer.set_adapter(list(layer.lora_A))
    network.requires_grad_(False)
    parameters = [layer[name].weight for module in layers for layer in (module.lora_A, module.lora_B)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def set_strength(network: nn.Module, strength: float, *, name: str = "default") -> None:
    """Multiply a low-rank change: 1 as trained, 0 nothing."""
    for layer in _present(network, name).values():
        layer.set_scale(name, strength)


def _present(network: nn.Module, name: str) -> dict[str, Any]:
    layers = _lora_layers(network, name)
    if not layers:
        raise IpseError(f"The network has no low-rank change {name!r}.", "Add one by `add_lora` or `load_lora`.")
    return layers


@contextmanager
def lora_off(network: nn.Module) -> Iterator[None]:
    """Without any low-rank change, to the bit, for the time of a ``with`` block."""
    from peft.tuners.lora import LoraLayer

    # Those that are off already are another block's.
    layers = [one for one in network.modules() if isinstance(one, LoraLayer) and not one.disable_adapters]
    trained = [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        # peft freezes them when it turns them off, and trains them when it turns them on.
        for parameter, required in trained:
            parameter.requires_grad_(required)


def remove_lora(network: nn.Module, *, merge: bool = False) -> None:
    """Take all low-rank changes out of a network.

    Parameters
    ----------
    network
        It has its own linear maps again, with their own weights to the bit; unless merged.
    merge
        Write the changes into the weights first.
    """
    from peft.tuners.lora import LoraLayer

    for key, module in list(network.named_modules()):
        if isinstance(module, LoraLayer):
            if merge:
                module.merge()
            parent, _, child = key.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())
    # peft's record of what it added; it would warn of it the next time.
    if hasattr(network, "peft_config"):
        del network.peft_config


def save_lora(networks: Mapping[str, nn.Module], path: str | Path, *, name: str = "default") -> None:
    """Write low-rank changes as diffusers' ``load_lora_weights`` reads them (safetensors).

    Parameters
    ----------
    networks
        By the name of the component: ``{"unet": unet, "text_encoder": text_encoder}``.
    path
        ``…/pytorch_lora_weights.safetensors``.
    name
        As in `add_lora`.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    from ipse.diffusion.layouts import write_tensors

    tensors = {}
    for component, network in networks.items():
        for key, layer in _present(network, name).items():
            for half, part in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
                tensors[f"{component}.{key}.{half}.weight"] = part[name].weight
    write_tensors(path, tensors)


def load_lora(networks: Mapping[str, nn.Module], path: str | Path, *, name: str = "default") -> None:
    """Add low-rank changes of `save_lora` to networks.

    Parameters
    ----------
    networks
        As in `save_lora`; all components of the file.
    path, name
        As in `save_lora`.

    Raises
    ------
    WeightsError
        If the file is for other networks, or not all of one change; then they are as before.
    IpseError
        If a network has a change of that name already; then, too.
    """
    from ipse.diffusion.layouts import read_tensors

    tensors = read_tensors(path)[0]
    halves = (".lora_A.weight", ".lora_B.weight")
    maps = {key.removesuffix(half) for key in tensors for half in halves if key.endswith(half)}
    ranks = {(key.split(".")[0], len(tensor)) for key, tensor in tensors.items() if key.endswith(halves[0])}
    components = {component for component, _ in ranks}
    if {key + half for key in maps for half in halves} != tensors.keys() or len(ranks) != len(components):
        raise WeightsError(
            f"{path} is not one low-rank change of linear maps, with both halves of each and one rank for a network.",
            "Give a file of `save_lora`; diffusers' load_lora_weights reads others.",
        )
    for network in networks.values():
        _refuse_taken(network, name)
    plans = []
    for component in sorted(components):
        own = {k.removeprefix(f"{component}."): t for k, t in tensors.items() if k.startswith(f"{component}.")}
        targets = sorted({key.rpartition(".lora_")[0] for key in own})
        modules = dict(networks[component].named_modules()) if component in networks else {}
        wrong = [
            target
            for target in targets
            # Linear maps, and those that have a low-rank change already.
            if (getattr(modules.get(target), "out_features", 0), getattr(modules.get(target), "in_features", 0))
            != (own[f"{target}.lora_B.weight"].shape[0], own[f"{target}.lora_A.weight"].shape[1])
        ]
        if wrong:
            raise WeightsError(
                f"{path} is for another {component}: {len(wrong)} of its {len(targets)} maps do not fit ({wrong[0]}).",
                "Load the base that it was trained on, and give all components of the file.",
            )
        plans.append((networks[component], own, targets))
    for network, own, targets in plans:
        add_lora(network, own[f"{targets[0]}.lora_A.weight"].shape[0], name=name, targets=targets)
        for key, layer in _lora_layers(network, name).items():
            layer.lora_A[name].weight.data.copy_(own[f"{key}.lora_A.weight"])
            layer.lora_B[name].weight.data.copy_(own[f"{key}.lora_B.weight"])


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Give a network its weights back, to the bit, at the end of a ``with`` block: for full fine-tuning."""
    before = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
    try:
        yield
    finally:
        network.load_state_dict(before)


# --- Training ---------------------------------------------------------------------------------------------------------


def denoising_loss(
    unet: nn.Module,
    scheduler: DDIMScheduler,
    clean: Tensor,
    text: Tensor,
    generator: torch.Generator,
    *,
    mask: Tensor | None = None,
    added: Mapping[str, Tensor] | None = None,
    spatial: Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor] | None], dict[str, Any]] | None = None,
) -> Tensor:
    """Mean squared error of the prediction for one random level of noise per row (Ho et al., 2020).

    For prior preservation, add the loss of pictures of the class, times a weight (DreamBooth).

    Parameters
    ----------
    unet, scheduler
        The network, and its levels of noise and kind of prediction.
    clean
        (B, c, h, w) latents.
    text
        (B, L, C) encoded prompts.
    generator
        Of levels and noise, on the CPU.
    mask
        (H, W) or (B, 1, H, W) of 0 to 1: where the error counts.
    added, spatial
        As in `ipse.diffusion.trajectory.Denoiser`.
    """
    levels = torch.randint(len(scheduler.alphas_cumprod), (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    a = scheduler.alphas_cumprod[levels].to(clean)[:, None, None, None]
    x = a.sqrt() * clean + (1 - a).sqrt() * noise
    velocity = scheduler.config.prediction_type == "v_prediction"
    goal = a.sqrt() * noise - (1 - a).sqrt() * clean if velocity else noise
    levels = levels.to(clean.device)
    extra = spatial(x, levels, text, added) if spatial is not None else {}
    out = unet(x, levels, encoder_hidden_states=text, added_cond_kwargs=added, **extra).sample
    error = (out - goal).square()
    if mask is None:
        return error.mean()
    weight = fit_region(mask.to(error), error.shape[-2:]).expand_as(error)
    return (error * weight).sum() / weight.sum().clamp_min(1e-8)


def fit(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[torch.Generator], Tensor],
    steps: int,
    *,
    rate: float,
    seed: int = 0,
) -> list[float]:
    """Train parameters by AdamW.

    Parameters
    ----------
    parameters
        Of `Words`, `add_lora`, an adapter or a network.
    loss
        Given a generator on the CPU, a number; such as `denoising_loss` of a batch drawn by it.
    steps, rate
        How many, and the learning rate.
    seed
        Of the generator.

    Returns
    -------
    list
        The loss of each step.

    Raises
    ------
    IpseError
        If the loss is no number any more.
    """
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(generator)
        if not torch.isfinite(value):
            raise IpseError(f"The loss of step {step} is no number.", "Lower the learning rate.")
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


def pivotal(
    words: Words,
    unet: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    *,
    word_steps: int,
    weight_steps: int,
    word_rate: float = 5e-3,
    weight_rate: float = 1e-4,
    rank: int = 8,
    seed: int = 0,
) -> list[float]:
    """Learn a word, then low-rank weights around it while the word stands still.

    Parameters
    ----------
    words, unet
        What is tuned; the network's change is called ``"pivotal"``.
    loss
        As in `fit`; it encodes its prompts by `words`.
    word_steps, weight_steps, word_rate, weight_rate, rank, seed
        Of the two halves.

    Returns
    -------
    list
        The loss of each step.
    """
    words.requires_grad_(True)
    losses = fit(words.parameters(), loss, word_steps, rate=word_rate, seed=seed)
    words.requires_grad_(False)
    parameters = add_lora(unet, rank, name="pivotal", seed=seed)
    return losses + fit(parameters, loss, weight_steps, rate=weight_rate, seed=seed + 1)
