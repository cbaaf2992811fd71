import numpy as np
import pytest

from ipse.errors import GalleryError
from ipse.gallery import EncoderSpec, Gallery, UncalibratedWarning
from ipse.gallery.calibrate import calibrate, people_needed, person_distances
from ipse.identity import Identity


def crowd(generator, people, templates, dim=24):
    centers = generator.normal(size=(people, 1, dim))
    return (centers + generator.normal(scale=0.2, size=(people, templates, dim))).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("grouping", ["best", "mean", "top3"])
def test_groupings_against_a_plain_loop(grouping, metric):
    generator = np.random.default_rng(0)
    sizes = [1, 4, 2, 7]
    squared = generator.uniform(size=(5, sum(sizes))).astype(np.float32)
    starts = np.cumsum([0, *sizes[:-1]])
    distances = squared / 2 if metric == "cosine" else np.sqrt(squared)
    rule = {"best": np.min, "mean": np.mean, "top3": lambda row: np.sort(row)[:3].mean()}[grouping]
    wanted = [[rule(row[start : start + size]) for start, size in zip(starts, sizes, strict=True)] for row in distances]
    np.testing.assert_allclose(person_distances(squared, starts, grouping, metric), wanted, rtol=1e-5)


@pytest.mark.parametrize("grouping", ["best", "mean", "top3"])
def test_the_threshold_keeps_its_promise_to_new_strangers(grouping):
    generator = np.random.default_rng(1)
    vectors = crowd(generator, 900, 3)
    known, strangers = vectors[:600], vectors[600:]
    found = calibrate(
        known.reshape(-1, 24), np.repeat(np.arange(600), 3), fpir=0.05, grouping=grouping, metric="l2", date="today"
    )
    squared = ((strangers[:, :1] - known.reshape(1, -1, 24)) ** 2).sum(axis=2)
    nearest = person_distances(squared, np.arange(0, 1800, 3), grouping, "l2").min(axis=1)
    rate = float((nearest <= found.threshold).mean())
    assert 0.01 < rate < 0.1 and found.ci95[0] <= found.threshold <= found.ci95[1]
    assert found.enough and not found.note and found.fpir_upper < 0.08 and found.people == found.strangers == 600
    for distance in (nearest.min(), np.median(nearest), nearest.max()):
        assert found.confidence(distance) == pytest.approx((nearest > distance).mean(), abs=0.12)
    assert found.confidence(0) == 1 and found.confidence(100) == 0


def test_each_person_counts_the_same_however_many_templates():
    # Four people near each other, one of them with very many templates, and twenty far from everybody.
    generator = np.random.default_rng(2)
    vectors = np.concatenate([np.zeros((200, 2)), [[0.1, 0]], generator.normal(scale=100, size=(20, 2))])
    person = np.array([0] * 200 + list(range(1, 22)))
    found = calibrate(vectors.astype(np.float32), person, fpir=0.1, grouping="best", metric="l2", date="today")
    near = np.sort(found.curve)
    assert found.threshold > 0.11 and near[0] < 0.11


def test_too_few_people_are_told_so(full):
    found = full.calibrate(0.01)
    assert not found.enough and "12 people are too few" in found.note and str(people_needed(0.01)) in found.note
    assert found.fpir_upper > 0.2 and people_needed(0.01) == 299
    with pytest.warns(UncalibratedWarning, match="too few"):
        assert full.search(full.person("Person 01").templates)[0].name == "Person 01"


def test_two_people_are_no_calibration(gallery, people):
    gallery.enroll("A", people["Person 00"])
    gallery.enroll("B", people["Person 01"])
    with pytest.raises(GalleryError, check=lambda error: error.reason == "too-few"):
        gallery.calibrate()
    with pytest.raises(ValueError, match="between 0 and 1"):
        gallery.calibrate(1)


def test_the_calibration_stays_with_the_gallery_until_it_is_outgrown(tmp_path):
    spec = EncoderSpec("toy", "f" * 64, "l2", 24, threshold=9)
    gallery = Gallery.create(tmp_path / "g", spec)
    vectors = crowd(np.random.default_rng(3), 450, 2)

    def enroll(numbers):
        gallery.enroll_many([Identity(f"P{i}", vectors[i], "toy", spec.fingerprint, "l2") for i in numbers])

    enroll(range(320))
    assert gallery.threshold().source == "encoder" and gallery.calibration() is None
    with pytest.warns(UncalibratedWarning, match="not checked"):
        assert gallery.search(vectors[0, :1])[0].nearest.confidence is None
    found = gallery.calibrate(0.01)
    again = Gallery.open(gallery.path)
    assert again.calibration() == found and again.threshold().value == found.threshold
    assert again.threshold("mean").source == "encoder"
    answer = again.search(vectors[[0, 449], 0])
    assert answer[0].known and answer[0].nearest.confidence == 1 and not answer[1].known
    assert again.calibrate(0.01) == found or again.calibration().threshold == found.threshold
    assert not again.threshold().note
    enroll(range(320, 450))
    assert "grown" in again.threshold().note


def test_a_draw_of_strangers_from_a_large_gallery():
    vectors = crowd(np.random.default_rng(4), 500, 2)
    args = {"fpir": 0.02, "grouping": "best", "metric": "l2", "date": "today"}
    all_of_them = calibrate(vectors.reshape(-1, 24), np.repeat(np.arange(500), 2), **args)
    some = calibrate(vectors.reshape(-1, 24), np.repeat(np.arange(500), 2), probes=600, **args)
    assert some.people == 500 and some.strangers == 300
    assert some.threshold == pytest.approx(all_of_them.threshold, rel=0.15)
