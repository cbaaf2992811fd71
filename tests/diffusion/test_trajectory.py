import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

from ipse.diffusion.attention import Capture, attached
from ipse.diffusion.trajectory import (
    Blend,
    Denoiser,
    Estimate,
    Guide,
    Hook,
    Inpaint,
    invert,
    invert_editably,
    sample,
    seeded_noise,
    to_latent,
    to_pixels,
)
from ipse.errors import IpseError


def scheduler(**options):
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
                         steps_offset=1, **options)  # fmt: skip


# The world base's noise ends without any signal, Stable Diffusion's with a rest of it.
NO_SIGNAL = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(params=["epsilon", "v_prediction", "no signal"])
def denoiser(request, tiny):
    options = NO_SIGNAL if request.param == "no signal" else {"prediction_type": request.param}
    return make_denoiser(tiny("world"), **options)


def make_denoiser(unet, guidance=1.0, rows=1, **options):
    maker = torch.Generator().manual_seed(11)
    text, negative = torch.randn(2, rows, 6, unet.config.cross_attention_dim, generator=maker)
    return Denoiser(unet, scheduler(**options), text, negative, guidance)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def test_rows_have_noise_of_their_own():
    one, both = seeded_noise((4, 8, 8), [3]), seeded_noise((4, 8, 8), [1, 3])
    assert torch.equal(both[1:], one) and not torch.equal(both[0], both[1])


@pytest.mark.parametrize(("prediction", "guidance"), [("epsilon", 1.0), ("epsilon", 3.0), ("v_prediction", 3.0)])
def test_the_stock_pipeline_goes_the_same_way(prediction, guidance, tiny):
    unet = tiny("world")
    denoiser = make_denoiser(unet, guidance, prediction_type=prediction)
    noise = seeded_noise((4, 8, 8), [0])
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4), text_encoder=None, tokenizer=None, unet=unet,
        scheduler=scheduler(prediction_type=prediction), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(prompt_embeds=denoiser.text, negative_prompt_embeds=denoiser.negative, guidance_scale=guidance,
                  latents=noise, num_inference_steps=4, output_type="latent").images  # fmt: skip
    torch.testing.assert_close(sample(denoiser, noise, 4), theirs, rtol=1e-4, atol=1e-4)


def test_sdxl_shapes_need_their_added_conditions(tiny):
    denoiser = make_denoiser(tiny("sdxl"), 2.0)
    denoiser.added = {"text_embeds": torch.randn(1, 12), "time_ids": torch.ones(1, 6)}
    out = sample(denoiser, seeded_noise((4, 8, 8), [0, 1]), 2)
    denoiser.added_negative = {"text_embeds": torch.zeros(1, 12), "time_ids": torch.ones(1, 6)}
    assert (sample(denoiser, seeded_noise((4, 8, 8), [0, 1]), 2) - out).abs().max() > 1e-4


def test_rows_do_not_depend_on_the_batch(denoiser):
    both = sample(denoiser, seeded_noise((4, 8, 8), [1, 2]), 3, eta=1.0, seeds=[5, 6])
    alone = sample(denoiser, seeded_noise((4, 8, 8), [2]), 3, eta=1.0, seeds=[6])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)
    other = sample(denoiser, seeded_noise((4, 8, 8), [2]), 3, eta=1.0, seeds=[7])
    assert (other - alone).abs().max() > 1e-3
    with pytest.raises(IpseError, match="a seed for each row"):
        sample(denoiser, seeded_noise((4, 8, 8), [2]), 3, eta=1.0)


def test_hooks_see_every_step_and_can_change_it(denoiser):
    seen = []

    class Watch(Hook):
        def latent(self, moment, x):
            seen.append((moment.step, moment.timestep, moment.previous))
            return x

        def estimate(self, moment, x, estimate):
            a = denoiser.alpha(moment.timestep)
            # Noise and picture make up the latent.
            torch.testing.assert_close(a.sqrt() * estimate.clean + (1 - a).sqrt() * estimate.noise, x)
            return estimate

    class Nothing(Hook):
        def estimate(self, moment, x, estimate):
            return Estimate(torch.zeros_like(x), torch.ones_like(x))

    noise = seeded_noise((4, 8, 8), [0])
    assert torch.equal(sample(denoiser, noise, 4, hooks=[Watch()]), sample(denoiser, noise, 4))
    steps = [step for step, _, _ in seen]
    assert steps == [0, 1, 2, 3] and [p for _, _, p in seen] == [*[t for _, t, _ in seen][1:], -1]
    final = scheduler().final_alpha_cumprod.sqrt()
    torch.testing.assert_close(sample(denoiser, noise, 4, hooks=[Nothing()]), torch.ones_like(noise) * final)


def test_attention_handles_count_the_same_steps(denoiser):
    capture = Capture()
    with attached(denoiser.unet, capture):
        sample(denoiser, seeded_noise((4, 8, 8), [0]), 3)
    assert {step for step, _ in capture.maps} == {0, 1, 2}


def test_inversion_leads_back(denoiser):
    clean = seeded_noise((4, 8, 8), [0, 1])
    # Trained networks change slowly with their input; a random one is made to.
    denoiser.unet.conv_out.weight.mul_(0.2)

    def error(rounds, steps=6):
        latents = invert(denoiser, clean, steps, rounds=rounds)
        assert len(latents) == steps + 1 and torch.equal(latents[0], clean)
        return float((sample(denoiser, latents[-1], steps) - clean).abs().max())

    refined = error(12)
    assert refined < 1e-3 and refined < error(0) / 3


def test_edit_friendly_inversion_gives_the_picture_back(denoiser):
    clean = seeded_noise((4, 8, 8), [0])
    levels, residuals = invert_editably(denoiser, clean, 6, seeds=[4])
    # The noise of the levels is independent, unlike that of a DDIM trajectory.
    noises = [
        (level - denoiser.alpha(t).sqrt() * clean) / (1 - denoiser.alpha(t)).sqrt()
        for level, t in zip(levels, denoiser.timesteps(6), strict=True)
    ]
    correlation = torch.corrcoef(torch.stack([noise.flatten() for noise in noises]))
    assert (correlation - torch.eye(6)).abs().max() < 0.35
    for skip in (0, 3):
        back = sample(denoiser, levels[skip], 6, skip=skip, eta=1.0, residuals=residuals)
        torch.testing.assert_close(back, clean, rtol=1e-3, atol=1e-3)
    denoiser.text = torch.randn_like(denoiser.text)
    edits = [sample(denoiser, levels[s], 6, skip=s, eta=1.0, residuals=residuals) - clean for s in (0, 4)]
    assert edits[0].norm() > edits[1].norm() > 0
    with pytest.raises(IpseError, match="1 latents and 2 seeds"):
        invert_editably(denoiser, clean, 6, seeds=[1, 2])


def test_inpainting_keeps_the_rest_exactly(denoiser):
    clean, noise = seeded_noise((4, 8, 8), [0, 1]).split(1)
    mask = torch.zeros(16, 16)
    mask[:, :8] = 1
    plain = sample(denoiser, noise, 4)
    painted = sample(denoiser, noise, 4, hooks=[Inpaint(clean, mask, noise)])
    assert torch.equal(painted[..., 4:], clean[..., 4:])
    assert (painted[..., :4] - clean[..., :4]).abs().max() > 1e-2
    # Nothing kept is nothing changed.
    assert torch.equal(sample(denoiser, noise, 4, hooks=[Inpaint(clean, torch.ones(4, 4), noise)]), plain)
    free = sample(denoiser, noise, 4, hooks=[Inpaint(clean, mask, noise, steps=2)])
    assert not torch.equal(free[..., 4:], clean[..., 4:])


def test_estimates_are_blended_by_region(denoiser):
    other = Denoiser(denoiser.unet, denoiser.scheduler, torch.randn_like(denoiser.text))
    x = seeded_noise((4, 8, 8), [0])
    left = torch.zeros(8, 8)
    left[:, :4] = 1
    found = []

    class Keep(Hook):
        def estimate(self, moment, x, estimate):
            found.append(estimate)
            return estimate

    sample(denoiser, x, 1, hooks=[Blend([(other, left)]), Keep()])
    mine, theirs = denoiser(x, denoiser.timesteps(1)[0]), other(x, denoiser.timesteps(1)[0])
    for part in ("noise", "clean"):
        torch.testing.assert_close(getattr(found[0], part)[..., :4], getattr(theirs, part)[..., :4])
        torch.testing.assert_close(getattr(found[0], part)[..., 4:], getattr(mine, part)[..., 4:])
    everywhere = torch.ones(8, 8)
    for blend in (Blend([(denoiser, everywhere), (denoiser, left)]), Blend([(other, everywhere)], stop=0)):
        blended = sample(denoiser, x, 3, hooks=[blend])
        torch.testing.assert_close(blended, sample(denoiser, x, 3), rtol=1e-4, atol=1e-4)


def test_a_loss_guides_the_picture(denoiser):
    noise = seeded_noise((4, 8, 8), [0])
    goal = torch.ones_like(noise)

    def loss(clean):
        return (clean - goal).square().mean()

    guide = Guide(loss, strength=2.0)
    guided, plain = sample(denoiser, noise, 5, hooks=[guide]), sample(denoiser, noise, 5)
    assert loss(guided) < loss(plain) and len(guide.losses) == 5
    assert torch.equal(sample(denoiser, noise, 5, hooks=[Guide(loss, start=5)]), plain)
    assert all(p.grad is None for p in denoiser.unet.parameters())


def test_gradients_flow_through_the_last_steps_alone(denoiser):
    weight = denoiser.unet.conv_out.weight.requires_grad_(True)
    noise = seeded_noise((4, 8, 8), [0])
    gradients = []
    with torch.enable_grad():
        for grad_steps in (1, 2, 4):
            out = sample(denoiser, noise, 4, grad_steps=grad_steps)
            gradients.append(torch.autograd.grad(out.square().mean(), weight)[0])
        assert not sample(denoiser, noise, 4).requires_grad
    assert (gradients[0] - gradients[1]).abs().max() > 0 and (gradients[1] - gradients[2]).abs().max() > 0
    # Against a finite difference of the whole trajectory.
    direction = gradients[2] / gradients[2].norm()
    values = []
    for sign in (1, -1):
        weight.add_(sign * 1e-2 * direction)
        values.append(float(sample(denoiser, noise, 4).square().mean()))
        weight.add_(-sign * 1e-2 * direction)
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(gradients[2].norm()), rel=0.05)


def test_pictures_go_through_the_vae_and_back():
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, scaling_factor=0.5).eval()
    pixels = torch.rand(1, 3, 8, 8) * 2 - 1
    latent = to_latent(vae, pixels)
    assert torch.equal(latent, vae.encode(pixels).latent_dist.mean * 0.5)
    torch.testing.assert_close(to_pixels(vae, latent), vae.decode(vae.encode(pixels).latent_dist.mean).sample)


def test_what_cannot_be_followed_is_refused(tiny):
    with pytest.raises(IpseError, match="'sample' cannot be followed"):
        make_denoiser(tiny("world"), prediction_type="sample")
    denoiser = make_denoiser(tiny("world"), rows=2)
    with pytest.raises(IpseError, match="3 latents and conditions for 2"):
        sample(denoiser, seeded_noise((4, 8, 8), [0, 1, 2]), 1)
