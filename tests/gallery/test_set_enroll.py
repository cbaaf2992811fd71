import numpy as np
import pytest

pytest.importorskip("torch")

from ipse.errors import DataError, TrainingError, WeightsError
from ipse.gallery.set_enroll import KnownOrNew, neighbor_tokens, play


def crowd(people, each, dim, noise, seed):
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    return (draw.normal(size=(people, dim))[who] + noise * draw.normal(size=(len(who), dim))).astype(np.float32), who


@pytest.fixture(scope="module")
def learned():
    return KnownOrNew(size=8).fit(*crowd(60, 5, 24, 0.7, 0), enrolled=(4, 25), steps=80)


def test_an_enrollment_keeps_its_pictures_apart():
    who = np.repeat(np.arange(12), 4)
    episode = play(who, 5, 3, np.random.default_rng(0), probes=14, new=0.5)
    assert len(np.unique(who[episode.gallery])) == 5 and len(episode.gallery) == 15
    assert not set(episode.gallery) & set(episode.probes)
    assert (episode.known == np.isin(who[episode.probes], who[episode.gallery])).all()
    assert (~episode.known).sum() == 7 and episode.known.sum() == 5
    with pytest.raises(TrainingError, match="fewer than there are"):
        play(who, 12, 1, np.random.default_rng(0))


def test_tokens_say_where_neighbors_lie():
    probes, gallery = np.eye(3, dtype=np.float32)[:1], np.float32([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    tokens = neighbor_tokens(probes, gallery, ["a", "a", "b", "c"], size=2)
    cosines = np.array([0, 0, 0, 0.5**0.5, 0, 0, 0, 0.5**0.5, 0, 0])  # of different people, each pair twice
    nearest = tokens[0][tokens[0, :, 0].argmax()]
    expected = (np.array([1, 0.5**0.5, 0]) - cosines.mean()) / cosines.std()
    assert nearest == pytest.approx([*expected, 1], abs=1e-5) and tokens.shape == (1, 2, 4)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
    assert np.allclose(
        neighbor_tokens(5 * probes @ turn, gallery @ turn, [0, 0, 1, 2], 2).sum(1), tokens.sum(1), atol=1e-4
    )


def test_it_decides_for_another_encoder_and_a_larger_gallery(learned):
    features, who = crowd(200, 4, 60, 1.1, 1)
    episode = play(who, 100, 2, np.random.default_rng(1), probes=300)
    chances = learned.known(features[episode.probes], features[episode.gallery], who[episode.gallery])
    right = (chances >= 0.5) == episode.known
    assert right[episode.known].mean() > 0.75 and right[~episode.known].mean() > 0.75


def test_the_order_of_the_gallery_changes_nothing(learned, tmp_path):
    features, who = crowd(30, 4, 24, 0.7, 2)
    probes, gallery, people = features[::4], features[1::4], who[1::4]
    chances = learned.known(probes, gallery, people)
    order = np.random.default_rng(0).permutation(len(gallery))
    assert np.abs(learned.known(probes, gallery[order], people[order]) - chances).max() < 1e-6
    learned.save(tmp_path / "decide.safetensors")
    assert (KnownOrNew.load(tmp_path / "decide.safetensors").known(probes, gallery, people) == chances).all()


def test_what_cannot_be_is_refused(learned, tmp_path):
    with pytest.raises(DataError, match="two people at least"):
        learned.known(np.ones((2, 3)), np.eye(3), [0, 0, 0])
    with pytest.raises(DataError, match="one encoder"):
        learned.known(np.ones((2, 4)), np.eye(3), [0, 1, 2])
    with pytest.raises(WeightsError, match="Train and save"):
        KnownOrNew.load(tmp_path / "nothing.safetensors")
    with pytest.raises(TrainingError):
        KnownOrNew(size=0)
