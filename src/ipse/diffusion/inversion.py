"""Pictures as trajectories: what a base would have made a picture from, kept in a file, to make it again or otherwise.

::

    inversion = invert_picture(base, image, "A portrait of a man with short hair.")
    inversion.generate(base)                                          # the picture again
    inversion.generate(base, "A portrait of a man with long hair.")   # changed
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ipse._files import write_whole
from ipse.diffusion.base import Base, Generated, enough_memory
from ipse.diffusion.trajectory import invert, invert_editably, sample
from ipse.errors import DataError, IpseError, WeightsError

FORMAT = "ipse.inversion/1"

METHODS = ("ddim", "edit-friendly")
"""DDIM run backward, by `ipse.diffusion.trajectory.invert`; independent noise, by `invert_editably`."""

_ETA = {"ddim": 0.0, "edit-friendly": 1.0}
_NEEDED = ("method", "prompt", "seed", "steps", "guidance", "base", "picture")


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture as the trajectory that leads to it.

    Attributes
    ----------
    levels
        (steps, c, h, w) float32: the latent before each step, the noise first.
    residuals
        (steps, c, h, w) float32, what is added at each step, for ``edit-friendly``; None for ``ddim``.
    made
        What it was made by, as JSON values: ``method``, ``prompt``, ``seed``, ``steps``, ``guidance``, ``base`` (name,
        kind, sha256), ``picture`` (sha256 of its pixels), ``versions``.
    """

    levels: Tensor = field(repr=False)
    residuals: Tensor | None = field(repr=False)
    made: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in _NEEDED:
            if name not in self.made:
                raise ValueError(f"nothing is said of the {name}")
        method, steps = self.made["method"], self.made["steps"]
        if method not in METHODS or (self.residuals is None) != (method == "ddim"):
            raise ValueError(f"the method {method!r} does not fit what is there")
        for part in (self.levels, self.levels if self.residuals is None else self.residuals):
            if part.shape != (steps, *self.levels.shape[1:]) or part.ndim != 4 or not part.isfinite().all():
                raise ValueError(f"{steps} steps do not fit numbers of shape {tuple(part.shape)}")

    def generate(
        self, base: Base, prompt: str | None = None, *, guidance: float | None = None, strength: float = 1.0
    ) -> Generated:
        """Make the picture again, or another one in its place.

        Parameters
        ----------
        base
            That which the picture was inverted with.
        prompt
            Another one; by default the picture's own.
        guidance
            As in `Base.generate`; by default that of the inversion, without which nothing leads back to the picture.
        strength
            Above 0, up to 1: the share of the steps that are gone again. With fewer, more of the picture stays.

        Raises
        ------
        WeightsError
            If the picture was inverted with another base.
        IpseError
            If the strength cannot be, or memory runs out.
        """
        theirs = self.made["base"]
        if theirs["sha256"] != base.fingerprint:
            raise WeightsError(
                f"The picture was inverted with the base {theirs['name']} ({theirs['sha256'][:12]}), not with "
                f"{base.name} ({base.fingerprint[:12]}).",
                "Name that base by --base, or invert the picture again with this one.",
            )
        if not 0 < strength <= 1:
            raise IpseError(f"The strength {strength:g} is not above 0 and at most 1.", "1 goes all the way.")
        prompt = self.made["prompt"] if prompt is None else prompt
        scale = self.made["guidance"] if guidance is None else float(guidance)
        steps, denoiser = len(self.levels), base.denoiser(prompt, scale)
        skip = steps - max(1, round(strength * steps))
        residuals = None
        if self.residuals is not None:
            residuals = list(self.residuals[:, None].to(denoiser.text))
        with torch.no_grad(), enough_memory():
            latent = sample(
                denoiser,
                self.levels[skip][None].to(denoiser.text),
                steps,
                skip=skip,
                eta=_ETA[self.made["method"]],
                residuals=residuals,
            )
        source = {name: self.made[name] for name in ("method", "prompt", "guidance", "picture")}
        return Generated(
            base.decode(latent),
            prompt,
            self.made["seed"],
            steps,
            scale,
            {"scheduler": type(denoiser.scheduler).__name__, "strength": strength, "inversion": source},
            "Another picture made again, or changed, by a generative network; it does not show a real scene as it was.",
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file; it appears whole or not at all, and replaces an older one.

        Raises
        ------
        DataError
            If the file cannot be written there.
        """
        from safetensors.torch import save

        tensors = {"levels": self.levels, "residuals": self.residuals}
        data = save(
            {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None},
            metadata={"format": FORMAT, "made": json.dumps(dict(self.made), ensure_ascii=False, sort_keys=True)},
        )
        return write_whole(path, data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Inversion:
        """Read what `save` wrote. No code is ever run from the file.

        Raises
        ------
        DataError
            If the file is missing, damaged, or not an inversion.
        """
        from safetensors import SafetensorError, safe_open

        again = "Invert the picture again by `ipse invert`."
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise DataError(
                        f"{os.fspath(path)} is no inverted picture of a format that this version reads "
                        f"({metadata.get('format', 'none')} instead of {FORMAT}).",
                        again,
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return cls(tensors["levels"], tensors.get("residuals"), json.loads(metadata["made"]))
        except OSError as error:
            raise DataError(f"Cannot read {os.fspath(path)}: {error}.", "Check the path.") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{os.fspath(path)} is damaged: {error}.", again) from error


def invert_picture(
    base: Base,
    image: npt.NDArray[np.uint8],
    prompt: str,
    *,
    steps: int = 20,
    method: str = "ddim",
    guidance: float = 1.0,
    seed: int = 0,
) -> Inversion:
    """Find the trajectory by which a base makes a picture.

    Parameters
    ----------
    base
        Any.
    image
        (H, W, 3) uint8; of the shape of the base's pictures, at any size.
    prompt
        What it shows.
    steps
        Of the trajectory: more lead back more exactly.
    method
        One of `METHODS`. ``ddim`` needs four runs of the network for each step, ``edit-friendly`` one.
    guidance
        As in `Base.generate`; with ``ddim`` others than 1 lead back badly.
    seed
        Of the noise of ``edit-friendly``.

    Raises
    ------
    IpseError
        If the numbers or the method cannot be, the picture is of another shape, there is no way back, or memory runs
        out.
    """
    base.check(1, seed, steps)
    if method not in METHODS:
        raise IpseError(f"There is no inversion called {method!r}.", f"There are {' and '.join(METHODS)}.")
    pixels = base.fit(image)
    denoiser, clean = base.denoiser(prompt, guidance), base.encode(pixels)
    residuals = None
    with enough_memory():
        if method == "ddim":
            levels = invert(denoiser, clean, steps)[:0:-1]
        else:
            levels, ties = invert_editably(denoiser, clean, steps, seeds=[seed], eta=_ETA[method])
            residuals = torch.cat(ties).float().cpu()
    found = torch.cat(levels).float().cpu()
    if not found.isfinite().all():
        # Guidance may drive the rounds apart; from noise without any signal a single step leads everywhere.
        raise IpseError("No noise was found that leads to the picture.", "Use more steps, guidance 1 or edit-friendly.")
    made = base.made(
        method=method,
        prompt=prompt,
        seed=seed,
        steps=steps,
        guidance=float(guidance),
        scheduler=type(denoiser.scheduler).__name__,
        picture=picture_digest(image),
    )
    return Inversion(found, residuals, made)


def picture_digest(image: npt.NDArray[np.uint8]) -> str:
    """sha256 of the pixels of a picture (H, W, 3), for the provenance of what is made from it."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def psnr(image: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of one shape, uint8; infinite where they are equal."""
    error = np.square(image.astype(np.float64) - other).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
