"""The benchmark of the base, with a tiny base and a tiny judge of random weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ipse.measure import Evidence

ROOT = Path(__file__).parents[2]
pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def bench():
    """The script as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import base

    yield base
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_handles_are_measured(bench, base_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "STEPS", 2)
    setting = bench.Setting(str(base_folder), None, 500, 2, tmp_path, 1)
    evidence = Evidence("base")
    bench.inversion(evidence, setting)
    bench.adapter(evidence, setting, trials=3)
    bench.attention(evidence, setting, trials=3)
    figures = {figure["name"]: figure for figure in evidence.figures}
    assert list(figures) == ["base.inversion_psnr_db", "base.adapter_overhead", "base.attention_overhead"]
    assert all(figure["ci95"][0] <= figure["value"] <= figure["ci95"][1] for figure in figures.values())
    psnr = figures["base.inversion_psnr_db"]
    # What is lost beyond the autoencoder is little.
    assert psnr["n"] == 2 and psnr["value"] == pytest.approx(psnr["against"]["value"], abs=3)
    assert "4 identity tokens in 4 layers" in figures["base.adapter_overhead"]["note"]
    # No handle stays behind.
    names = {type(processor).__name__ for processor in setting.base.pipeline.unet.attn_processors.values()}
    assert names == {"AttnProcessor2_0"}
    json.dumps(evidence.figures)


def test_pictures_are_judged(bench, base_folder, judge_file, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "STEPS", 2)
    monkeypatch.setattr(bench, "FEWER", (("dpm", 1),))
    setting = bench.Setting(str(base_folder), judge_file, 500, 8, tmp_path, 1)
    red = {"hair_color": "red", "glasses": "none", "top_color": "red", "expression": "neutral"}
    blue = {"hair_color": "black", "glasses": "round", "top_color": "blue", "expression": "surprise"}
    vars(setting)["real"] = bench.Rendered(setting.real.images, setting.real.captions, [red, blue] * 4)
    evidence = Evidence("base")
    bench.prompts(evidence, setting)
    bench.samplers(evidence, setting)
    figures = {figure["name"]: figure for figure in evidence.figures}
    each = [figures[f"base.prompt_accuracy.{name}"] for name in bench.PictureJudge(judge_file).classes]
    assert figures["base.prompt_accuracy_mean"]["value"] == pytest.approx(np.mean([one["value"] for one in each]))
    assert figures["base.prompt_accuracy_min"]["value"] == min(one["value"] for one in each)
    assert all(one["ci95"][0] <= one["value"] <= one["ci95"][1] for one in each)
    assert {"base.sampler.dpm1.prompt_accuracy_mean", "base.sampler.dpm1.frechet_over_ddim"} <= figures.keys()
    # Renderings in place of pictures are as good as renderings.
    vars(setting)["made"] = setting.real.images
    evidence = Evidence("base")
    bench.prompts(evidence, setting)
    figures = {figure["name"]: figure for figure in evidence.figures}
    assert figures["base.frechet_ratio"]["value"] == pytest.approx(1)
    assert all(f["value"] == f["against"]["value"] for name, f in figures.items() if "accuracy." in name)


def test_facts_are_read_from_captions(bench, base_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "READ", 20)
    setting = bench.Setting(str(base_folder), None, 500, 4, tmp_path, 1)
    evidence = Evidence("base")
    bench.reading(evidence, setting, steps=40)
    (figure,) = evidence.figures
    # Of random weights: some facts are nearly always the same.
    assert figure["n"] == 4 and 20 < figure["value"] < 100 and 20 < figure["against"]["value"] < 100


def test_faces_are_found_and_compared(bench, base_folder, tmp_path):
    setting = bench.Setting(str(base_folder), None, 500, 8, tmp_path, 1)
    real = setting.real
    alike = [{"head": "facing the camera"}] * 4 + [{"head": "turned to the left"}] * 4
    vars(setting)["real"] = bench.Rendered(real.images, real.captions, alike)
    blank = np.full_like(real.images[:4], 127)
    vars(setting).update(made=np.concatenate([real.images[:2], blank[:2], blank]), again=real.images[:2])
    evidence = Evidence("base")
    bench.faces(evidence, setting)
    figures = {figure["name"]: figure for figure in evidence.figures}
    found, apart = figures["base.detect_frontal"], figures["base.seed_distance"]
    assert found["n"] == 4 and found["value"] == 50 and found["against"]["value"] == 100
    assert apart["n"] == 2 and apart["value"] < 1e-6 < apart["against"]["value"]


def test_other_people_are_a_trial(bench, base_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "STEPS", 1)
    monkeypatch.setattr(Evidence, "write", lambda *_, **__: pytest.fail("written"))
    common = ["--base", str(base_folder), "--work", str(tmp_path), "--only"]
    bench.main([*common, "cost", "--start", "0"])
    assert "base.seconds_per_picture" in capsys.readouterr().out
    bench.main([*common, "cost", "--dry"])
