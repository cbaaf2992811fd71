"""One folder of the finished stages, which `StableDiffusionPipeline.from_pretrained` loads, and its stages again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from ipse.diffusion.base import FORMAT, JOINT, RECORD, load_base
from ipse.diffusion.components import vocabulary, words
from ipse.diffusion.layouts import write_tensors
from ipse.diffusion.training.denoiser import make_pipeline
from ipse.errors import DataError, TrainingError
from ipse.world.version import VERSION

STAGES = ("joint", "text", "vae", "denoiser")
DECODER = "decoder"
"""The stage that may follow: it makes the autoencoder's decoder sharper."""
PEOPLE = "people"
"""The stage that may follow the denoiser: its U-Net learns to follow who is to be shown; see `ipse.personalize.people`.
"""
JOINT_STAGE = "joint"
"""The stage that making pictures from words does not need."""

_OF_PICTURES = ("vision_model.", "visual_projection.")
# Half precision may change a picture by so much of its range, in the mean over its pixels.
_TOLERANCE = 0.01
_PROMPTS = (
    "A portrait of a young woman with long red hair, smiling.",
    "A headshot of an elderly man, wearing glasses.",
)


def finished(runs: str | Path, stage: str) -> bool:
    """Whether a stage came to its end under the folder of all runs."""
    return (Path(runs) / stage / "record.json").exists()


def load_stage(runs: str | Path, stage: str) -> nn.Module:
    """What a finished stage wrote under the folder of all runs.

    Raises
    ------
    TrainingError
        If the stage is not finished.
    """
    kinds = {
        "joint": CLIPModel,
        "text": CLIPTextModel,
        "vae": AutoencoderKL,
        "decoder": AutoencoderKL,
        "denoiser": UNet2DConditionModel,
        PEOPLE: UNet2DConditionModel,
    }
    folder = Path(runs) / stage / "weights"
    if not finished(runs, stage):
        raise TrainingError(
            f"The stage {stage} is not finished in {runs}.", f"`ipse train base {stage}` with --out {runs} first."
        )
    return kinds[stage].from_pretrained(folder, dtype=torch.float32)


def assemble(
    runs: str | Path, out: str | Path, name: str = "world-base", joint: Literal["whole", "pictures", "none"] = "whole"
) -> dict[str, Any]:
    """Put the finished stages into one folder, in half precision, and check that it makes the same pictures.

    Beside the pipeline's own files it holds the joint encoder, for pictures and for texts, and a record of how all was
    trained.

    Parameters
    ----------
    runs
        The folder with the runs ``joint``, ``text``, ``vae`` and ``denoiser``, and ``decoder`` and ``people`` if those
        are wanted.
    out
        A new folder.
    name
        Of the base.
    joint
        How much of the joint encoder comes along: ``whole``, which compares pictures with texts; ``pictures``, the
        half that reads pictures for adapters; ``none``, for making pictures from words needs none of it.

    Returns
    -------
    dict
        The record, also in ``ipse.json``.

    Raises
    ------
    TrainingError
        If a stage is not finished, they do not fit each other, or half precision changes what comes out.
    DataError
        If the folder is there already, or cannot be written.
    """
    drawing = [stage for stage in STAGES if stage != JOINT_STAGE]
    stages = [
        *(drawing if joint == "none" else STAGES),
        *(stage for stage in (DECODER, PEOPLE) if finished(runs, stage)),
    ]
    text, vae, unet = (load_stage(runs, stage).eval() for stage in drawing)
    if PEOPLE in stages:
        unet = load_stage(runs, PEOPLE).eval()
    sharper = [load_stage(runs, stage).eval() for stage in stages if stage == DECODER]
    for other in sharper:
        if any(
            not torch.equal(value, other.encoder.state_dict()[key]) for key, value in vae.encoder.state_dict().items()
        ):
            raise TrainingError("The decoder was not trained for this autoencoder.", "Train the stage decoder again.")
        vae = other
    if unet.config.cross_attention_dim != text.config.hidden_size:
        raise TrainingError("The U-Net was not trained with this text encoder.", "Train the stage denoiser again.")
    more, of_texts = ({}, {}) if joint == "none" else _parted(load_stage(runs, JOINT_STAGE).eval(), text)
    pipeline = make_pipeline(vae, text, unet, **more)
    exact = _pictures(pipeline)

    folder = Path(out)
    if folder.exists():
        raise DataError(f"{folder} is there already.", "Name a new folder.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        pipeline.to(torch.float16).save_pretrained(part)
        # Older versions of transformers read these instead of tokenizer.json.
        numbers, merges = vocabulary()
        (part / "tokenizer" / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (part / "tokenizer" / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if joint == "whole":
            write_tensors(part / JOINT, {key: value.half() for key, value in of_texts.items()})
        stored = StableDiffusionPipeline.from_pretrained(part, dtype=torch.float32)
        difference = float(np.abs(_pictures(stored) - exact).mean())
        if not difference < _TOLERANCE:
            raise TrainingError(
                f"Half precision changes pictures by {difference:.3f} of their range.", "Train on, with a lower rate."
            )
        for config in part.rglob("config.json"):
            # Where the runs lay is nobody's business.
            told = json.loads(config.read_text())
            told.pop("_name_or_path", None)
            config.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        files = sorted(part.rglob("*.safetensors"))
        for file in files:
            # Safetensors leaves them to their owner alone.
            shutil.copymode(part / "model_index.json", file)
        told = {stage: json.loads((Path(runs) / stage / "record.json").read_text()) for stage in stages}
        record = {
            "format": FORMAT,
            "name": name,
            "license": "Apache-2.0",
            "world": VERSION,
            "words": list(words()),
            "parity": difference,
            "bytes": sum(file.stat().st_size for file in files),
            "sha256": {str(f.relative_to(part)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
            "trained_with": sorted({one for record in told.values() for one in record.get("trained_with", [])}),
            "stages": told,
        }
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        part.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}.", "Name another folder.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return record


def unpack(base: str | Path, runs: str | Path) -> list[str]:
    """Write the stages of an assembled base as finished runs, so that training can go on from them.

    They have the half precision of the base. The joint encoder is one of them where the base has it whole.

    Parameters
    ----------
    base
        ``world``, or a folder of `assemble`.
    runs
        The folder for the runs.

    Returns
    -------
    list of str
        Stages.

    Raises
    ------
    DataError
        If the base has no record of its stages, a run is there already, or the folder cannot be written.
    """
    loaded = load_base(base)
    if "stages" not in loaded.record:
        raise DataError(f"{base} does not tell its stages.", "Name `world`, or a folder of `ipse train base assemble`.")
    pipeline, root = loaded.pipeline, Path(runs)
    stages: dict[str, dict[str, Any]] = dict(loaded.record["stages"])
    if not loaded.compares_texts:
        stages.pop(JOINT_STAGE, None)
    networks = {"text": pipeline.text_encoder, "vae": pipeline.vae, "denoiser": pipeline.unet}
    # An autoencoder's decoder and a sharper one do not both stay in a base, nor do two U-Nets.
    networks |= {DECODER: pipeline.vae, PEOPLE: pipeline.unet}
    if JOINT_STAGE in stages:
        networks[JOINT_STAGE] = loaded.joint()
    for stage in stages:
        if (root / stage).exists():
            raise DataError(f"{root / stage} is there already.", "Name another folder for the runs.")
    for stage, told in stages.items():
        part = root / f".{stage}.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            networks[stage].save_pretrained(part / "weights")
            (part / "record.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            part.rename(root / stage)
        except OSError as error:
            raise DataError(f"{root} cannot be written: {error.strerror or error}.", "Name another folder.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return list(stages)


def _parted(joint: CLIPModel, text: CLIPTextModel) -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    """The joint encoder as a pipeline has it, and what is left: its own encoder of texts."""
    if _shapes(text) != _shapes(joint.text_model):
        raise TrainingError("The text encoder has not the joint encoder's shape.", "Train the stage text again.")
    image = CLIPVisionModelWithProjection(joint.config.vision_config).eval()
    image.vision_model.load_state_dict(joint.vision_model.state_dict())
    image.visual_projection.load_state_dict(joint.visual_projection.state_dict())
    rest = {key: value for key, value in joint.state_dict().items() if not key.startswith(_OF_PICTURES)}
    return {"image_encoder": image}, rest


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in network.state_dict().items()}


def _pictures(pipeline: StableDiffusionPipeline) -> np.ndarray:
    """(n, H, W, 3) of 0 to 1: some prompts, a few steps, always the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(number) for number in range(len(_PROMPTS))]
    return pipeline(list(_PROMPTS), num_inference_steps=8, guidance_scale=3.0, generator=generators, output_type="np")[
        0
    ]
