"""Trajectories: from noise to picture and back, with hooks, masks and gradients at every step.

Written on plain diffusers components, a U-Net and a `DDIMScheduler` (Song et al., 2021), for noise and velocity
prediction. x is a latent (B, c, h, w); a is a scheduler's ``alphas_cumprod``: x_t = √a · x_0 + √(1 − a) · noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from ipse.diffusion.attention import fit_region
from ipse.errors import IpseError


def seeded_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Noise (B, …), each row from a seed of its own: a row is the same in any batch and on any device.

    Parameters
    ----------
    shape
        Of one row.
    seeds
        One for each row.
    """
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def to_latent(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Latents of pictures (B, 3, H, W) in −1…1: the mean of what the encoder says, scaled."""
    return vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor


def to_pixels(vae: nn.Module, latent: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) of latents, about −1…1."""
    return vae.decode(latent / vae.config.scaling_factor).sample


@dataclass(frozen=True)
class Estimate:
    """What a network says of a noisy latent.

    Attributes
    ----------
    noise
        The noise in it.
    clean
        The picture behind it, x_0.
    """

    noise: Tensor
    clean: Tensor


@dataclass
class Denoiser:
    """A network with its conditions.

    Attributes
    ----------
    unet
        A `UNet2DConditionModel`; handles of `ipse.diffusion.attention` may be attached to it.
    scheduler
        For the levels of noise and the kind of prediction.
    text
        (B or 1, L, C) encoded prompts.
    negative
        (B or 1, L, C) encoded negative prompts; with them and a `guidance` other than 1, classifier-free guidance
        runs both in one batch, the negative ones first, as diffusers' pipelines do.
    guidance
        How far to go from the negative to the positive prediction (Ho and Salimans, 2022).
    added, added_negative
        ``added_cond_kwargs`` for SDXL.
    spatial
        Given the latents, the timestep, the text and the added conditions of a call, further keyword arguments for
        the network; see `ipse.diffusion.spatial`.
    """

    unet: nn.Module
    scheduler: DDIMScheduler
    text: Tensor
    negative: Tensor | None = None
    guidance: float = 1.0
    added: Mapping[str, Tensor] | None = None
    added_negative: Mapping[str, Tensor] | None = None
    spatial: Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor] | None], dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        kinds = ("epsilon", "v_prediction")
        if self.scheduler.config.prediction_type not in kinds:
            raise IpseError(
                f"A prediction of the kind {self.scheduler.config.prediction_type!r} cannot be followed.",
                f"Use a base that predicts {' or '.join(kinds)}.",
            )

    def alpha(self, timestep: int) -> Tensor:
        """The a of a timestep; below 0 that of the finished picture."""
        table = self.scheduler.alphas_cumprod
        return table[timestep] if timestep >= 0 else self.scheduler.final_alpha_cumprod

    def __call__(self, x: Tensor, timestep: int) -> Estimate:
        """Estimate the noise in x at a timestep."""
        return self.estimate(x, self.predict(x, timestep), timestep)

    def predict(self, x: Tensor, timestep: int) -> Tensor:
        """What the network predicts of x, noise or velocity, with guidance; see `estimate`."""
        guided = self.negative is not None and self.guidance != 1
        text = self._rows(self.text, x)
        added = self._added(self.added, x)
        inputs = x
        if guided:
            text = torch.cat([self._rows(self.negative, x), text])
            inputs = torch.cat([x, x])
            if added is not None:
                nothing = self._added(self.added_negative or self.added, x)
                added = {key: torch.cat([nothing[key], value]) for key, value in added.items()}
        time = torch.tensor(timestep, device=x.device)
        extra = self.spatial(inputs, time, text, added) if self.spatial is not None else {}
        out = self.unet(inputs, time, encoder_hidden_states=text, added_cond_kwargs=added, **extra).sample
        if guided:
            without, out = out.chunk(2)
            out = without + self.guidance * (out - without)
        return out

    def estimate(self, x: Tensor, prediction: Tensor, timestep: int) -> Estimate:
        """Noise and picture by what the network predicts (Salimans and Ho, 2022, for velocities)."""
        a = self.alpha(timestep).to(x)
        if self.scheduler.config.prediction_type == "v_prediction":
            return Estimate(a.sqrt() * prediction + (1 - a).sqrt() * x, a.sqrt() * x - (1 - a).sqrt() * prediction)
        return self.with_noise(x, prediction, timestep)

    def with_noise(self, x: Tensor, noise: Tensor, timestep: int) -> Estimate:
        """The estimate in which x holds a given noise."""
        a = self.alpha(timestep).to(x)
        return Estimate(noise, (x - (1 - a).sqrt() * noise) / a.sqrt())

    def noised(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """x_t of a picture and noise."""
        a = self.alpha(timestep).to(clean)
        return a.sqrt() * clean + (1 - a).sqrt() * noise

    def timesteps(self, steps: int) -> list[int]:
        """The scheduler's, from noise to picture."""
        self.scheduler.set_timesteps(steps)
        return self.scheduler.timesteps.tolist()

    @staticmethod
    def _rows(condition: Tensor, x: Tensor) -> Tensor:
        if len(x) % len(condition):
            raise IpseError(
                f"There are {len(x)} latents and conditions for {len(condition)}.",
                "Give one for each, or a single one.",
            )
        return condition.repeat_interleave(len(x) // len(condition), 0)

    def _added(self, added: Mapping[str, Tensor] | None, x: Tensor) -> dict[str, Tensor] | None:
        return None if added is None else {key: self._rows(value, x) for key, value in added.items()}


@dataclass(frozen=True)
class Moment:
    """A step of a trajectory.

    Attributes
    ----------
    step
        Counted from 0, with steps that were left out.
    timestep, previous
        Of the network, and where the step leads; below 0 at the end.
    denoiser
        Which runs.
    """

    step: int
    timestep: int
    previous: int
    denoiser: Denoiser


class Hook:
    """What may change a trajectory. Override the points that matter."""

    def latent(self, moment: Moment, x: Tensor) -> Tensor:
        """The latent before the network sees it."""
        return x

    def estimate(self, moment: Moment, x: Tensor, estimate: Estimate) -> Estimate:
        """What the network said."""
        return estimate

    def after(self, moment: Moment, x: Tensor) -> Tensor:
        """The latent at the next, lower level of noise."""
        return x


def sample(
    denoiser: Denoiser,
    noise: Tensor,
    steps: int,
    *,
    hooks: Sequence[Hook] = (),
    skip: int = 0,
    eta: float = 0.0,
    seeds: Sequence[int] | None = None,
    residuals: Sequence[Tensor] | None = None,
    grad_steps: int = 0,
    stop: int | None = None,
) -> Tensor:
    """Go from noise to a latent picture (DDIM, Song et al., 2021).

    Parameters
    ----------
    denoiser
        Network and conditions.
    noise
        (B, c, h, w): x at the first timestep that is not skipped.
    steps
        Of the whole trajectory.
    hooks
        In order.
    skip
        Steps to leave out at the beginning, for latents that are not all noise (SDEdit; edit-friendly inversion).
    eta
        Of fresh noise: 0 for none (DDIM), 1 for DDPM's. Needs `seeds`.
    seeds
        One for each row.
    residuals
        What is added at each step in place of fresh noise, from `invert_editably` with the same `eta`; one for each
        step, skipped ones included.
    grad_steps
        Through how many of the last steps gradients flow (DRaFT-K, Clark et al., 2024). Before them there are none;
        within them the caller decides, by ``torch.no_grad`` or not.
    stop
        The step before which to end, with a latent that still holds noise; None for the last.

    Returns
    -------
    Tensor
        (B, c, h, w).
    """
    timesteps = denoiser.timesteps(steps)
    makers = None
    if eta and residuals is None:
        if seeds is None or len(seeds) != len(noise):
            raise IpseError("Fresh noise needs a seed for each row.", "Give `seeds`, or eta=0.")
        makers = [torch.Generator().manual_seed(seed) for seed in seeds]
    x = noise
    for step in range(skip, steps if stop is None else stop):
        moment = _moment(denoiser, timesteps, step)
        with torch.set_grad_enabled(torch.is_grad_enabled() and step >= steps - grad_steps):
            for hook in hooks:
                x = hook.latent(moment, x)
            estimate = denoiser(x, moment.timestep)
            for hook in hooks:
                estimate = hook.estimate(moment, x, estimate)
            mean, sigma = _step(moment, estimate, eta)
            if residuals is not None:
                x = mean + residuals[step].to(mean)
            elif makers is not None:
                fresh = torch.stack([torch.randn(x.shape[1:], generator=maker) for maker in makers])
                x = mean + sigma * fresh.to(mean)
            else:
                x = mean
            for hook in hooks:
                x = hook.after(moment, x)
    return x


def _moment(denoiser: Denoiser, timesteps: Sequence[int], step: int) -> Moment:
    previous = timesteps[step + 1] if step + 1 < len(timesteps) else -1
    return Moment(step, timesteps[step], previous, denoiser)


def _step(moment: Moment, estimate: Estimate, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x at the next level (Song et al., 2021, equations 12 and 16)."""
    now, then = (moment.denoiser.alpha(t).to(estimate.clean) for t in (moment.timestep, moment.previous))
    sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp_min(0).sqrt()
    mean = then.sqrt() * estimate.clean + (1 - then - sigma**2).clamp_min(0).sqrt() * estimate.noise
    return mean, sigma


@torch.no_grad()
def invert(
    denoiser: Denoiser, clean: Tensor, steps: int, *, rounds: int = 3, levels: int | None = None
) -> list[Tensor]:
    """Find the noise that `sample` turns into a picture: DDIM run backward.

    What the network predicts at the higher level is found at the higher level itself, by fixed-point rounds (Pan et
    al., 2023; Garibi et al., 2024), so that the way back is the way there.

    Parameters
    ----------
    denoiser
        Network and conditions; guidance other than 1 makes the rounds converge badly.
    clean
        (B, c, h, w): the latent picture.
    steps
        Of the trajectory.
    rounds
        0 for plain DDIM inversion, which estimates the noise at the lower level.
    levels
        How many steps to go back; None for all of them.

    Returns
    -------
    list
        x at each level of noise, ``levels + 1`` of them: the picture first, the noise last.
    """
    timesteps = denoiser.timesteps(steps)
    latents = [clean]
    for step in reversed(range(0 if levels is None else steps - levels, steps)):
        moment = _moment(denoiser, timesteps, step)
        lower = latents[-1]
        # A step is linear in x and in the prediction. Turned around in these it also leads to levels without any
        # signal, where the noise is x itself, whatever the network says, and only the prediction tells of the picture.
        by_x, by_prediction = (
            _step(moment, denoiser.estimate(*pair, moment.timestep), 0.0)[0]
            for pair in torch.eye(2).to(clean)[:, :, None]
        )
        guess = denoiser.with_noise(lower, denoiser(lower, max(moment.previous, 0)).noise, moment.previous)
        x = denoiser.noised(guess.clean, guess.noise, moment.timestep)
        for _ in range(rounds):
            x = (lower - by_prediction * denoiser.predict(x, moment.timestep)) / by_x
        latents.append(x)
    return latents


@torch.no_grad()
def invert_editably(
    denoiser: Denoiser, clean: Tensor, steps: int, *, seeds: Sequence[int], eta: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """Edit-friendly inversion (Huberman-Spiegelglas et al., 2024): levels of independent noise, and what ties them.

    `sample` with the same conditions, ``residuals`` and ``eta`` gives the picture back; with another prompt it gives
    an edit that keeps the picture's structure, the more so the more steps are skipped.

    Parameters
    ----------
    denoiser, clean, steps
        As in `invert`.
    seeds
        One for each row.
    eta
        As in `sample`.

    Returns
    -------
    tuple
        x at the beginning of each step (to start `sample` with at ``skip``), and the residuals.
    """
    timesteps = denoiser.timesteps(steps)
    makers = [torch.Generator().manual_seed(seed) for seed in seeds]
    if len(makers) != len(clean):
        raise IpseError(f"There are {len(clean)} latents and {len(makers)} seeds.", "Give a seed for each.")
    levels = []
    for timestep in timesteps:
        noise = torch.stack([torch.randn(clean.shape[1:], generator=maker) for maker in makers]).to(clean)
        levels.append(denoiser.noised(clean, noise, timestep))
    levels.append(clean)
    residuals = []
    for step in range(steps):
        moment = _moment(denoiser, timesteps, step)
        mean, _ = _step(moment, denoiser(levels[step], moment.timestep), eta)
        # The residual itself, not divided by the standard deviation, which is 0 at the last step of some schedulers.
        residuals.append(levels[step + 1] - mean)
        levels[step + 1] = mean + residuals[-1]
    return levels[:-1], residuals


@dataclass
class Inpaint(Hook):
    """Keep a picture outside a mask (Avrahami et al., 2022, blended latent diffusion).

    Attributes
    ----------
    clean
        (B or 1, c, h, w): the latent picture to keep.
    mask
        (H, W) or (B, 1, H, W) of 0 to 1: where to paint. It is fitted to the latent.
    noise
        (B or 1, c, h, w) that the kept part gets at each level; that of `seeded_noise`.
    steps
        Until this step; later ones are free to blend the border. None for all: then the kept part is exact.
    """

    clean: Tensor
    mask: Tensor
    noise: Tensor
    steps: int | None = None

    def after(self, moment: Moment, x: Tensor) -> Tensor:
        """With the kept part at this level of noise."""
        if self.steps is not None and moment.step >= self.steps:
            return x
        kept = self.clean
        if moment.previous >= 0:
            kept = moment.denoiser.noised(self.clean, self.noise, moment.previous)
        mask = fit_region(self.mask.to(x), x.shape[-2:])
        return mask * x + (1 - mask) * kept.to(x)


@dataclass
class Blend(Hook):
    """Mix the estimates of several denoisers, each in its region: several people, several prompts (MultiDiffusion).

    Attributes
    ----------
    others
        (denoiser, (H, W) of 0 to 1) each. What they leave of each pixel is the trajectory's own.
    start, stop
        Steps between which they act.
    """

    others: Sequence[tuple[Denoiser, Tensor]]
    start: int = 0
    stop: int = 10**9

    def estimate(self, moment: Moment, x: Tensor, estimate: Estimate) -> Estimate:
        """The mixture of noises and of pictures."""
        if not self.start <= moment.step < self.stop:
            return estimate
        regions = torch.stack([fit_region(region.to(x), x.shape[-2:]) for _, region in self.others])
        # Where regions overlap, their shares are brought down to 1.
        regions = regions / regions.sum(0).clamp_min(1)
        rest = 1 - regions.sum(0)
        noise, clean = rest * estimate.noise, rest * estimate.clean
        for (other, _), region in zip(self.others, regions, strict=True):
            theirs = other(x, moment.timestep)
            noise, clean = noise + region * theirs.noise, clean + region * theirs.clean
        return Estimate(noise, clean)


@dataclass
class Guide(Hook):
    """Pull the trajectory down the gradient of a loss on the picture behind it (Bansal et al., 2023).

    Attributes
    ----------
    loss
        From the estimate of the latent picture (B, c, h, w) to a number, such as the distance of a face encoder's
        vector; decode with `to_pixels` in it.
    strength
        Length of the pull in units of the latent: the gradient is normalized in each row.
    start, stop
        Steps between which it acts.
    losses
        Values of the loss so far.
    """

    loss: Callable[[Tensor], Tensor]
    strength: float = 1.0
    start: int = 0
    stop: int = 10**9
    losses: list[float] = field(default_factory=list)

    def latent(self, moment: Moment, x: Tensor) -> Tensor:
        """Pulled."""
        if not self.start <= moment.step < self.stop or not self.strength:
            return x
        with torch.enable_grad():
            free = x.detach().requires_grad_(True)
            loss = self.loss(moment.denoiser(free, moment.timestep).clean)
            (gradient,) = torch.autograd.grad(loss, free)
        self.losses.append(float(loss))
        length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        return x - self.strength * gradient / length
