"""The benchmark of search without training: its scenes and its pairs, not its features."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import reid
from ipse.measure import Evidence


def test_couples_share_their_clothes_and_nothing_else():
    pictures = list(reid.couple(20))
    who, clothes, shots = (np.array(column) for column in list(zip(*pictures, strict=True))[:3])
    assert len(pictures) == 4 * reid.SHOTS
    for person in (20, 21):
        assert sorted(set(clothes[who == person])) == [20, 21]
    assert all(image.shape == (reid.SIDE, reid.SIDE, 3) for *_, image, _ in pictures)
    assert sorted(set(shots)) == list(range(reid.SHOTS))


def planted(seed=0, couples=12, noise=0.3):
    """What `seen_couples` gives, with features that are a person's and the clothes' own."""
    draw = np.random.default_rng(seed)
    rows = [
        (first + other, first + day, far)
        for first in range(0, 2 * couples, 2)
        for other in (0, 1)
        for day in (0, 1)
        for far in ((False, False, True, True) if not other and not day else (False, False))
    ]
    who, clothes, far = (np.array(column) for column in zip(*rows, strict=True))
    faces, colors = draw.normal(size=(2 * couples, 24)), draw.normal(size=(2 * couples, 12))
    blur = np.where(far, 8 * noise, noise)[:, None]
    return {
        "person": who,
        "clothes": clothes,
        "far": far,
        "face": faces[who] + blur * draw.normal(size=(len(who), 24)),
        "colors": colors[clothes] + noise * draw.normal(size=(len(who), 12)),
        "quality": np.where(far, 0.1, 0.9),
    }


def test_faim_has_bridges_in_one_scene_and_none_in_the_other():
    evidence = Evidence("reid")
    reid.faim(evidence, planted())
    found = {figure["name"]: figure for figure in evidence.figures}
    assert found["reid.faim.claim"]["value"] == found["reid.faim.map_ahead"]["value"] > 0
    assert found["reid.faim.feasibility_fall"]["value"] > 0
    assert found["reid.faim.unbridged_unweighted_map"]["value"] < found["reid.faim.unweighted_map"]["value"]


def test_conditions_are_asked_with_the_wrong_answers_in_the_gallery():
    evidence = Evidence("reid")
    reid.conditions(evidence, planted(1), planted(2))
    found = {figure["name"]: figure for figure in evidence.figures}
    for question in ("other_clothes", "other_person"):
        figure = found[f"reid.genecis.{question}_rank1"]
        assert figure["value"] > 90 > figure["against"]["value"]


def test_pairs_are_counted_once():
    seen = planted(couples=2)
    same, other = reid.pairs(seen, seen["face"], "person")
    # Four near pictures of each of four people.
    assert (len(same), len(other)) == (4 * 6, 16 * 15 // 2 - 4 * 6)
    assert same.mean() < other.mean()
