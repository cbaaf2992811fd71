"""The benchmark of few pictures and few answers: its own figures, not its trainings."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import open_set
from ipse import zoo
from ipse.errors import DataError
from ipse.measure.evidence import Evidence
from ipse.training.plip import Described


def test_warping_is_the_cheapest_way():
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(7, 2)), draw.normal(size=(5, 2))
    costs = np.linalg.norm(first[:, None] - second, axis=2)
    best = np.full((8, 6), np.inf)
    best[0, 0] = 0
    for i in range(7):
        for j in range(5):
            best[i + 1, j + 1] = costs[i, j] + min(best[i, j], best[i, j + 1], best[i + 1, j])
    assert open_set.warped(first, second) == pytest.approx(best[7, 5] / 12)
    assert open_set.warped(first, np.repeat(first, 2, axis=0)) == pytest.approx(0)


def test_f1_and_the_best_limit():
    known = np.array([True, True, True, False])
    assert open_set.f1(known, known) == 1
    # Known: 2 of 2 told, 3 there; new: 1 of 2 told.
    assert open_set.f1(known, np.array([True, True, False, False])) == pytest.approx((4 / 5 + 2 / 3) / 2)
    limit = open_set.best_limit(known, np.array([0.1, 0.2, 0.3, 0.6]))
    assert 0.3 <= limit < 0.6


def test_a_person_is_as_near_as_the_nearest_template():
    templates = np.eye(4)[[0, 1, 2]]
    queries = open_set.unit(np.array([[1.0, 0.2, 0, 0], [0, 0.2, 1.0, 0]]))
    found = open_set.trials(templates, np.array([5, 7, 5]), queries, np.array([5, 7]))
    assert found.hits.tolist() == [1, 0]
    assert found.same == pytest.approx([1 - queries[0, 0], 1 - queries[1, 1]])
    assert found.others == pytest.approx([1 - queries[0, 1], 1 - queries[1, 2]])
    assert found.between.tolist() == [[5, 7], [7, 5]]
    both = open_set.joined([found, found])
    assert len(both.hits) == 4 and both.between.shape == (4, 2)


def test_two_ways_are_compared_on_the_same_trials():
    draw = np.random.default_rng(1)
    people = np.repeat(np.arange(12), 6)
    centers = draw.normal(size=(12, 16))
    templates = open_set.unit(centers)
    ways = [
        open_set.trials(
            templates, np.arange(12), open_set.unit(centers[people] + noise * draw.normal(size=(72, 16))), people
        )
        for noise in (0.5, 2.0)
    ]
    evidence = Evidence("reid")
    open_set.add_trials(evidence, "reid.toy.", ways[0], "", ("the other", ways[1]))
    figures = {figure["name"]: figure for figure in evidence.figures}
    assert figures["reid.toy.rank1_ahead"]["ci95"][0] > 0 and figures["reid.toy.eer_less"]["ci95"][0] > 0
    assert figures["reid.toy.eer"]["against"]["value"] > figures["reid.toy.eer"]["value"]


def test_nobody_is_judged_whom_the_first_weights_know():
    record = json.loads((Path(zoo.__file__).parent / "shipped" / "body-world.json").read_text())["training"]
    assert record["people"] + record["judged_people"] == len(open_set.BEGUN_WITH)
    open_set.check_unseen(np.arange(20_000, 24_000))
    for person in (1000, 1569, 1599):
        with pytest.raises(DataError, match="from 20000 on"):
            open_set.check_unseen(np.array([20_000, person]))


def test_random_slices_differ_from_fixed_ones_in_their_choice_alone():
    random = dict(open_set.SLICED["random"])
    assert random.pop("slices") == {"random": True} and random == open_set.SLICED["fixed"]


def test_a_probe_tells_content_of_hands_that_it_does_not_know():
    draw = np.random.default_rng(2)
    where, who = np.repeat(["a", "b"], 80), np.repeat(np.arange(40), 4)
    half = np.tile([0, 0, 1, 1], 40)
    hands = draw.normal(size=(40, 64))[who]
    content = hands + 0.1 * draw.normal(size=(160, 64))
    content[:, 0] += 4 * half
    assert open_set.halves_told(content, half, where, who).mean() > 0.9
    assert abs(open_set.halves_told(hands, half, where, who).mean() - 0.5) < 0.1


def test_single_attributes_are_asked_of_pictures_that_show_them():
    class Network:
        """Words by what they end with."""

        def encode_texts(self, texts):
            return np.array([[text.endswith("red coat"), text.endswith("blue coat")] for text in texts], float)

    facts = [{"coat_color": "red"}, {"coat_color": "blue"}, {"bag": "none"}, {"coat_color": "red"}]
    seen = np.array([[1.0, 0], [0, 1], [0, 1], [0, 1]])
    assert open_set.showing(facts, "coat_color").tolist() == [0, 1, 3]
    assert open_set.showing(facts, "bag").tolist() == []
    asks = {"coat_color": "a person in a {} coat"}
    assert open_set.told_attributes(Network(), seen, facts, asks).tolist() == [1, 1, 0]
    assert open_set.commonest(facts, asks) == pytest.approx(2 / 3)


def test_a_sentence_says_what_a_picture_must_show_to_fit():
    facts = {"gender": "male", "age_group": "young", "coat": "coat", "coat_color": "orange", "top": "shirt"}
    assert open_set.sentence(facts) is None
    facts |= {"bag": "backpack", "bag_color": "blue"}
    said, wanted = open_set.sentence(facts)
    assert said == "a man in an orange coat with a backpack"
    assert open_set.fits(facts, wanted) and open_set.fits({**facts, "age_group": "elder"}, wanted)
    for changed in ({"coat_color": "red"}, {"bag": "handbag"}, {"gender": "female"}, {"age_group": "child"}):
        assert not open_set.fits(facts | changed, wanted)
    assert open_set.sentence({**facts, "age_group": "teen"}) is None
    # What is worn above hides what is below, whatever its color.
    assert open_set.sentence({k: v for k, v in facts.items() if k != "coat_color"} | {"top_color": "red"}) is None
    seen = {"gender": "female", "top": "tshirt", "top_color": "light blue", "bag": "handbag"}
    assert open_set.sentence(seen)[0] == "a woman in a light blue T-shirt with a handbag"


def test_a_sentence_is_searched_as_the_command_does(tmp_path):
    import torch

    from ipse.training.plip import PersonWords, Plan, Vocabulary

    torch.manual_seed(0)
    small = {"backbone": "iresnet", "depths": [1, 1, 1, 1], "width": 0.125, "stem": 2, "dim": 16, "size": [32, 16]}
    network = PersonWords(Plan(network=small, dim=8, width=16, layers=1), Vocabulary(("man", "red"), frozenset()))
    network.eval().save(tmp_path / "words.safetensors")
    network = open_set.open_words(tmp_path / "words.safetensors")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), np.uint8)
    (tmp_path / "crops").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "crops" / f"{number}.png")
    likeness = network.encode_pictures(list(pictures)) @ network.encode_texts(["a red man"])[0]
    found = open_set.searched("a red man", tmp_path / "crops", tmp_path / "words.safetensors")
    assert found == [f"{number}.png" for number in np.argsort(-likeness)]


def test_words_are_of_their_data_and_crops_of_their_number(tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def described(source, size):
        shown = np.full((2, *size, 3), int(source.name), np.uint8)
        return Described(shown, np.arange(2), np.arange(2), [["a man"]] * 2, [{}] * 2)

    def write(recipe, out, **rest):
        folders.append(out)
        raise Stopped

    folders = []
    monkeypatch.setattr(open_set, "read_described", described)
    monkeypatch.setattr(open_set, "train_words", lambda data, out, steps: folders.append(out))
    monkeypatch.setattr(open_set, "write_dataset", write)
    for crops, share in (("1", 0.5), ("2", 0.5), ("2", 0.25), ("2", 0.25)):
        setting = open_set.Setting(tmp_path, tmp_path, share, None, tmp_path, None, None, Path(crops), 1)
        with pytest.raises(Stopped):
            open_set.sentences(Evidence("reid"), setting)
    words, rendered = folders[::2], folders[1::2]
    assert len(set(words[:3])) == 3 and words[3] == words[2]
    assert rendered[0] == rendered[1] != rendered[2] == rendered[3]
