"""The base: the text-to-image components that a method runs on.

::

    base = load_base("world")          # or a folder, or the id of a hub such as "owner/stable-diffusion-v1-5"
    for picture in base.generate("A portrait of a smiling woman with red hair.", n=4, seed=1):
        ...                            # picture.image, picture.seed

``world``, of portraits, and ``world-body``, of whole bodies, come with ipse and were trained on people who do not
exist; ``sd15`` and ``sdxl`` are whatever a folder or a hub holds in the layouts of Stable Diffusion 1.5 and SDXL. The
classes are the same for all.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.errors import IpseError, WeightsError
from ipse.zoo.shipped_files import SHIPPED

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from transformers import CLIPModel

    from ipse.diffusion.trajectory import Denoiser

FORMAT = "ipse.base/1"
RECORD = "ipse.json"
"""File of a folder that `ipse train base assemble` wrote: words, checksums, how it was trained."""
JOINT = "joint.safetensors"
"""File beside it: what the joint encoder has beyond the text encoder and the image encoder."""

KINDS = ("world", "sd15", "sdxl")

#: What guidance a kind is used with where nobody says.
GUIDANCE = {"world": 2.0, "sd15": 7.5, "sdxl": 5.0}

#: Ways to go through the steps, as classes of diffusers: DDIM (Song et al., 2021), and DPM-Solver++ (Lu et al., 2022),
#: which needs fewer of them.
SAMPLERS = {"ddim": "DDIMScheduler", "dpm": "DPMSolverMultistepScheduler"}

#: Bases that come with ipse: of portraits, and of whole bodies.
COMES_WITH = {"world": SHIPPED / "world-base", "world-body": SHIPPED / "body-base"}

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Generated:
    """A picture and where it comes from.

    Attributes
    ----------
    image
        (height, width, 3) uint8.
    prompt, seed, steps, guidance
        What it was made by; for `Base.generate`, alone, with the same base, they make it again.
    more
        What else it was made by: JSON values for its provenance, which may replace the entries of others.
    origin
        What shows it to be no photograph, in words.
    """

    image: npt.NDArray[np.uint8] = field(repr=False)
    prompt: str
    seed: int
    steps: int
    guidance: float
    more: Mapping[str, object] = field(default_factory=dict)
    origin: str = "Made by a generative network; it does not show a real scene."


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the network reads it: B rows of L tokens with C channels.

    Attributes
    ----------
    text
        (B, L, C).
    negative
        (B, L, C) of the empty prompt; None without classifier-free guidance.
    pooled, negative_pooled
        (B, channels) for SDXL; None for others.
    """

    text: torch.Tensor
    negative: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    negative_pooled: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Base:
    """Text-to-image components.

    Attributes
    ----------
    name
        What its record calls it, or the folder's name, or the id on the hub.
    kind
        One of `KINDS`.
    pipeline
        A `StableDiffusionPipeline` or a `StableDiffusionXLPipeline`, without a progress bar.
    folder
        Where the files lie, or None.
    record
        What ``ipse.json`` says, for a base that was trained by ipse.
    """

    name: str
    kind: str
    pipeline: DiffusionPipeline = field(repr=False)
    folder: Path | None = field(default=None, repr=False)
    record: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all weights, each rounded to half precision: the same however they were stored and loaded."""
        import torch

        digest = hashlib.sha256()
        for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            part = getattr(self.pipeline, name, None)
            for key, value in sorted(part.state_dict().items()) if part is not None else ():
                digest.update(f"{name}.{key}{tuple(value.shape)}".encode())
                digest.update(value.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def trained_with(self) -> tuple[str, ...]:
        """Fingerprints of encoders that gave a loss in its training, and cannot judge its pictures."""
        return tuple(self.record.get("trained_with", ()))

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape of a latent: channels, height, width."""
        config = self.pipeline.unet.config
        side = config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return config.in_channels, height, width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        _, height, width = self.latent
        scale = self.pipeline.vae_scale_factor
        return height * scale, width * scale

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.pipeline.unet.device

    @property
    def words(self) -> frozenset[str]:
        """The words that a base of the world was trained with, in lower case; empty for others, who know most."""
        return frozenset(self.record.get("words", ()))

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt that the base was not trained with, in their order; none for bases that know most."""
        found = dict.fromkeys(word.lower() for word in _WORD.findall(prompt))
        return [word for word in found if self.words and word not in self.words]

    @property
    def compares_texts(self) -> bool:
        """Whether the base has the whole joint encoder of pictures and captions, and not its half of pictures alone."""
        image = getattr(self.pipeline, "image_encoder", None)
        return image is not None and self.folder is not None and (self.folder / JOINT).exists()

    def joint(self) -> CLIPModel:
        """The joint encoder of pictures and captions that a base of the world was trained with.

        Raises
        ------
        WeightsError
            If the base has none, or its half of pictures alone, or its file is damaged.
        """
        from safetensors.torch import load_file
        from transformers import CLIPConfig, CLIPModel

        if self.folder is None or not self.compares_texts:
            raise WeightsError(
                f"The base {self.name} has no joint encoder for texts.",
                "Train one: `ipse train base joint`, then `ipse train base assemble FOLDER`, which keeps it whole.",
            )
        image, text = self.pipeline.image_encoder, self.pipeline.text_encoder
        with _reading(self.name):
            model = CLIPModel(
                CLIPConfig(
                    text_config=text.config.to_dict(),
                    vision_config=image.config.to_dict(),
                    projection_dim=image.config.projection_dim,
                )
            )
            of_pictures = {f"vision_model.{key}": value for key, value in image.vision_model.state_dict().items()}
            of_pictures["visual_projection.weight"] = image.visual_projection.weight
            model.load_state_dict(of_pictures | load_file(self.folder / JOINT))
        return model.to(self.device).eval()

    def generate(
        self,
        prompt: str,
        n: int = 1,
        seed: int = 0,
        steps: int = 20,
        guidance: float | None = None,
        batch: int | None = None,
        encoded: Encoded | None = None,
    ) -> Iterator[Generated]:
        """Make pictures, one after another as they are ready.

        Parameters
        ----------
        prompt
            What they show; tokens beyond those that the text encoder has places for are not seen.
        n
            How many. The picture of number i has the seed `seed` + i, so it does not depend on how many are made.
        seed
            Of the first.
        steps
            Of the scheduler: more are slower and finer.
        guidance
            How strictly the prompt is followed; 1 or less for not at all beyond what the network does; by default that
            of `GUIDANCE`.
        batch
            Made at a time: by default 1 on a CPU, where more are no faster, and 8 on a GPU. With another batch
            pictures differ by rounding.
        encoded
            One row of what the network reads in place of the prompt, which then is only told of.

        Raises
        ------
        IpseError
            If the numbers cannot be, or memory runs out.
        """
        import torch

        self.check(n, seed, steps)
        if batch is not None and batch < 1:
            raise IpseError(f"{batch} pictures cannot be made at a time.", "Use a positive number.")
        scale = self.scale(guidance)
        together = batch or (1 if self.device.type == "cpu" else 8)
        for start in range(0, n, together):
            seeds = range(seed + start, seed + min(n, start + together))
            # Noise is drawn on the CPU, where it is the same whatever the device.
            noise = torch.cat([self.noise(number) for number in seeds]).to(self.device, self.pipeline.unet.dtype)
            with enough_memory(together):
                images = self.pipeline(
                    **self._words(prompt, encoded, len(seeds)),
                    num_inference_steps=steps,
                    guidance_scale=scale,
                    latents=noise,
                    output_type="np",
                ).images
            for number, image in zip(seeds, images, strict=True):
                yield Generated(np.rint(image * 255).astype(np.uint8), prompt, number, steps, scale)

    @staticmethod
    def _words(prompt: str, encoded: Encoded | None, rows: int) -> dict[str, Any]:
        """Arguments of a pipeline for some pictures of one prompt."""
        if encoded is None:
            return {"prompt": [prompt] * rows}
        given = {
            "prompt_embeds": encoded.text,
            "negative_prompt_embeds": encoded.negative,
            "pooled_prompt_embeds": encoded.pooled,
            "negative_pooled_prompt_embeds": encoded.negative_pooled,
        }
        return {name: value.expand(rows, *value.shape[1:]) for name, value in given.items() if value is not None}

    def noise(self, seed: int) -> torch.Tensor:
        """(1, channels, height, width) of noise on the CPU, where a picture of that seed starts."""
        import torch

        return torch.randn((1, *self.latent), generator=torch.Generator().manual_seed(seed))

    def check(self, n: int, seed: int, steps: int) -> None:
        """Make sure that `n` pictures from a seed on can be made in some steps.

        Raises
        ------
        IpseError
            If not.
        """
        if n < 1 or steps < 1 or seed < 0:
            raise IpseError(f"{n} pictures in {steps} steps from seed {seed} cannot be made.", "Use positive numbers.")
        if seed + n > 2**63:
            raise IpseError(f"The seed {seed} is too large.", "Use one below 2**63.")
        config = self.pipeline.scheduler.config
        # These begin one level later than others.
        late = config.get("steps_offset", 0) if config.get("timestep_spacing") == "leading" else 0
        most = config.num_train_timesteps - late
        if steps > most:
            raise IpseError(f"{steps} steps are more than the base has levels of noise.", f"Use at most {most}.")

    def scale(self, guidance: float | None) -> float:
        """Guidance as a number: what was asked for, or that of `GUIDANCE`.

        Raises
        ------
        IpseError
            If it is not finite.
        """
        if guidance is not None and not math.isfinite(guidance):
            raise IpseError(f"Guidance of {guidance} makes no picture.", "Use a number such as 7.5.")
        return GUIDANCE[self.kind] if guidance is None else float(guidance)

    def encode_prompt(self, prompt: str, guidance: float | None = None) -> Encoded:
        """What the network reads of a prompt, and of none where there is guidance.

        Parameters
        ----------
        prompt, guidance
            As in `generate`.
        """
        import torch

        with torch.no_grad(), enough_memory():
            found = self.pipeline.encode_prompt(
                prompt=prompt,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=self.scale(guidance) > 1,
            )
        return Encoded(*found)

    def denoiser(self, prompt: str, guidance: float | None = None, encoded: Encoded | None = None) -> Denoiser:
        """Network and conditions of a prompt, for `ipse.diffusion.trajectory`.

        Sampling is DDIM's over the noise that the base was trained with, whatever scheduler its pipeline has.

        Parameters
        ----------
        prompt, guidance, encoded
            As in `generate`.

        Raises
        ------
        IpseError
            If the base predicts what cannot be followed, or memory runs out.
        """
        import torch
        from diffusers import DDIMScheduler

        from ipse.diffusion.trajectory import Denoiser

        scale, pipeline = self.scale(guidance), self.pipeline
        words = encoded or self.encode_prompt(prompt, guidance)
        added: list[dict[str, torch.Tensor] | None] = [None, None]
        if self.kind == "sdxl":
            # Size of the original, corner and size of what was cut out of it: the whole, at the size of the base.
            sizes = torch.tensor([[*self.size, 0, 0, *self.size]]).to(words.text)
            pooled = (words.pooled, words.negative_pooled)
            added = [None if one is None else {"text_embeds": one, "time_ids": sizes} for one in pooled]
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        return Denoiser(pipeline.unet, scheduler, words.text, words.negative, scale, *added)

    def fit(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A picture (H, W, 3) of any size at that of the base.

        Raises
        ------
        IpseError
            If it is of another shape: it would be distorted.
        """
        from ipse.images import resize

        (high, wide), (height, width) = image.shape[:2], self.size
        # A pixel more or less is rounding.
        if abs(wide * height - high * width) > max(height, width):
            raise IpseError(
                f"The picture has {wide}×{high} pixels, and the base {self.name} makes {width}×{height}.",
                f"Cut it to that shape first: {'a square' if width == height else f'{width} to {height}'}.",
            )
        return image if (high, wide) == (height, width) else resize(image, width, height)

    def encode(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """The latent (1, channels, height, width) of a picture at the size of the base (H, W, 3), uint8."""
        import torch

        from ipse.diffusion.trajectory import to_latent

        pixels = torch.tensor(image).permute(2, 0, 1)[None].to(self.device, self.pipeline.vae.dtype) / 127.5 - 1
        with torch.no_grad(), enough_memory():
            return to_latent(self.pipeline.vae, pixels)

    def decode(self, latent: torch.Tensor) -> npt.NDArray[np.uint8]:
        """The picture (H, W, 3), uint8, of a latent (1, channels, height, width).

        A safety checker that the pipeline has sees it, as it does those of `generate`.
        """
        import torch

        from ipse.diffusion.trajectory import to_pixels

        pipeline, shown = self.pipeline, None
        with torch.no_grad(), enough_memory():
            pixels = to_pixels(pipeline.vae, latent)
            if getattr(pipeline, "safety_checker", None) is not None:
                pixels, flagged = pipeline.run_safety_checker(pixels, self.device, pixels.dtype)
                shown = [not flag for flag in flagged]
            (image,) = pipeline.image_processor.postprocess(pixels, output_type="np", do_denormalize=shown)
        return np.rint(image * 255).astype(np.uint8)

    def made(self, **options: object) -> dict[str, object]:
        """What something was made by, as JSON values: options, the base by its checksum, and versions."""
        from ipse.measure.evidence import versions

        made = {"scheduler": type(self.pipeline.scheduler).__name__} | options
        return made | {
            "base": {"name": self.name, "kind": self.kind, "sha256": self.fingerprint},
            "versions": versions(),
        }

    def provenance(self, picture: Generated) -> dict[str, object]:
        """Text entries for the PNG of a picture: what made it, and all that is needed to make it again."""
        import ipse

        given = {name: getattr(picture, name) for name in ("prompt", "seed", "steps", "guidance")}
        return {
            "Software": f"ipse {ipse.__version__}",
            "Description": picture.prompt,
            "Source": picture.origin,
            "ipse": self.made(**given | dict(picture.more)),
        }


def load_base(which: str | Path = "world", *, device: str = "", half: bool = False, sampler: str = "") -> Base:
    """Load a base.

    Parameters
    ----------
    which
        ``world`` or ``world-body`` for those that come with ipse, of portraits and of whole bodies; a folder that
        `StableDiffusionPipeline` or `StableDiffusionXLPipeline` can load; or the id of a model on the Hugging Face
        hub.
    device
        A torch device; by default a GPU if there is one, otherwise the CPU.
    half
        Compute in half precision, which needs a GPU; by default in single precision.
    sampler
        How `Base.generate` goes through its steps, one of `SAMPLERS`; by default as the base says.

    Raises
    ------
    WeightsError
        If there is no such base, it cannot be fetched, it is damaged or of another layout.
    IpseError
        If there is no such sampler, a package is missing or memory runs out.
    """
    if sampler and sampler not in SAMPLERS:
        raise IpseError(f"There is no sampler {sampler!r}.", f"There are {' and '.join(SAMPLERS)}.")
    name = str(which)
    folder = COMES_WITH.get(name, Path(which))
    if name in COMES_WITH and not (folder / "model_index.json").exists():
        raise WeightsError(
            f"The base {name} is not in this build of ipse.",
            "Train it by the recipes in recipes/base, or name a folder or a hub id by --base.",
        )
    if folder.exists() and not (folder / "model_index.json").exists():
        raise WeightsError(f"{folder} holds no model_index.json.", "Name the folder of a diffusers pipeline.")
    if not folder.exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise WeightsError(
            f"There is no base {name}.",
            f"Name {', '.join(COMES_WITH)}, a folder of a diffusers pipeline, or a hub id like owner/model.",
        )
    try:
        import diffusers
        import torch
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise IpseError(
            f"Generating needs {error.name}, which is not installed.", "pip install 'ipse[generate]'"
        ) from error
    for told in (logging, transformers_logging):
        told.disable_progress_bar()
    local = folder.exists()
    with _reading(name), enough_memory(), _errors_only(transformers_logging):
        pipeline = DiffusionPipeline.from_pretrained(
            folder if local else name,
            dtype=torch.float16 if half else torch.float32,
            # The other format of weights can hold programs.
            use_safetensors=True,
        )
        pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    pipeline.set_progress_bar_config(disable=True)
    if sampler:
        pipeline.scheduler = getattr(diffusers, SAMPLERS[sampler]).from_config(pipeline.scheduler.config)
    record = _record(folder) if local else {}
    kind = kind_of(pipeline, record)
    return Base(record.get("name", folder.name) if local else name, kind, pipeline, folder if local else None, record)


def _record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).exists():
        return {}
    with _reading(folder.name):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        for file, digest in record["sha256"].items():
            if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{file} is not the file that was written")
    return record


def kind_of(pipeline: DiffusionPipeline, record: dict[str, Any] | None = None) -> str:
    """The kind of base that a pipeline is, by its configuration.

    Parameters
    ----------
    pipeline
        Loaded.
    record
        Its ``ipse.json``, which a base of the world has.

    Raises
    ------
    WeightsError
        If it is none that ipse knows.
    """
    config = getattr(getattr(pipeline, "unet", None), "config", None)
    width = getattr(config, "cross_attention_dim", None)
    # Those for inpainting or editing take more channels than a latent has.
    if type(pipeline).__name__ in ("StableDiffusionPipeline", "StableDiffusionXLPipeline") and (
        config.in_channels == pipeline.vae.config.latent_channels
    ):
        if record:
            return "world"
        if config.addition_embed_type == "text_time":
            return "sdxl"
        if width == 768:
            return "sd15"
    raise WeightsError(
        f"{type(pipeline).__name__} with a text of {width} channels is no base that ipse knows.",
        "It knows text-to-image pipelines of Stable Diffusion 1.5 (768), of SDXL, and what `ipse train base assemble` "
        "wrote; each of them can inpaint and edit.",
    )


@contextmanager
def _errors_only(logging: ModuleType) -> Iterator[None]:
    """Keep a library from telling that an image processor, which nobody asked for, misses a package."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn the many ways in which weights cannot be read into one error."""
    try:
        yield
    except (IpseError, MemoryError):
        raise
    except Exception as error:  # safetensors, huggingface_hub, torch and json each have their own
        if _is_memory(error):
            raise
        told = " ".join(str(error).split())
        raise WeightsError(
            f"The base {name} cannot be loaded: {told:.300}",
            "A file is missing, damaged or unreachable: copy the folder again, or fetch it with a network connection.",
        ) from error


@contextmanager
def enough_memory(batch: int = 1) -> Iterator[None]:
    """Turn a lack of memory, on a GPU or not, into what can be done about it."""
    try:
        yield
    except Exception as error:  # safetensors has a class of its own
        if isinstance(error, IpseError) or not _is_memory(error):
            raise
        less = "a smaller --batch, " if batch > 1 else ""
        raise IpseError("Memory ran out.", f"Use {less}half precision on a GPU, or a smaller base.") from error


def _is_memory(error: BaseException) -> bool:
    # torch has a class of its own for GPUs only.
    said = "out of memory|can(?:'|no)t allocate memory"
    return isinstance(error, MemoryError) or bool(re.search(said, str(error), re.IGNORECASE))
