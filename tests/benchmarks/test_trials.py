"""What benchmarks share: which finished training is taken for the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import trials
from ipse.training.recipe import TrainRecipe


def people(folder, seed):
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for person in range(1, 5):
        for turn in range(2):
            pixels = draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{person:04d}_c{turn + 1}s1_{turn:04d}.png")
    return folder


def recipe(source, start=""):
    return TrainRecipe.from_dict(
        {
            "name": "small",
            "steps": 1,
            "start": str(start),
            "data": {"source": str(source), "holdout": 0.0},
            "cut": {"kind": "whole", "size": [32, 32]},
            "batch": {"people": 2, "each": 2},
            "network": {
                "backbone": "iresnet",
                "depths": [1, 1, 1, 1],
                "width": 0.125,
                "stem": 1,
                "dim": 16,
                "size": [32, 32],
            },
            "losses": {"supcon": {}},
            "optimizer": {"warmup": 0},
        }
    )


def test_a_training_is_of_its_data_and_of_what_it_begins_with(tmp_path):
    cache, folder = tmp_path / "packs", tmp_path / "runs" / "small"
    first, second = people(tmp_path / "first", 0), people(tmp_path / "second", 1)
    done = trials.trained(recipe(first), folder, cache)
    written = done.stat().st_mtime_ns
    assert trials.trained(recipe(first), folder, cache) == done and done.stat().st_mtime_ns == written
    others = trials.trained(recipe(second), folder, cache)
    assert others != done and others.is_file()
    begun = [trials.trained(recipe(first, start), folder, cache) for start in (done, others)]
    assert len({done, others, *begun}) == 4
