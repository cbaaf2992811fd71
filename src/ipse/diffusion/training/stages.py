"""The stages by name, each run in its own folder beside the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL

from ipse.diffusion.training.assemble import load_stage
from ipse.diffusion.training.data import Corpus, facts_of, pack, parts_of
from ipse.diffusion.training.decoder import DecoderOptions, DecoderStage
from ipse.diffusion.training.denoiser import DenoiserOptions, DenoiserStage, latents_of
from ipse.diffusion.training.joint import JointStage
from ipse.diffusion.training.loop import Stage, train
from ipse.diffusion.training.recipe import StageRecipe, options_of
from ipse.diffusion.training.text import TextStage
from ipse.diffusion.training.vae import VaeOptions, VaeStage
from ipse.errors import TrainingError
from ipse.training.loop import Step
from ipse.zoo.cache import cache_dir


def run(
    recipe: StageRecipe,
    data: Sequence[str | Path],
    runs: str | Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    end: int | None = None,
    cache: str | Path | None = None,
    on_pack: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> dict[str, Any]:
    """Train the stage of a recipe in the folder of its name.

    Parameters
    ----------
    recipe
        How.
    data
        Folders of pictures with captions; see `ipse.diffusion.training.data.pack`.
    runs
        Folder of the runs of all stages.
    resume, minutes, end, on_step
        As in `ipse.diffusion.training.loop.train`.
    cache
        Folder of decoded pictures; None for ipse's cache.
    on_pack
        Called with pictures decoded, or encoded into latents, and their number.

    Returns
    -------
    dict
        The record; empty if time was up before the end.

    Raises
    ------
    TrainingError
        As `train`, and if a stage before it is not finished.
    DataError
        If data cannot be read or written.
    """

    def parts(corpus: Corpus, wanted: bool) -> npt.NDArray[np.uint8] | None:
        return parts_of(data, corpus) if wanted else None

    def text(recipe: StageRecipe, corpus: Corpus, device: torch.device) -> Stage:
        shape = load_stage(runs, "joint").config.text_config
        return TextStage(recipe, corpus, device, shape, facts_of(data, corpus))

    def vae(recipe: StageRecipe, corpus: Corpus, device: torch.device) -> Stage:
        return VaeStage(recipe, corpus, device, parts(corpus, options_of(VaeOptions, recipe).features != 1))

    def autoencoder(corpus: Corpus, device: torch.device) -> AutoencoderKL:
        vae = load_stage(runs, "vae").to(device).eval()
        # Minutes of work, of which the stage knows nothing.
        latents_of(corpus, vae, device, on_pack)
        return vae

    def decoder(recipe: StageRecipe, corpus: Corpus, device: torch.device) -> Stage:
        shown = parts(corpus, options_of(DecoderOptions, recipe).features != 1)
        return DecoderStage(recipe, corpus, device, autoencoder(corpus, device), shown)

    def denoiser(recipe: StageRecipe, corpus: Corpus, device: torch.device) -> Stage:
        vae, text = autoencoder(corpus, device), load_stage(runs, "text")
        options = options_of(DenoiserOptions, recipe)
        known = parts(corpus, options.parts > 0 or options.features != 1)
        facts = facts_of(data, corpus) if options.often else ()
        return DenoiserStage(recipe, corpus, device, vae, text, known, facts)

    makers: dict[str, Callable[[StageRecipe, Corpus, torch.device], Stage]] = {
        "joint": JointStage,
        "text": text,
        "vae": vae,
        "decoder": decoder,
        "denoiser": denoiser,
    }
    if recipe.stage not in makers:
        raise TrainingError(f"There is no stage {recipe.stage!r}.", f"There are {', '.join(makers)}.")
    with PartialState(cpu=not torch.cuda.is_available()).main_process_first():
        corpus = pack(data, cache or cache_dir() / "packs", recipe.size, on_pack=on_pack)
    return train(
        makers[recipe.stage],
        recipe,
        corpus,
        Path(runs) / recipe.stage,
        resume=resume,
        minutes=minutes,
        end=end,
        on_step=on_step,
    )
