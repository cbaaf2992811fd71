"""Loading a base, and pictures from it: plain diffusers agrees, seeds decide, what is wrong is said in one line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402

from ipse.cli import main  # noqa: E402
from ipse.diffusion.base import kind_of, load_base  # noqa: E402
from ipse.diffusion.components import make_denoiser, make_joint, make_vae  # noqa: E402
from ipse.diffusion.training.assemble import STAGES, assemble  # noqa: E402
from ipse.errors import DataError, IpseError, TrainingError, WeightsError  # noqa: E402

PROMPT = "A portrait of a young woman with red hair."


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What three finished stages leave, their weights drawn by chance."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    joint = make_joint(width=32, text_layers=1, image_layers=1, heads=2, patch=16, size=32, dim=16)
    vae = make_vae(channels=(8, 8, 16, 16), size=32)
    unet = make_denoiser(channels=(16, 32), heads=2, context=32, size=4)
    for stage, network in zip(STAGES, (joint, vae, unet), strict=True):
        network.save_pretrained(folder / stage / "weights")
        (folder / stage / "record.json").write_text(json.dumps({"steps": 0}))
    return folder


@pytest.fixture(scope="module")
def folder(runs):
    assemble(runs, runs / "tiny")
    return runs / "tiny"


@pytest.fixture(scope="module")
def base(folder):
    return load_base(folder, device="cpu")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_what_a_base_says_of_itself(base):
    assert (base.kind, base.name, base.latent, base.size) == ("world", "world-base", (4, 4, 4), (32, 32))
    assert len(base.fingerprint) == 64 and base.record["bytes"] < 2e6
    assert base.pipeline.unet.dtype == base.pipeline.text_encoder.dtype == torch.float32
    assert base.unknown_words("A Wizard with red hair, a wizard and a castle") == ["wizard", "castle"]


def test_plain_diffusers_makes_the_same_picture(base, folder):
    (ours,) = base.generate(PROMPT, seed=3, steps=4, guidance=2.0)
    plain = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs = plain(
        PROMPT, num_inference_steps=4, guidance_scale=2.0, generator=torch.Generator().manual_seed(3), output_type="np"
    ).images[0]
    assert ours.image.shape == (32, 32, 3) and ours.image.dtype == np.uint8
    np.testing.assert_array_equal(ours.image, np.rint(theirs * 255).astype(np.uint8))


def test_a_seed_is_a_picture_however_many_are_made(base):
    four = list(base.generate(PROMPT, n=4, seed=5, steps=2))
    assert [picture.seed for picture in four] == [5, 6, 7, 8]
    (alone,) = base.generate(PROMPT, seed=7, steps=2)
    np.testing.assert_array_equal(alone.image, four[2].image)
    assert not np.array_equal(four[0].image, four[1].image)
    batched = list(base.generate(PROMPT, n=4, seed=5, steps=2, batch=3))
    for one, other in zip(four, batched, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_the_prompt_counts(base):
    (one,), (other,) = base.generate(PROMPT, steps=2), base.generate("A man in a hat.", steps=2)
    assert not np.array_equal(one.image, other.image)


def test_the_fingerprint_is_of_the_weights(base, copy):
    assert load_base(copy, device="cpu").fingerprint == base.fingerprint
    unet = UNet2DConditionModel.from_pretrained(copy / "unet", dtype=torch.float32)
    before = base.fingerprint
    with torch.no_grad():
        unet.conv_out.bias += 1
    changed = load_base(copy, device="cpu")
    changed.pipeline.unet = unet
    assert changed.fingerprint != before


def test_the_joint_encoder_comes_with_the_base(base, runs):
    from transformers import CLIPModel

    stored = CLIPModel.from_pretrained(runs / "joint" / "weights", dtype=torch.float32).state_dict()
    ours = base.joint().state_dict()
    assert ours.keys() == stored.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, stored[name], rtol=2e-3, atol=2e-4)


def test_kinds_are_told_by_configuration(base):
    class Fake:
        def __init__(self, **config):
            self.unet = type("Unet", (), {"config": type("Config", (), config)})

    assert kind_of(Fake(cross_attention_dim=768)) == "sd15"
    assert kind_of(Fake(cross_attention_dim=2048, addition_embed_type="text_time")) == "sdxl"
    with pytest.raises(WeightsError, match="1024 channels"):
        kind_of(Fake(cross_attention_dim=1024))
    with pytest.raises(WeightsError, match="32 channels"):
        kind_of(base.pipeline)


def test_a_base_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no base"):
        load_base(tmp_path / "nothing" / "here")
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(WeightsError, match="model_index"):
        load_base(tmp_path / "empty")
    monkeypatch.setattr("ipse.diffusion.base._WORLD", tmp_path / "empty")
    with pytest.raises(WeightsError, match="not in this build"):
        load_base()


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "json"])
def test_damaged_weights(copy, damage):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content[:-2] + bytes([content[-2] ^ 1, content[-1]]))
    elif damage == "missing":
        file.unlink()
    else:
        (copy / "model_index.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        load_base(copy, device="cpu")
    assert "\n" not in str(caught.value)


def test_memory_runs_out(base, monkeypatch):
    def hungry(*arguments, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(base.pipeline.unet, "forward", hungry)
    with pytest.raises(IpseError, match="Memory ran out"):
        list(base.generate(PROMPT))


@pytest.mark.parametrize("options", [{"n": 0}, {"steps": 0}, {"seed": -1}, {"seed": 2**63}, {"batch": 0}])
def test_numbers_that_cannot_be(base, options):
    with pytest.raises(IpseError):
        list(base.generate(PROMPT, **options))


def test_assembling_needs_all_stages_and_a_new_folder(runs, folder, tmp_path):
    with pytest.raises(DataError, match="there already"):
        assemble(runs, folder)
    shutil.copytree(runs / "joint", tmp_path / "joint")
    with pytest.raises(TrainingError, match="vae is not finished"):
        assemble(tmp_path, tmp_path / "out")


def test_generate_from_the_command_line(folder, tmp_path, capsys):
    arguments = ["generate", "--base", folder, "--prompt", "A wizard with red hair", "--n", 2, "--seed", 4]
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in (*arguments, "--steps", 2, "--out", tmp_path / "out")])
    assert not end.value.code
    told = capsys.readouterr()
    assert "does not know the word 'wizard'" in told.err
    first, second = sorted((tmp_path / "out").glob("*.png"))
    assert first.name == "a-wizard-with-red-hair-4.png" and str(second) in told.out
    with Image.open(first) as image:
        made = json.loads(image.text["ipse"])
        assert image.size == (32, 32) and image.text["Description"] == "A wizard with red hair"
    assert made["seed"] == 4 and made["steps"] == 2 and made["base"]["sha256"] == load_base(folder).fingerprint
    assert {"torch", "diffusers", "transformers", "ipse"} <= made["versions"].keys()
    with pytest.raises(SystemExit) as end:
        main(["generate", "--prompt", "x", "--base", str(tmp_path)])
    assert end.value.code == 2 and "model_index.json" in capsys.readouterr().err
