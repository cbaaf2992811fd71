"""MasterWeaver: editing directions as the base has them, references with other attributes, a background that stays."""

import dataclasses
import hashlib

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from diffusers import UNet2DConditionModel  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

from ipse.diffusion import Base, layouts  # noqa: E402
from ipse.diffusion.adapters import Adapter, FinalResampler  # noqa: E402
from ipse.diffusion.attention import attached  # noqa: E402
from ipse.diffusion.components import make_tokenizer, make_vae  # noqa: E402
from ipse.diffusion.training.denoiser import make_pipeline  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402
from ipse.personalize import open_method  # noqa: E402
from ipse.personalize.masterweaver import (  # noqa: E402
    EDITS,
    FRAMES,
    SUBJECTS,
    Directions,
    WeaverOptions,
    edit_cosine,
)


@pytest.fixture
def method(untrained):
    return untrained("masterweaver")


def with_options(method, **options):
    method.options = WeaverOptions(**options)
    return method


def test_edits_are_in_words_that_the_base_knows():
    tokenizer = make_tokenizer()
    prompts = [frame.format(edit.format(subject)) for frame in FRAMES for edit in EDITS for subject in SUBJECTS]
    assert all(tokenizer.unk_token_id not in tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts)
    assert len(set(prompts)) == len(prompts)


def test_a_direction_is_compared_at_the_face_alone():
    face = torch.zeros(1, 2, 2)
    face[:, 0] = 1
    plain, step = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    other = step.clone()
    other[:, 2:] *= -1
    base = [(torch.cat([plain, plain + step]), (2, 2))]
    assert edit_cosine([(torch.cat([-plain, 3 * other - plain]), (2, 2))], base, face) == pytest.approx(1, abs=1e-5)
    assert edit_cosine([(torch.cat([plain, plain - step]), (2, 2))], base, face) == pytest.approx(-1, abs=1e-5)


def test_what_is_kept_is_what_was_found_in_the_text(method, batch_of):
    batch = batch_of(method)
    unet, seen = method.unet, Directions(method.unet)
    handles = method.condition(batch.people, batch.words, 1.0).handles
    with torch.no_grad(), attached(unet, seen, *handles):
        unet(batch.noisy, batch.steps, encoder_hidden_states=batch.words.text)
    assert seen.found and all(out.shape[1] == grid[0] * grid[1] for out, grid in seen.found)
    # Words that say nothing are the only ones with nothing to be found: no value, no features.
    with torch.no_grad(), attached(unet, empty := Directions(unet), *handles):
        unet(batch.noisy, batch.steps, encoder_hidden_states=torch.zeros_like(batch.words.text))
    assert all(not out.any() for out, _ in empty.found)


def test_the_editing_direction_is_trained(method, batch_of):
    batch = batch_of(method)
    tokens = method.network.tokens(batch.people[0]["patches"])
    torch.manual_seed(0)
    with torch.no_grad():
        nobody = method.edit_direction(batch.clean, 0 * tokens, batch.own["face"])
    assert nobody == pytest.approx(1, abs=1e-4)
    for layer in method.network.layers.values():
        torch.nn.init.normal_(layer.to_v.weight, std=1.0)
    told = []
    optimizer = torch.optim.Adam(method.network.parameters(), 0.02)
    for _ in range(4):
        torch.manual_seed(0)
        cosine = method.edit_direction(
            batch.clean, method.network.tokens(batch.people[0]["patches"]), batch.own["face"]
        )
        optimizer.zero_grad()
        (1 - cosine).backward()
        optimizer.step()
        told.append(float(cosine.detach()))
    assert told[0] < 0.999 and told[-1] > told[0]


def test_the_loss_is_made_of_its_parts(method, batch_of):
    batch = batch_of(method)
    parts = {}
    for name in ("edit", "background"):
        torch.manual_seed(3)
        off = {"edit": 0.0, "background": 0.0}
        plain, nothing = with_options(method, own=1.0, both=0.0, **off).loss(batch)
        torch.manual_seed(3)
        loss, told = with_options(method, own=1.0, both=0.0, **off | {name: 2.0}).loss(batch)
        assert set(nothing) == {"mse"}
        part = 1 - told["edit_cosine"] if name == "edit" else told["background"]
        torch.testing.assert_close(loss, plain + 2 * part)
        parts[name] = float(part.detach())
    assert parts["background"] > 0
    faces = {**batch.own, "face": torch.ones_like(batch.own["face"])}
    _, told = with_options(method, edit=0.0).loss(dataclasses.replace(batch, own=faces))
    assert told["background"] == 0


def test_references_with_other_attributes(method, batch_of):
    batch = batch_of(method)
    other, own = batch.people[0]["patches"], batch.own["patches"]
    kinds = {(1.0, 0.0): (own, own), (0.0, 1.0): (own, other), (0.0, 0.0): (other, other)}
    for (alone, both), wanted in kinds.items():
        seen = with_options(method, own=alone, both=both).augmented(batch)
        assert torch.equal(seen, torch.cat(wanted, 1))
    nobody = dataclasses.replace(batch, known=torch.zeros(len(own), dtype=torch.bool))
    assert torch.equal(with_options(method, own=1.0).augmented(nobody), torch.cat([other, other], 1))
    # Twice the same face is the face once.
    with torch.no_grad():
        once, twice = (method.network.tokens(patches) for patches in (own, torch.cat([own, own], 1)))
    assert twice.shape == once.shape


def test_a_photograph_is_shown_as_often_as_in_training(method, batch_of):
    batch = batch_of(method)
    with torch.no_grad():
        (acting,) = method.condition(batch.people, batch.words, 1.0).handles
        trained = method.network.tokens(with_options(method, own=0.0, both=0.0).augmented(batch))
    torch.testing.assert_close(acting.tokens, trained)


@pytest.fixture(scope="module")
def sd15():
    """The 16 cross-attention layers of Stable Diffusion 1.5, tiny, with an image encoder."""
    torch.manual_seed(0)
    down, up = ["CrossAttnDownBlock2D"] * 3, ["CrossAttnUpBlock2D"] * 3
    unet = UNet2DConditionModel(
        sample_size=8,
        norm_num_groups=4,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=(*down, "DownBlock2D"),
        up_block_types=("UpBlock2D", *up),
        attention_head_dim=2,
        cross_attention_dim=32,
    )
    size = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": len(make_tokenizer()), "eos_token_id": make_tokenizer().eos_token_id}
    text = CLIPTextModel(CLIPTextConfig(hidden_size=32, **words, **size))
    vision = CLIPVisionConfig(hidden_size=16, image_size=32, patch_size=16, projection_dim=8, **size)
    image = CLIPVisionModelWithProjection(vision)
    networks = make_vae(channels=(8, 8, 8, 8)), text, unet
    for network in (*networks, image):
        network.eval().requires_grad_(False)
    pipeline = make_pipeline(*networks, image_encoder=image)
    pipeline.set_progress_bar_config(disable=True)
    return Base("tiny-sd15", "sd15", pipeline)


def test_the_published_file_is_read(sd15, tmp_path):
    unet, file = sd15.pipeline.unet, tmp_path / "adapter_final.pt"
    adapter = Adapter.new(unet, FinalResampler(16, 32, 32, 16, 1, 1))
    for layer in adapter.layers.values():
        torch.nn.init.normal_(layer.to_v.weight, std=2.0)
    layouts.save(adapter, file, unet, layout="masterweaver")
    assert set(torch.load(file)) == {"id_encoder", "adapter_modules"} and layouts.inspect(file, unet).complete
    method = open_method("masterweaver", sd15, adapter=file, steps=1)
    ada = method.fitted([{"patches": torch.randn(1, 5, 16)}], [[]])
    (on,), (off,) = (ada.generate("A portrait of {a woman}.", 1, 3, strength) for strength in (1.0, 0.0))
    (plain,) = sd15.generate("A portrait of a woman.", 1, 3, 1)
    np.testing.assert_array_equal(off.image, plain.image)
    assert not np.array_equal(on.image, plain.image) and on.more["adapter"] == {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest()
    }
    content = torch.load(file)
    del content["adapter_modules"]["31.to_v_img.weight"]
    torch.save(content, file)
    with pytest.raises(WeightsError, match=r"1 missing: adapter_modules.31.to_v_img.weight"):
        open_method("masterweaver", sd15, adapter=file)
