"""Pictures that are no squares: a base for bodies is trained, loaded and worked with as one for portraits is."""

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline  # noqa: E402

from ipse.cli import main  # noqa: E402
from ipse.diffusion.adapters import Adapter, MlpProjection  # noqa: E402
from ipse.diffusion.attention import Capture, Regions, Where, attached, places  # noqa: E402
from ipse.diffusion.base import load_base  # noqa: E402
from ipse.diffusion.components import squared  # noqa: E402
from ipse.diffusion.inpainting import inpaint  # noqa: E402
from ipse.diffusion.inversion import METHODS, invert_picture, psnr  # noqa: E402
from ipse.diffusion.spatial import Control, SideAdapter, control_for, controlled, side_adapter_for  # noqa: E402
from ipse.diffusion.training.joint import embed_images, embed_texts  # noqa: E402
from ipse.errors import IpseError  # noqa: E402

PROMPT = "A young woman with red hair, walking."


@pytest.fixture(scope="module")
def base(body_folder):
    return load_base(body_folder, device="cpu")


@pytest.fixture(scope="module")
def picture():
    """(64, 32, 3): twice as large as the base's."""
    smooth = np.random.default_rng(0).integers(0, 256, (4, 2, 3)).astype(np.uint8)
    return smooth.repeat(16, 0).repeat(16, 1)


def run(base, prompt=PROMPT, *handles, control=None):
    with attached(base.pipeline.unet, *handles), controlled(base.pipeline.unet, control):
        (made,) = base.generate(prompt, steps=2, guidance=1.0)
    return made.image.astype(int)


def test_it_makes_pictures_of_its_shape(base, body_folder, tmp_path, capsys):
    assert base.latent == (4, 4, 2) and base.size == (32, 16)
    assert run(base).shape == (32, 16, 3)
    plain = StableDiffusionPipeline.from_pretrained(body_folder, dtype=torch.float32)
    plain.set_progress_bar_config(disable=True)
    noise = base.noise(0)
    (image,) = plain(PROMPT, num_inference_steps=2, guidance_scale=1.0, latents=noise, output_type="np").images
    np.testing.assert_allclose(255 * image, run(base), atol=1)
    # Without noise of ours it still knows how large its pictures are.
    assert plain(PROMPT, num_inference_steps=1).images[0].size == (16, 32)

    with pytest.raises(SystemExit) as end:
        main(["generate", "--base", str(body_folder), "--prompt", PROMPT, "--steps", "1", "--out", str(tmp_path)])
    assert not end.value.code and capsys.readouterr().out and list(tmp_path.glob("*.png"))


def test_pictures_of_another_shape_are_refused(base, picture):
    assert base.fit(picture).shape == (32, 16, 3)
    with pytest.raises(IpseError, match="16 to 32"):
        base.fit(picture[:32])


def test_maps_of_attention_are_as_high_and_wide_as_the_picture(base):
    capture = Capture()
    run(base, PROMPT, capture)
    cross = [name for _, name in capture.maps]
    assert {capture.grid(name) for name in cross} == {(4, 2), (2, 1)}
    maps = capture.average((32, 16))
    assert maps.shape[-2:] == (32, 16)
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 32, 16), rtol=1e-4, atol=1e-4)
    # A map told pixel by pixel lies as it was.
    fine = next(name for name in cross if capture.grid(name) == (4, 2))
    told = capture.average((4, 2), Where(layers=[fine]))
    mean = torch.stack([kept for (_, name), kept in capture.maps.items() if name == fine]).mean(0)
    torch.testing.assert_close(told[0, :, 3, 1], mean[0, 7], rtol=1e-5, atol=1e-6)


def test_words_are_bound_to_regions(base):
    upper = torch.zeros(1, 32, 16)
    upper[:, :16] = 1
    words = places(base.pipeline.tokenizer, PROMPT, "red hair")
    capture = Capture()
    run(base, PROMPT, Regions([words], upper), capture)
    fine = [name for _, name in capture.maps if capture.grid(name) == (4, 2)]
    maps = capture.average((4, 2), Where(layers=fine))[:, words].sum(1)[0]
    assert maps[:2].min() > 1000 * maps[2:].max()
    self_attention = Capture(Where("self"))
    run(base, PROMPT, Regions([[]], upper, Where("self")), self_attention)
    seen = next(kept for (_, name), kept in self_attention.maps.items() if self_attention.grid(name) == (4, 2))
    assert seen[0, :4, :4].sum(1).min() > 0.99 and seen[0, 4:, 4:].sum(1).min() > 0.99


def test_adapters_and_controls_act(base):
    unet, plain = base.pipeline.unet, run(base)
    torch.manual_seed(3)
    adapter = Adapter.new(unet, MlpProjection(8, 32, 2, 16))
    for layer in adapter.parameters():
        torch.nn.init.normal_(layer, std=0.3)
    with torch.no_grad():
        tokens = adapter.tokens(torch.randn(1, 8))
    assert not np.array_equal(run(base, PROMPT, adapter.on(unet, tokens)), plain)

    shown = torch.rand(1, 3, 32, 16)
    control, side = control_for(unet).requires_grad_(False), side_adapter_for(unet).requires_grad_(False)
    for convolution in [*control.controlnet_down_blocks, control.controlnet_mid_block]:
        torch.nn.init.normal_(convolution.weight, std=0.5)
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, std=0.5)
    for acting in (Control(control, shown), SideAdapter(side, shown)):
        upside_down = type(acting)(acting.network, shown.flip(2))
        assert not np.array_equal(run(base, control=acting), plain)
        assert not np.array_equal(run(base, control=acting), run(base, control=upside_down))


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_leads_back(base, picture, method):
    # A network by chance is no smooth one: with few steps, the way back depends on how a processor rounds.
    inversion = invert_picture(base, picture, PROMPT, steps=100, method=method, seed=4)
    assert inversion.levels.shape == (100, 4, 4, 2)
    alone = base.decode(base.encode(base.fit(picture)))
    (another,) = base.generate(PROMPT, steps=100, guidance=1.0)
    assert psnr(inversion.generate(base).image, alone) > psnr(another.image, alone) + 6


def test_what_is_not_painted_stays(base, picture):
    mask = np.zeros((64, 32), np.float32)
    mask[40:, 8:] = 1
    (made,) = inpaint(base, picture, mask, PROMPT, steps=2)
    np.testing.assert_array_equal(made.image[:40], picture[:40])
    np.testing.assert_array_equal(made.image[:, :8], picture[:, :8])
    assert np.abs(made.image[40:, 8:].astype(int) - picture[40:, 8:]).mean() > 10


@torch.no_grad()
def test_the_image_encoder_is_shown_squares(base):
    high = torch.rand(2, 3, 64, 32) * 2 - 1
    shown = squared(high, 32)
    assert shown.shape == (2, 3, 32, 32)
    assert not shown[..., :8].any() and not shown[..., 24:].any() and shown[..., 8:24].abs().mean() > 0.1
    torch.testing.assert_close(shown[..., 8:24].mean((2, 3)), high.mean((2, 3)), rtol=0.02, atol=0.02)
    square = torch.rand(1, 3, 32, 32)
    assert squared(square, 32).equal(square)
    assert squared(high, 64, gray=0.5)[..., 0].eq(0.5).all() and squared(high, 64)[..., 16:48].equal(high)

    joint, tokenizer = base.joint(), base.pipeline.tokenizer
    images = embed_images(joint, squared(high, 32)[:, :, :, 8:24])
    torch.testing.assert_close(images, embed_images(joint, shown))
    tokens = tokenizer([PROMPT], padding="max_length", return_tensors="pt")["input_ids"]
    assert embed_texts(joint, tokens, tokenizer.eos_token_id).shape == (1, images.shape[1])
