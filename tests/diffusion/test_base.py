"""Loading a base, and pictures from it: plain diffusers agrees, seeds decide, what is wrong is said in one line."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402

from ipse.cli import main  # noqa: E402
from ipse.diffusion.base import COMES_WITH, JOINT, Base, kind_of, load_base  # noqa: E402
from ipse.diffusion.layouts import read_tensors  # noqa: E402
from ipse.diffusion.training.assemble import assemble  # noqa: E402
from ipse.errors import DataError, IpseError, TrainingError, WeightsError  # noqa: E402

PROMPT = "A portrait of a young woman with red hair."


@pytest.fixture(scope="module")
def base(base_folder):
    return load_base(base_folder, device="cpu")


@pytest.fixture
def copy(base_folder, tmp_path):
    return shutil.copytree(base_folder, tmp_path / "copy")


def test_what_a_base_says_of_itself(base):
    assert (base.kind, base.name, base.latent, base.size) == ("world", "world-base", (4, 4, 4), (32, 32))
    assert len(base.fingerprint) == 64 and base.record["bytes"] < 2e6
    assert base.pipeline.unet.dtype == base.pipeline.text_encoder.dtype == torch.float32
    assert base.unknown_words("A Wizard with red hair, a wizard and a castle") == ["wizard", "castle"]


def test_plain_diffusers_makes_the_same_picture(base, base_folder):
    (ours,) = base.generate(PROMPT, seed=3, steps=4, guidance=2.0)
    plain = StableDiffusionPipeline.from_pretrained(base_folder, dtype=torch.float32)
    theirs = plain(
        PROMPT, num_inference_steps=4, guidance_scale=2.0, generator=torch.Generator().manual_seed(3), output_type="np"
    ).images[0]
    assert ours.image.shape == (32, 32, 3) and ours.image.dtype == np.uint8
    np.testing.assert_array_equal(ours.image, np.rint(theirs * 255).astype(np.uint8))


def test_trajectories_go_the_way_of_the_pipeline(base, tiny, tokenizer):
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from ipse.diffusion.trajectory import sample

    torch.manual_seed(0)
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16, "vocab_size": 200}
    one, other = (CLIPTextConfig(hidden_size=w, intermediate_size=w, projection_dim=w, **size) for w in (20, 12))
    xl = StableDiffusionXLPipeline(
        base.pipeline.vae, CLIPTextModel(one), CLIPTextModelWithProjection(other), tokenizer, tokenizer, tiny("sdxl"),
        DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False),
        add_watermarker=False,
    )  # fmt: skip
    xl.set_progress_bar_config(disable=True)
    for which in (base, Base("xl", "sdxl", xl)):
        for guidance in (1.0, 3.0):
            (picture,) = which.generate("photo", seed=3, steps=4, guidance=guidance)
            with torch.no_grad():
                latent = sample(which.denoiser("photo", guidance), which.noise(3), 4)
            assert np.abs(which.decode(latent).astype(int) - picture.image).max() <= 1


def test_pictures_are_fitted_but_not_distorted(base):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert base.fit(picture) is picture and base.encode(picture).shape == (1, 4, 4, 4)
    assert base.fit(picture.repeat(3, 0).repeat(3, 1)).tolist() == picture.tolist()
    assert base.fit(np.zeros((300, 299, 3), np.uint8)).shape == (32, 32, 3)
    with pytest.raises(IpseError, match=r"40×32 pixels.*a square"):
        base.fit(np.zeros((32, 40, 3), np.uint8))


def test_dpm_needs_fewer_steps(base, base_folder):
    def made(loaded, steps):
        (picture,) = loaded.generate(PROMPT, seed=3, steps=steps, guidance=1.0)
        return picture.image.astype(int)

    fast, many = load_base(base_folder, device="cpu", sampler="dpm"), made(base, 200)
    assert fast.made()["scheduler"] == "DPMSolverMultistepScheduler"
    assert np.abs(made(fast, 8) - many).mean() < np.abs(made(base, 8) - many).mean()
    with pytest.raises(IpseError, match="ddim and dpm"):
        load_base(base_folder, sampler="euler")


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


def test_the_joint_encoder_comes_with_the_base(base, base_runs):
    from transformers import CLIPModel

    stored = CLIPModel.from_pretrained(base_runs / "joint" / "weights", dtype=torch.float32).state_dict()
    ours = base.joint().state_dict()
    assert ours.keys() == stored.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, stored[name], rtol=2e-3, atol=2e-4)
    # The text encoder that the U-Net reads is another one.
    read = base.pipeline.text_encoder.get_input_embeddings().weight
    assert not torch.equal(read, ours["text_model.embeddings.token_embedding.weight"])


def test_another_joint_encoder_is_refused(copy):
    from safetensors.torch import save_file

    save_file({"logit_scale": torch.zeros(())}, copy / JOINT)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_base(copy, device="cpu").joint()


def test_kinds_are_told_by_configuration(base):
    def of(width, name="StableDiffusionPipeline", channels=4, added=None):
        config = SimpleNamespace(cross_attention_dim=width, addition_embed_type=added, in_channels=channels)
        unet, vae = SimpleNamespace(config=config), SimpleNamespace(config=SimpleNamespace(latent_channels=4))
        return type(name, (), {"unet": unet, "vae": vae})()

    assert kind_of(of(768)) == "sd15"
    assert kind_of(of(2048, "StableDiffusionXLPipeline", added="text_time")) == "sdxl"
    # The last two are for inpainting and editing: they take what is no latent alone.
    for refused in (
        of(1024),
        of(768, "FluxPipeline"),
        of(768, "StableDiffusionInpaintPipeline", 9),
        of(768, channels=8),
    ):
        with pytest.raises(WeightsError, match="is no base that ipse knows"):
            kind_of(refused)
    with pytest.raises(WeightsError, match="32 channels"):
        kind_of(base.pipeline)


def test_a_base_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="no base"):
        load_base(tmp_path / "nothing" / "here")
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(WeightsError, match="model_index"):
        load_base(tmp_path / "empty")
    monkeypatch.setitem(COMES_WITH, "world", tmp_path / "empty")
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


@pytest.mark.parametrize(
    "options",
    [{"n": 0}, {"steps": 0}, {"seed": -1}, {"seed": 2**63}, {"steps": 1001}, {"batch": 0}, {"guidance": float("inf")}],
)
def test_numbers_that_cannot_be(base, options):
    with pytest.raises(IpseError):
        list(base.generate(PROMPT, **options))


def test_schedules_that_begin_one_level_late_have_one_step_less(base, monkeypatch):
    late = DDIMScheduler(steps_offset=1, timestep_spacing="leading", clip_sample=False)
    monkeypatch.setattr(base.pipeline, "scheduler", late)
    with pytest.raises(IpseError, match="at most 999"):
        base.check(1, 0, 1000)
    base.check(1, 0, 999)
    late.set_timesteps(999)
    assert late.timesteps[0] < 1000


@pytest.mark.parametrize(
    "said", ["Cannot allocate memory (os error 12)", "can't allocate memory: you tried", "CUDA out of memory"]
)
def test_memory_that_runs_out_is_no_damage(base_folder, monkeypatch, said):
    def hungry(*arguments, **options):
        raise OSError(said)

    file = next((base_folder / "unet").glob("*.safetensors"))
    monkeypatch.setattr("safetensors.safe_open", hungry)
    with pytest.raises(IpseError, match="Memory ran out"):
        read_tensors(file)


def test_assembling_needs_all_stages_and_a_new_folder(base_runs, base_folder, tmp_path):
    with pytest.raises(DataError, match="there already"):
        assemble(base_runs, base_folder)
    shutil.copytree(base_runs / "joint", tmp_path / "joint")
    with pytest.raises(TrainingError, match="text is not finished"):
        assemble(tmp_path, tmp_path / "out")


def test_generate_from_the_command_line(base_folder, tmp_path, capsys):
    arguments = ["generate", "--base", base_folder, "--prompt", "A wizard with red hair", "--n", 2, "--seed", 4]
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
    assert made["seed"] == 4 and made["steps"] == 2 and made["base"]["sha256"] == load_base(base_folder).fingerprint
    assert {"torch", "diffusers", "transformers", "ipse"} <= made["versions"].keys()
    for last in ("glasses", "earrings"):
        prompt = f"A portrait of a smiling young woman with long red hair and {last}"
        with pytest.raises(SystemExit):
            main([str(a) for a in (*arguments[:4], prompt, "--n", 1, "--steps", 1, "--out", tmp_path / "long")])
    assert len(list((tmp_path / "long").glob("a-portrait-of-a-smiling-young-woman-*.png"))) == 2
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["generate", "--prompt", "x", "--base", str(tmp_path)])
    assert end.value.code == 2 and "model_index.json" in capsys.readouterr().err
