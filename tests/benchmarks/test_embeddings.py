"""The benchmark of what is known of an embedding: its statistics and its reference, not its features."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import embeddings
from ipse import zoo
from ipse.errors import DataError
from ipse.measure import Features, evaluate


def test_spearman_is_that_of_scipy_and_its_interval_holds_it():
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0)
    ranks, scores = draw.integers(0, 5, 12).astype(float), draw.normal(size=12)
    assert embeddings.spearman(ranks, scores) == pytest.approx(spearmanr(ranks, scores).statistic)
    assert embeddings.spearman(np.ones(4), np.arange(4)) == 0
    person = np.repeat(np.arange(20), 4)
    base = draw.normal(size=(20, 8))[person]
    results = [
        evaluate(Features(f, f), {"person": person}, {"person": person})
        for f in (base + noise * draw.normal(size=base.shape) for noise in (2.0, 1.5, 1.0, 0.7, 0.3))
    ]
    low, high = embeddings.spearman_ci(np.arange(5.0), results, draws=100)
    assert 0 < low <= high <= 1 + 1e-9
    assert embeddings.spearman_ci(-np.arange(5.0), results, draws=100)[1] < 0


def test_the_reference_finds_planted_communities():
    graph, member = embeddings.planted(3, 20, 0.4, 0.01)
    made = embeddings.deep_walk(graph, dim=16, walks=10)
    distances = Features(made, made).rows(0, len(made))
    np.fill_diagonal(distances, np.inf)
    assert (member[distances.argmin(axis=1)] == member).mean() > 0.9


def test_what_a_linear_map_tells_of_traits():
    draw = np.random.default_rng(1)
    people = np.repeat(np.arange(80), 3)
    traits = draw.normal(size=(80, 2))[people]
    features = np.c_[traits[:, 0], draw.normal(size=(240, 3))].astype(np.float32)
    told = embeddings.told_by(features, people, traits)
    assert told[0] > 0.95 and told[1] < 0.2


def test_names_of_traits_can_be_read():
    assert embeddings.readable("shape.nose-width1-incr") == "nose width"
    assert embeddings.readable("shape.l-eye-scale-incr") == "eye scale"
    assert embeddings.readable("age") == "age"


def test_dimensions_are_learned_from_people_whom_the_encoder_does_not_know():
    record = json.loads((Path(zoo.__file__).parent / "shipped" / "face-world.json").read_text())["training"]
    assert record["people"] + record["judged_people"] == len(embeddings.BEGUN_WITH)
    embeddings.check_fresh(np.arange(600_000, 600_400))
    for person in (1000, 2999, 700_000, 900_000):
        with pytest.raises(DataError, match="600000"):
            embeddings.check_fresh(np.array([600_000, person]))


def test_what_learned_without_labels_is_kept(tmp_path, monkeypatch):
    pytest.importorskip("kornia")
    pytest.importorskip("accelerate")
    monkeypatch.setattr(embeddings, "FREE_STEPS", 2)
    monkeypatch.setattr(embeddings, "VIEWED", 4)
    draw = np.random.default_rng(0)
    pictures = {
        split: draw.integers(0, 256, (count, *embeddings.SMALL, 3), np.uint8)
        for split, count in (("train", 8), ("val", 5))
    }
    name = next(iter(embeddings.LABEL_FREE))
    train, val = embeddings.label_free(name, pictures, tmp_path)
    assert train.shape == (8, embeddings.DIM) and val.shape == (5, embeddings.DIM)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    again, _ = embeddings.label_free(name, pictures, tmp_path)
    assert np.array_equal(again, train) and kept.stat().st_mtime_ns == written
    # Other pictures are learned from anew, and so are the same by other views.
    darker, _ = embeddings.label_free(name, {split: shown // 2 for split, shown in pictures.items()}, tmp_path)
    monkeypatch.setattr(embeddings, "VIEWS", {**embeddings.VIEWS, "gray": {"p": 0.5}})
    embeddings.label_free(name, pictures, tmp_path)
    assert not np.array_equal(darker, train) and len(list(tmp_path.iterdir())) == 3
