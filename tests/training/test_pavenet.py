import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.errors import DataError, TrainingError  # noqa: E402
from ipse.training.pavenet import FEATURES, PatternNetwork, WriterVerifier, path_features, trace  # noqa: E402


def test_a_cross_is_walked_straight_on():
    ink = np.zeros((40, 40), bool)
    ink[19:22, 5:36] = True
    ink[5:36, 19:22] = True
    path = trace(ink, every=1)
    assert path[0, 2] == 1 and 2 <= path[:, 2].sum() <= 4
    # The first line goes on down through the crossing.
    end = np.flatnonzero(path[:, 2])[1]
    assert abs(path[:end, 0] - 20 / 40).max() < 0.08 and path[end - 1, 1] > 0.8
    assert path[:, :2].min() > 0.1 and path[:, :2].max() < 0.95
    assert len(trace(ink, every=3)) < len(path) / 2
    with pytest.raises(DataError, match="no ink"):
        trace(np.zeros((9, 9), bool))


def test_features_do_not_know_the_place():
    path = trace(np.eye(30, dtype=bool), every=1)
    moved = path + np.float32([0.3, -0.2, 0])
    found = path_features(path)
    assert found.shape == (len(path), FEATURES) and np.allclose(found, path_features(moved), atol=1e-5)
    assert np.allclose(found[2:, 2:4], 0.5**0.5, atol=1e-4) and np.allclose(found[2:, 4], 0, atol=1e-4)


@pytest.mark.parametrize("patterns", [0, 4])
def test_padding_changes_nothing(patterns):
    torch.manual_seed(0)
    network = PatternNetwork(width=16, heads=2, size=8, patterns=patterns).eval()
    x = torch.randn(1, 50, FEATURES)
    with torch.no_grad():
        alone = network(x, torch.tensor([50]))
        padded = network(torch.cat([x, torch.zeros(1, 30, FEATURES)], 1), torch.tensor([50]))
    assert alone.shape == (1, network.dim) and torch.allclose(alone, padded, atol=1e-5)


def test_patterns_are_where_features_peak():
    mining = PatternNetwork(width=16, patterns=2).mining
    x, present = torch.zeros(1, 160, 16), torch.ones(1, 160, dtype=torch.bool)
    x[0, 40], x[0, 100], x[0, 101], x[0, 130] = 5.0, 4.0, 3.0, 1.0
    places = mining.places(x, present)[0]
    # Ten points to each side of the two highest peaks.
    assert places.nonzero()[:, 0].tolist() == [*range(30, 51), *range(90, 111)]


def writing(writers, count, seed):
    """Arcs; a hand has its slant and how much it bends."""
    draw = np.random.default_rng(seed)
    paths, who = [], []
    for writer in range(writers):
        slant, bend = draw.uniform(-1, 1), draw.uniform(-2, 2)
        for _ in range(count):
            t = np.linspace(0, 1, 14)
            start, angle = draw.uniform(0, 1), draw.uniform(-0.2, 0.2) + slant
            x = np.cos(angle) * t - np.sin(angle) * bend * t**2
            y = start + np.sin(angle) * t + np.cos(angle) * bend * t**2
            paths.append(np.stack([x, y, t == 0], 1).astype(np.float32))
            who.append(writer)
    return paths, np.array(who)


def test_hands_are_told_apart_that_were_not_trained_on():
    verifier = WriterVerifier(patterns=4).fit(*writing(16, 8, 0), length=3, steps=40, batch=(8, 2))
    paths, who = writing(10, 6, 1)
    rows = [np.flatnonzero(who == writer)[part] for writer in range(10) for part in (slice(3), slice(3, 6))]
    strings = [[paths[row] for row in some] for some in rows]
    found = verifier.encode(strings)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    same = (found[::2] * found[1::2]).sum(1)
    other = (found[::2] @ found[1::2].T)[~np.eye(10, dtype=bool)]
    assert same.mean() > other.mean() + 0.3
    assert np.mean((found[::2] @ found[1::2].T).argmax(1) == np.arange(10)) >= 0.6


def test_what_cannot_be_is_refused():
    with pytest.raises(TrainingError, match="12 writers"):
        WriterVerifier().fit(*writing(3, 8, 0))
    with pytest.raises(DataError, match="without a character"):
        WriterVerifier().encode([[]])
