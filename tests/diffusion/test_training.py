"""Training the base: what it reads, that it learns, goes on exactly after a stop, and says what is wrong."""

import io
import json
import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from diffusers import AutoencoderKL  # noqa: E402

from ipse.cli import main  # noqa: E402
from ipse.diffusion.base import load_base  # noqa: E402
from ipse.diffusion.components import make_denoiser, make_scheduler, make_tokenizer, make_vae  # noqa: E402
from ipse.diffusion.training import stages  # noqa: E402
from ipse.diffusion.training.assemble import assemble, load_stage, unpack  # noqa: E402
from ipse.diffusion.training.data import carry, facts_of, for_judge, pack, parts_of, persons_of, shortened  # noqa: E402
from ipse.diffusion.training.denoiser import DenoiserStage, begin_with, draw_steps, repeated  # noqa: E402
from ipse.diffusion.training.recipe import StageRecipe  # noqa: E402
from ipse.diffusion.training.text import numbered  # noqa: E402
from ipse.diffusion.training.vae import VaeStage, begin_with_autoencoder, begin_with_mean_colors, standardize  # noqa: E402
from ipse.errors import DataError, TrainingError, WeightsError  # noqa: E402
from ipse.faces.parts import LABELS  # noqa: E402
from ipse.training.loop import rate_at  # noqa: E402

SIDE = 32
COLORS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 200), "white": (240, 240, 240)}
SHARED = {"size": SIDE, "holdout": 0.2, "ema": 0.5, "save_every": 4, "look_every": 100}
RECIPES = {
    "joint": {
        "steps": 10,
        "batch": 8,
        "network": {"width": 32, "text_layers": 1, "image_layers": 1, "heads": 2, "dim": 16},
        "options": {"each": 2, "shift": 1},
        "optimizer": {"rate": 0.003, "warmup": 2},
    },
    "text": {
        "steps": 10,
        "batch": 16,
        "options": {"full": 1.0, "keys": 8, "values": 16},
        "optimizer": {"rate": 0.01, "warmup": 2},
    },
    "vae": {
        "steps": 10,
        "batch": 4,
        "network": {"channels": [32, 32, 32, 32]},
        "options": {"crop": 16, "whole": 0.4},
        "optimizer": {"rate": 0.0003, "warmup": 2},
    },
    "decoder": {
        "steps": 10,
        "batch": 4,
        "network": {"width": 8},
        "options": {"crop": 16, "whole": 0.4, "begin": 0.5, "features": 4.0},
        "optimizer": {"rate": 0.001, "warmup": 2},
    },
    "denoiser": {
        "steps": 10,
        "batch": 8,
        "network": {"channels": [16, 32], "heads": 2},
        "optimizer": {"rate": 0.003, "warmup": 2},
    },
}


def recipe(stage, **changes):
    return StageRecipe.from_dict({"stage": stage} | SHARED | RECIPES[stage] | changes)


def rows(people, captions=3, width=SIDE):
    for person in people:
        for shot, (color, rgb) in enumerate(COLORS.items()):
            draw = np.random.default_rng([person, shot])
            pixels = np.full((SIDE, width, 3), rgb, np.uint8)
            pixels[8:24, width // 4 : 3 * width // 4] = draw.integers(0, 256, 3)
            parts = np.zeros((SIDE, width), np.uint8)
            parts[8:24, width // 4 : 3 * width // 4] = LABELS.index("eyes")
            file, map_of_parts = io.BytesIO(), io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            Image.fromarray(parts).save(map_of_parts, "PNG")
            full = f"A portrait of a man, against a plain {color} background, lit from the left."
            yield {
                "image": {"bytes": file.getvalue()},
                "person": person,
                "captions": [full, f"A man, against a {color} background.", "A man."][:captions],
                "facts": json.dumps({"background_color": color}),
                "person_json": json.dumps({"number": person}),
                "shot_json": json.dumps({"mood": color}),
                "age": 30.0,
                "skin_tone": 5.0,
                "yaw": 0.0,
                "parts": {"bytes": map_of_parts.getvalue()},
            }


def write(folder, people, **options):
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows(people, **options))), folder / "data" / "train-00000.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [write(folder / "a", range(100, 110)), write(folder / "b", range(200, 205), captions=2)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(data, cache, tmp_path_factory):
    """All stages, run without a break."""
    runs = tmp_path_factory.mktemp("finished")
    return runs, {stage: stages.run(recipe(stage), data, runs, cache=cache) for stage in RECIPES}


def weights_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "weights").glob("*.safetensors")}


def test_the_judge_gets_a_fifth_of_every_group():
    people = np.arange(1000, 4000)
    # Balanced data sets go round the 30 groups of age, gender and skin by number.
    shares = [for_judge(people[people % 30 == group]).mean() for group in range(30)]
    assert min(shares) > 0.15 and max(shares) < 0.25
    assert for_judge([30_000, 34_567, 39_999]).all() and not for_judge(np.arange(29_000, 30_000)).all()


def test_the_base_never_sees_the_people_of_the_judge(data, cache):
    ours, theirs = pack(data, cache, SIDE), pack(data, cache, SIDE, judge=True)
    assert not for_judge(ours.person).any() and for_judge(theirs.person).all()
    assert set(ours.person) | set(theirs.person) == {*range(100, 110), *range(200, 205)}
    assert ours.fingerprint != theirs.fingerprint
    train, held_out = ours.split(0.2)
    assert not set(train.person) & set(held_out.person) and len(train) + len(held_out) == len(ours)


def test_pictures_and_captions_come_back(data, cache):
    corpus = pack(data, cache, SIDE)
    first = next(iter(rows([101])))
    assert corpus.pixels.shape == (48, SIDE, SIDE, 3) and corpus.tokens.shape == (48, 3, 77)
    np.testing.assert_array_equal(corpus.pixels[0, 0, 0], COLORS["red"])
    (caption,) = corpus.captions(np.array([0]))
    tokenizer = make_tokenizer()
    assert tokenizer(caption)["input_ids"] == tokenizer(first["captions"][0])["input_ids"]
    # Another call opens what is there; data that change are decoded anew.
    assert pack(data, cache, SIDE).folder == corpus.folder != pack(data[:1], cache, SIDE).folder


def test_features_count_more(data, cache, tmp_path):
    corpus = pack(data, cache, SIDE)
    parts = parts_of(data, corpus)
    assert parts.shape == (48, SIDE, SIDE) and (parts[:, 8:24, 8:24] == LABELS.index("eyes")).all()
    assert parts.sum() == parts[:, 8:24, 8:24].sum()

    def loss(given, **options):
        torch.manual_seed(0)
        options = RECIPES["vae"]["options"] | options
        stage = VaeStage(recipe("vae", options=options), corpus, torch.device("cpu"), given)
        total, told = stage.loss(np.arange(4), np.random.default_rng(0))
        return total.item(), told["l1"].item(), told["color"].item()

    plain, same, closer = loss(None), loss(parts, features=1.0), loss(parts, features=5.0)
    assert same == plain and closer[0] > 1.5 * plain[0] and plain[1] < closer[1] < 5 * plain[1]
    assert closer[2] == plain[2]

    bare = tmp_path / "bare" / "data"
    bare.mkdir(parents=True)
    pq.write_table(pq.read_table(data[0] / "data").drop_columns(["parts"]), bare / "train.parquet")
    with pytest.raises(DataError, match="no column parts"):
        stages.run(recipe("vae", options={"features": 5.0}), [bare.parent], tmp_path / "runs", cache=cache)


def test_squares_keep_their_number():
    """Or trainings that began before could not go on."""
    wanted = "13b706919f644281c24ca3ca574f3b4424410b75de10c71e0edfeb735d0e7a34"
    assert recipe("vae").fingerprint == wanted
    assert recipe("vae", size=[32, 16]).fingerprint != wanted


def test_a_base_of_bodies(data, cache, tmp_path):
    bodies = [write(tmp_path / "bodies", range(100, 110), width=16)]
    corpus = pack(bodies, cache, (32, 16))
    assert corpus.pixels.shape == (32, 32, 16, 3) and (corpus.pixels[0, 8:24, 4:12] == corpus.pixels[0, 8, 4]).all()
    # Of the same shape, smaller.
    np.testing.assert_array_equal(pack(bodies, cache, [16, 8]).pixels[0, 4:12, 2:6], corpus.pixels[0, 8:24:2, 4:12:2])
    assert (parts_of(bodies, corpus)[:, 8:24, 4:12] == LABELS.index("eyes")).all()
    assert persons_of(bodies, corpus).shape == (32, 16, 16)
    for wrong, size, told in ((data, (32, 16), "16 wide and 32 high"), (bodies, 32, "of square")):
        with pytest.raises(DataError, match=told):
            pack(wrong, cache, size)

    runs, sizes = tmp_path / "runs", {"size": [32, 16], "steps": 2}
    closer = {
        "network": RECIPES["vae"]["network"] | {"latent": 6},
        "options": RECIPES["vae"]["options"] | {"features": 4.0},
    }
    records = {
        stage: stages.run(recipe(stage, **sizes, **(closer if stage == "vae" else {})), bodies, runs, cache=cache)
        for stage in RECIPES
    }
    assert json.loads((runs / "vae" / "record.json").read_text())["recipe"]["size"] == [32, 16]
    assert all(np.isfinite(list(record["figures"].values())).all() for record in records.values())
    # Two pictures beside each other, and a gap around each.
    pairs = len(pack(bodies, cache, (32, 16)).split(0.2)[1])
    with Image.open(next((runs / "vae" / "sheets").glob("*.png"))) as sheet:
        assert sheet.size == (8 * 18 + 2, 34 * -(-2 * pairs // 8) + 2)
    assemble(runs, tmp_path / "base", "body-base")
    base = load_base(tmp_path / "base", device="cpu")
    assert base.name == "body-base" and base.size == (32, 16) and base.latent == (6, 4, 2)
    (made,) = base.generate("A woman.", steps=2)
    assert made.image.shape == (32, 16, 3)


def test_what_is_carried_is_the_same_data(data, cache, tmp_path):
    files = carry(data, tmp_path / "carried")
    assert "parts" in pq.read_table(tmp_path / "carried").column_names
    assert all(file.stat().st_size < 64 << 20 for file in files)
    assert pack([tmp_path / "carried"], cache, SIDE).fingerprint == pack(data, cache, SIDE).fingerprint
    carry(data, tmp_path / "judge", judge=True)
    table = pq.read_table(tmp_path / "judge")
    assert for_judge(table["person"].to_numpy()).all() and {"facts", "yaw"} <= set(table.column_names)
    # Numbers behind the words, which the judge learns from as well.
    people = [json.loads(text)["number"] for text in table["person_json"].to_pylist()]
    assert people == table["person"].to_pylist() and json.loads(table["shot_json"][0].as_py()) == {"mood": "red"}
    with pytest.raises(DataError, match="not empty"):
        carry(data, tmp_path / "carried")


def test_captions_are_cut_at_a_comma_or_a_stop():
    tokenizer = make_tokenizer()
    breaks = tokenizer.convert_tokens_to_ids([",</w>", ".</w>"])
    text = "A portrait of a man, wearing a hat, in a room. The light is warm."
    tokens = np.repeat(np.array(tokenizer([text], padding="max_length")["input_ids"]), 40, 0)
    cut = {
        tokenizer.decode(row, skip_special_tokens=True) for row in shortened(tokens, breaks, np.random.default_rng(0))
    }
    assert cut == {
        "a portrait of a man",
        "a portrait of a man , wearing a hat",
        "a portrait of a man , wearing a hat , in a room",
        "a portrait of a man , wearing a hat , in a room . the light is warm",
    }


@pytest.mark.parametrize("stage", RECIPES)
def test_a_stage_learns_and_leaves_what_it_made(finished, stage):
    runs, records = finished
    folder, record = runs / stage, records[stage]
    assert json.loads((folder / "record.json").read_text()) == record
    assert record["people"] == 10 and record["steps"] == 10 and record["versions"]["diffusers"]
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"] and log[-1]["figures"] == record["figures"]
    assert bool(list(folder.glob("sheets/*.png"))) == (stage not in ("joint", "text"))
    assert weights_of(folder)


@pytest.mark.usefixtures("finished")
def test_latents_have_mean_0_and_variance_1(data, cache):
    latents = [np.load(path) for path in pack(data, cache, SIDE).folder.glob("latents-*.npy")]
    assert [latent.shape for latent in latents] == [(48, 4, 4, 4)]
    np.testing.assert_allclose(latents[0].astype(float).std((0, 2, 3)), 1, atol=0.25)
    np.testing.assert_allclose(latents[0].astype(float).mean((0, 2, 3)), 0, atol=0.25)


def test_facts_are_read_from_the_states_of_a_text(finished, data, cache, tmp_path):
    runs, _ = finished
    (tmp_path / "joint").symlink_to(runs / "joint")
    record = stages.run(recipe("text", steps=150), data, tmp_path, cache=cache)
    assert record["figures"] == {"right": 1.0, "least": 1.0}
    # By chance it is a quarter: what was learned is in the states, not in what reads them alone.
    text, before = load_stage(tmp_path, "text"), load_stage(runs, "joint").text_model
    assert text.state_dict().keys() == before.state_dict().keys()
    assert sum(p.numel() for p in text.parameters()) < record["parameters"]


def test_facts_as_numbers():
    told = [{"hat": "cap", "head": "left", "light": "warm"}, {"hat": "none", "light": "warm"}, {"head": "right"}]
    names, numbers, classes = numbered(told)
    assert names == ("hat", "head") and classes == (2, 2)
    np.testing.assert_array_equal(numbers, [[0, 0], [1, -1], [-1, 1]])


def test_facts_of_other_data_are_refused(data, cache):
    corpus = pack(data, cache, SIDE)
    assert facts_of(data, corpus)[1] == {"background_color": "green"}
    with pytest.raises(DataError, match="Pack them again"):
        facts_of(data[:1], corpus)


@torch.no_grad()
@pytest.mark.parametrize("channels", [(32, 32, 32, 32), (32, 64, 96, 128)])
def test_an_autoencoder_begins_with_mean_colors(channels):
    torch.manual_seed(0)
    vae = make_vae(channels=channels, size=64).eval()
    colors = torch.rand(2, 3, 8, 8) * 2 - 1
    squares = torch.nn.functional.interpolate(colors, scale_factor=8)
    begun = {}
    for name in ("by chance", "begun"):
        posterior = vae.encode(squares).latent_dist
        decoded = torch.nn.functional.avg_pool2d(vae.decode(posterior.mode()).sample, 8)
        # Scales are a group norm's; what was light or red has to come back as that.
        begun[name] = float(torch.corrcoef(torch.stack([decoded[0].flatten(), colors[0].flatten()]))[0, 1])
        begin_with_mean_colors(vae)
    assert begun["begun"] > 0.9 > 0.5 > abs(begun["by chance"])
    assert float(posterior.std.max()) < 0.15


def test_an_autoencoder_too_narrow_for_mean_colors_is_refused(data, cache, tmp_path):
    with pytest.raises(TrainingError, match="in fours"):
        stages.run(recipe("vae", network={"channels": [16, 32, 32, 32]}), data, tmp_path, cache=cache)


@torch.no_grad()
def test_standardizing_changes_no_picture():
    torch.manual_seed(0)
    vae = make_vae(channels=(8, 8, 16, 16), size=SIDE).eval()
    pictures = torch.randn(2, 3, SIDE, SIDE)
    before = vae.encode(pictures).latent_dist
    mean, std = torch.tensor([1.0, -2.0, 0.5, 0.0]), torch.tensor([0.5, 2.0, 1.0, 3.0])
    decoded = vae.decode(before.mode()).sample
    standardize(vae, mean, std)
    after = vae.encode(pictures).latent_dist
    shaped = mean[:, None, None], std[:, None, None]
    torch.testing.assert_close(after.mode(), (before.mode() - shaped[0]) / shaped[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.std, before.std / shaped[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vae.decode(after.mode()).sample, decoded, rtol=1e-3, atol=1e-4)


def test_a_denoiser_learns_where_parts_are_and_begins_with_another(finished, data, cache, tmp_path):
    from diffusers import UNet2DConditionModel

    runs, _ = finished
    for earlier in ("text", "vae"):
        (tmp_path / earlier).symlink_to(runs / earlier)
    start = runs / "denoiser" / "weights"
    options = {"parts": 1.0, "focus": 0.7, "features": 8.0, "often": {"background_color": 2}, "start": str(start)}
    record = stages.run(recipe("denoiser", steps=40, options=options), data, tmp_path, cache=cache)
    log = [json.loads(line) for line in (tmp_path / "denoiser" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["parts"]["parts"] < 0.7 * log[0]["parts"]["parts"] and record["figures"]["parts"] > 0
    # What tells parts is not kept, and with no step taken the weights are those of the other.
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "denoiser" / "weights")
    assert record["parameters"] > sum(p.numel() for p in unet.parameters())
    begun = UNet2DConditionModel.from_config(unet.config)
    begin_with(begun, start)
    for key, value in UNet2DConditionModel.from_pretrained(start).state_dict().items():
        assert torch.equal(begun.state_dict()[key], value)
    with pytest.raises(TrainingError, match="holds no U-Net"):
        begin_with(begun, tmp_path)


def test_more_channels_of_the_latent_go_on_from_fewer(data, cache, tmp_path):
    """The first channels mean and are made into what they did before; others are new."""
    torch.manual_seed(0)
    shape = {"channels": (16, 32), "heads": 2, "context": 32, "size": 4}
    old, new = make_denoiser(**shape), make_denoiser(**shape, latent=6)
    old.save_pretrained(tmp_path / "unet")
    begin_with(new, tmp_path / "unet")
    latents, steps, text = torch.randn(2, 6, 4, 4), torch.tensor([10, 500]), torch.randn(2, 5, 32)
    ours = new(latents, steps, encoder_hidden_states=text).sample
    theirs = old(latents[:, :4], steps, encoder_hidden_states=text).sample
    torch.testing.assert_close(ours[:, :4], theirs)
    assert ours.shape == latents.shape and ours[:, 4:].std() > 0
    with pytest.raises(TrainingError, match="holds no U-Net of this shape"):
        new.save_pretrained(tmp_path / "wide")
        begin_with(old, tmp_path / "wide")

    vae, wide = (make_vae(channels=(16, 16, 16, 16), groups=4, latent=latent) for latent in (4, 6))
    standardize_by = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1.0, 2.0, 0.5, 1.5])
    with torch.no_grad():
        standardize(vae, *standardize_by)
    vae.save_pretrained(tmp_path / "vae")
    begin_with_autoencoder(wide, tmp_path / "vae")
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        told, before = wide.encode(pictures).latent_dist, vae.encode(pictures).latent_dist
        torch.testing.assert_close(told.mean[:, :4], before.mean)
        torch.testing.assert_close(told.logvar[:, :4], before.logvar)
        assert told.mean[:, 4:].std() > 0
        torch.testing.assert_close(wide.decode(told.mean).sample, vae.decode(before.mean).sample)
    with pytest.raises(TrainingError, match=r"no autoencoder of this shape.*has 6 channels, and 4"):
        wide.save_pretrained(tmp_path / "more")
        begin_with_autoencoder(vae, tmp_path / "more")
    with pytest.raises(TrainingError, match="no autoencoder of this shape"):
        begin_with_autoencoder(make_vae(channels=(16, 16, 16, 32), groups=4), tmp_path / "vae")
    with pytest.raises(TrainingError, match="its layers are others"):
        begin_with_autoencoder(make_vae(channels=(16, 16, 16, 16), groups=4, layers=2), tmp_path / "vae")

    # Training begins there, and sees faces as an encoder of them does.
    corpus = pack(data, cache, SIDE)
    options = RECIPES["vae"]["options"] | {"start": str(tmp_path / "vae"), "perceptual": 1.0}
    stage = VaeStage(
        recipe("vae", network={"channels": [16, 16, 16, 16], "groups": 4, "latent": 6}, options=options),
        corpus, torch.device("cpu"),
    )  # fmt: skip
    torch.testing.assert_close(stage.network.encode(pictures).latent_dist.mean[:, :4], before.mean)
    loss, parts = stage.loss(np.arange(4), np.random.default_rng(0))
    assert parts["perceptual"] > 0
    assert [len(one) for one in stage.trained_with] == [64], "the encoder that gives the loss cannot judge the base"
    rest = sum(parts[name].item() * weight for name, weight in (("l1", 1), ("edges", 1), ("color", 1), ("kl", 3e-4)))
    assert loss.item() == pytest.approx(rest + parts["perceptual"].item(), rel=1e-5)


def test_steps_are_drawn_where_signal_and_noise_are_equal():
    share = make_scheduler().alphas_cumprod
    even, focused = (draw_steps(4000, share, focus, np.random.default_rng(0)) for focus in (0.0, 1.0))
    assert abs(float((even < 500).float().mean()) - 0.5) < 0.03
    logs = torch.logit(share[focused].double())
    assert abs(float(logs.mean())) < 0.15 and abs(float(logs.std()) - 2) < 0.15


class Killed(Exception):
    pass


@pytest.mark.parametrize("stage", RECIPES)
def test_a_killed_run_goes_on_exactly_where_it_was(finished, data, cache, tmp_path, stage):
    runs, records = finished
    for earlier in {"joint", "text", "vae"} - {stage}:
        (tmp_path / earlier).symlink_to(runs / earlier)

    def kill(step):
        # After the checkpoint of step 4 and before that of step 8.
        if step.step >= 4:
            raise Killed

    with pytest.raises(Killed):
        stages.run(recipe(stage), data, tmp_path, cache=cache, on_step=kill)
    with pytest.raises(TrainingError, match="holds a run already"):
        stages.run(recipe(stage), data, tmp_path, cache=cache)
    record = stages.run(recipe(stage), data, tmp_path, cache=cache, resume=True)
    assert weights_of(tmp_path / stage) == weights_of(runs / stage)
    assert record["figures"] == records[stage]["figures"]


def test_time_is_up(finished, data, cache, tmp_path):
    runs, _ = finished
    assert stages.run(recipe("vae"), data, tmp_path, cache=cache, minutes=0) == {}
    assert not (tmp_path / "vae" / "record.json").exists()
    assert stages.run(recipe("vae"), data, tmp_path, cache=cache, resume=True)["steps"] == 10
    assert weights_of(tmp_path / "vae") == weights_of(runs / "vae")


def test_a_run_is_ended_early(finished, data, cache, tmp_path):
    def kill(step):
        if step.step >= 4:
            raise Killed

    with pytest.raises(Killed):
        stages.run(recipe("vae"), data, tmp_path, cache=cache, on_step=kill)
    for impossible in (4, 10):
        with pytest.raises(TrainingError, match="cannot be ended early"):
            stages.run(recipe("vae"), data, tmp_path, cache=cache, resume=True, end=impossible)
    # Stopped once more: the checkpoint knows where the run ends.
    assert stages.run(recipe("vae"), data, tmp_path, cache=cache, resume=True, minutes=0, end=7) == {}
    record = stages.run(recipe("vae"), data, tmp_path, cache=cache, resume=True)
    assert (record["steps"], record["hurried_from"]) == (7, 4)
    lines = [json.loads(line) for line in (tmp_path / "vae" / "log.jsonl").read_text().splitlines()]
    plan = recipe("vae")
    assert lines[-1]["step"] == 7
    assert plan.optimizer.rate * plan.optimizer.last < lines[-1]["rate"] < rate_at(plan, 6)
    assert weights_of(tmp_path / "vae") != weights_of(finished[0] / "vae")


def test_two_processes_share_batches(data, tmp_path):
    plan = {"stage": "vae", **SHARED, **RECIPES["vae"], "steps": 1}
    # Whole pictures, so that the processes' shares are those of one process but for the noise of latents.
    plan["options"] = {"crop": SIDE, "whole": 0.0}
    (tmp_path / "vae.yaml").write_text(yaml.safe_dump(plan))
    own = [str(Path(sys.executable).with_name("ipse")), "train", "base", "vae", str(tmp_path / "vae.yaml")]
    own += ["--data", str(data[0]), "--data", str(data[1]), "--cache", str(tmp_path / "cache"), "--out"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def gradient(folder):
        # What Adam remembers of its first step.
        state = torch.load(folder / "vae" / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
        return torch.cat([part["exp_avg"].flatten() for part in state.values()])

    subprocess.run([*own, str(tmp_path / "one")], check=True, env=environment)
    done = subprocess.run([*launch, *own, str(tmp_path / "two")], check=True, env=environment, capture_output=True)
    assert json.loads((tmp_path / "two" / "vae" / "record.json").read_text())["processes"] == 2
    assert done.stdout.decode().count("M parameters") == 1
    both = gradient(tmp_path / "one"), gradient(tmp_path / "two")
    assert torch.nn.functional.cosine_similarity(*both, dim=0) > 0.98


def test_another_recipe_or_other_data_do_not_resume(data, cache, tmp_path):
    assert stages.run(recipe("vae"), data, tmp_path, cache=cache, minutes=0) == {}
    with pytest.raises(TrainingError, match="another recipe"):
        stages.run(recipe("vae", seed=1), data, tmp_path, cache=cache, resume=True)
    with pytest.raises(TrainingError, match="another data"):
        stages.run(recipe("vae"), data[:1], tmp_path, cache=cache, resume=True)
    (tmp_path / "vae" / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="damaged"):
        stages.run(recipe("vae"), data, tmp_path, cache=cache, resume=True)


def test_a_loss_that_is_no_number(data, cache, tmp_path):
    wild = recipe("vae", optimizer={"rate": 1e30, "warmup": 0, "clip": 0})
    with pytest.raises(TrainingError, match="at step"):
        stages.run(wild, data, tmp_path, cache=cache)


def test_a_sharper_decoder_leaves_the_encoder(finished, tmp_path):
    runs, _ = finished
    vae, sharper = load_stage(runs, "vae"), load_stage(runs, "decoder")
    for key, value in vae.encoder.state_dict().items():
        torch.testing.assert_close(sharper.encoder.state_dict()[key], value, rtol=0, atol=0)
    assert not torch.equal(vae.decoder.conv_out.weight, sharper.decoder.conv_out.weight)
    assembled = assemble(runs, tmp_path / "base")
    assert set(assembled["stages"]) == set(RECIPES)
    stored = AutoencoderKL.from_pretrained(tmp_path / "base" / "vae")
    torch.testing.assert_close(stored.decoder.conv_out.weight, sharper.decoder.conv_out.weight.half().float())

    other = tmp_path / "runs"
    for stage in ("joint", "text", "denoiser", "decoder"):
        (other / stage).parent.mkdir(exist_ok=True)
        (other / stage).symlink_to(runs / stage)
    shutil.copytree(runs / "vae", other / "vae")
    vae.encoder.conv_in.weight.data += 1
    vae.save_pretrained(other / "vae" / "weights")
    with pytest.raises(TrainingError, match="not trained for this autoencoder"):
        assemble(other, tmp_path / "another")


def test_pictures_with_a_fact_come_more_often():
    facts = [{"hat": "cap"}, {}, {"hat": "cap", "light_side": "left"}, {"light_side": "right"}, {}]
    rows = repeated(np.array([1, 2, 3]), facts, {"hat": 2, "light_side": 3})
    assert rows.tolist() == [1, 2, 2, 2, 3, 3, 3]
    with pytest.raises(TrainingError, match="No picture has the fact 'beard'"):
        repeated(np.array([1, 2]), facts, {"beard": 2})


def test_the_loss_of_what_is_in_the_face_counts_more(finished, data, cache):
    runs, _ = finished
    corpus = pack(data, cache, SIDE)
    vae, text = load_stage(runs, "vae"), load_stage(runs, "text")
    parts = np.zeros((len(corpus.pixels), SIDE, SIDE), np.uint8)
    parts[:, : SIDE // 2] = LABELS.index("eyes")

    class Wrong(torch.nn.Module):
        """Right nowhere but in some rows, where it is told the answer."""

        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def forward(self, noisy, steps, encoder_hidden_states):
            told = torch.zeros_like(noisy)
            told[:, :, self.rows] = velocity[:, :, self.rows]
            return types.SimpleNamespace(sample=told)

    stage = DenoiserStage(recipe("denoiser", options={"features": 8.0}), corpus, torch.device("cpu"), vae, text, parts)
    stored, half = np.arange(4), stage.latents(np.arange(4)).shape[2] // 2
    steps = torch.full((4,), 500)
    losses = []
    for rows in (slice(0, half), slice(half, None)):
        torch.manual_seed(0)
        noise = torch.randn_like(stage.latents(stored).float())
        velocity = stage.scheduler.get_velocity(stage.latents(stored).float(), noise, steps)
        torch.manual_seed(0)
        losses.append(float(stage._loss(Wrong(rows), stored, stage.captions.full(stored), steps)[0]))
    outside = velocity[:, :, half:].square().mean() / velocity[:, :, :half].square().mean()
    assert losses[0] / losses[1] == pytest.approx(float(outside) / 8, rel=1e-4)


def test_a_base_is_taken_apart_and_put_together_again(finished, tmp_path):
    runs, _ = finished
    first = assemble(runs, tmp_path / "base")
    assert unpack(tmp_path / "base", tmp_path / "runs") == list(first["stages"])
    again = assemble(tmp_path / "runs", tmp_path / "again")
    assert again["sha256"] == first["sha256"]
    assert again["stages"] == first["stages"]

    lean = assemble(runs, tmp_path / "lean", joint="none")
    assert list(lean["stages"]) == [stage for stage in first["stages"] if stage != "joint"]
    assert lean["bytes"] < first["bytes"]
    assert load_base(tmp_path / "lean").fingerprint == load_base(tmp_path / "base").fingerprint
    with pytest.raises(WeightsError, match="no joint encoder"):
        load_base(tmp_path / "lean").joint()
    # Without the run that it was left out of, too.
    assert unpack(tmp_path / "lean", tmp_path / "fewer") == list(lean["stages"])
    assert assemble(tmp_path / "fewer", tmp_path / "as-lean", joint="none")["sha256"] == lean["sha256"]
    with pytest.raises(TrainingError, match="stage joint is not finished"):
        assemble(tmp_path / "fewer", tmp_path / "whole")

    reading = assemble(runs, tmp_path / "reading", joint="pictures")
    assert lean["bytes"] < reading["bytes"] < first["bytes"] and list(reading["stages"]) == list(first["stages"])
    with pytest.raises(WeightsError, match="no joint encoder for texts"):
        load_base(tmp_path / "reading").joint()
    read, whole = (load_base(tmp_path / name).pipeline.image_encoder for name in ("reading", "base"))
    pixels = torch.rand(1, 3, whole.config.image_size, whole.config.image_size)
    assert torch.equal(read(pixels).image_embeds, whole(pixels).image_embeds)
    assert unpack(tmp_path / "reading", tmp_path / "halves") == list(lean["stages"])

    for file in (tmp_path / "again").rglob("*"):
        assert file.suffix != ".json" or str(tmp_path) not in file.read_text()
        assert file.is_dir() or file.stat().st_mode == (tmp_path / "again" / "model_index.json").stat().st_mode
    assert load_base(tmp_path / "again").fingerprint == load_base(tmp_path / "base").fingerprint
    with pytest.raises(DataError, match="is there already"):
        unpack(tmp_path / "base", tmp_path / "runs")
    del first["stages"]
    (tmp_path / "base" / "ipse.json").write_text(json.dumps(first))
    with pytest.raises(DataError, match="does not tell its stages"):
        unpack(tmp_path / "base", tmp_path / "other")


def test_the_denoiser_needs_the_stages_before_it(data, cache, tmp_path):
    with pytest.raises(TrainingError, match="vae is not finished"):
        stages.run(recipe("denoiser"), data, tmp_path, cache=cache)


def test_data_that_cannot_be_used(tmp_path, cache):
    with pytest.raises(DataError, match="no Parquet"):
        pack([tmp_path], cache, SIDE)
    with pytest.raises(DataError, match="for judging only"):
        pack([write(tmp_path / "judged", [900_001])], cache, SIDE)
    with pytest.raises(DataError, match="nobody"):
        pack([write(tmp_path / "judges", [102, 107])], cache, SIDE)
    (tmp_path / "silent").mkdir()
    silent = [{key: value for key, value in row.items() if key != "captions"} for row in rows([101])]
    pq.write_table(pa.Table.from_pylist(silent), tmp_path / "silent" / "x.parquet")
    with pytest.raises(DataError, match="no column captions"):
        pack([tmp_path / "silent"], cache, SIDE)


def test_recipes_that_cannot_be(tmp_path):
    with pytest.raises(TrainingError, match="Did you mean steps"):
        StageRecipe.from_dict({"stage": "vae", "step": 3})
    for wrong in (
        {},
        {"stage": "vae", "precision": "fp8"},
        {"stage": "vae", "steps": 0},
        {"stage": "vae", "ema": 1.0},
        *({"stage": "vae", "size": size} for size in (0, [128], [128, 0], [1, 2, 3], "128", None)),
    ):
        with pytest.raises(TrainingError):
            StageRecipe.from_dict(wrong)
    with pytest.raises(TrainingError, match="no stage 'edit'"):
        stages.run(replace(recipe("vae"), stage="edit"), [], tmp_path)
    (tmp_path / "broken.yaml").write_text("{")
    with pytest.raises(DataError):
        StageRecipe.load(tmp_path / "broken.yaml")


def test_the_recipes_of_the_base_are_recipes(pytestconfig):
    files = sorted((pytestconfig.rootpath / "recipes" / "base").glob("*.yaml"))
    found = [StageRecipe.load(file) for file in files if "stage" in yaml.safe_load(file.read_text())]
    assert {recipe.stage for recipe in found} == set(RECIPES)


def test_from_the_command_line_to_pictures(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IPSE_CACHE", str(tmp_path / "cache"))
    runs = ["--data", str(data[0]), "--data", str(data[1]), "--out", str(tmp_path / "runs"), "--steps", "2"]

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return end.value.code or 0

    for stage in RECIPES:
        file = tmp_path / f"{stage}.yaml"
        file.write_text(yaml.safe_dump({"stage": stage} | SHARED | RECIPES[stage]))
        assert run("train", "base", stage, file, *runs) == 0
        assert "M parameters" in capsys.readouterr().out
    assert run("train", "base", "vae", tmp_path / "joint.yaml", *runs) == 2
    assert "stage joint" in capsys.readouterr().err
    assert run("train", "base", "assemble", tmp_path / "base", "--runs", tmp_path / "runs", "--name", "mine") == 0
    assert json.loads((tmp_path / "base" / "ipse.json").read_text())["name"] == "mine"
    assert "MB" in capsys.readouterr().out
    assert run("train", "base", "unpack", tmp_path / "base", "--out", tmp_path / "again") == 0
    assert "denoiser" in capsys.readouterr().out
    out = tmp_path / "pictures"
    assert run("generate", "--base", tmp_path / "base", "--prompt", "A man.", "--n", 1, "--steps", 2, "--out", out) == 0
    assert len(list(out.glob("*.png"))) == 1
