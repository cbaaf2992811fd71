"""The benchmark of the base: the parts that need no judge, with a tiny base of random weights."""

import json
import sys
from pathlib import Path

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


def test_other_people_are_a_trial(bench, base_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "STEPS", 1)
    monkeypatch.setattr(Evidence, "write", lambda *_, **__: pytest.fail("written"))
    common = ["--base", str(base_folder), "--work", str(tmp_path), "--only"]
    bench.main([*common, "cost", "--start", "0"])
    assert "base.seconds_per_picture" in capsys.readouterr().out
    bench.main([*common, "cost", "--dry"])
    with pytest.raises(SystemExit):
        bench.main([*common, "prompts"])
    assert "prompts and samplers cannot be measured without --judge" in capsys.readouterr().err
