"""Codes of a given size: kept to the byte, and the better the larger."""

import numpy as np
import pytest

from ipse.gallery.compress import CODECS, codec
from ipse.measure import Features, evaluate


@pytest.fixture(scope="module")
def vectors():
    """Vectors whose dimensions matter unequally: to learn from, and of other people."""
    generator = np.random.default_rng(0)
    scale = 0.9 ** np.arange(32)
    person = np.repeat(np.arange(150), 4)
    centers = scale * generator.normal(size=(150, 32))
    features = (centers[person] + 0.5 * scale * generator.normal(size=(600, 32))).astype(np.float32)
    return features[:400], features[400:], person[400:]


@pytest.mark.parametrize("kind", CODECS)
def test_codes_keep_to_their_size_and_tell_more_when_larger(kind, vectors):
    learned, judged, person = vectors
    found = []
    for size in (2, 4):
        code = codec(kind, size, seed=1).fit(learned)
        kept = code.encode(judged)
        assert kept.dtype == np.uint8 and kept.shape == (200, size)
        # A code has no memory of the others, nor of a vector's length.
        np.testing.assert_array_equal(code.encode(3 * judged[:5]), kept[:5])
        back = code.decode(kept)
        assert back.shape == judged.shape
        items = {"person": person, "image": np.arange(200)}
        found.append(evaluate(Features(judged, back), items, items, "leave-one-out").mean_ap())
    full = evaluate(Features(judged, judged), items, items, "leave-one-out").mean_ap()
    assert 0.05 < found[0] < found[1] < full + 0.02


def test_large_scalar_codes_are_as_good_as_the_vectors(vectors):
    learned, judged, _ = vectors
    code = codec("scalar", 32).fit(learned)
    unit = judged / np.linalg.norm(judged, axis=1, keepdims=True)
    back = code.decode(code.encode(judged))
    assert ((unit * back).sum(1) / np.linalg.norm(back, axis=1)).min() > 0.999


def test_what_cannot_be_held_is_refused(vectors):
    learned, _, _ = vectors
    with pytest.raises(ValueError, match="no kind of code 'zip'"):
        codec("zip", 8)
    with pytest.raises(ValueError, match="one byte or more"):
        codec("pca", 0)
    for kind, size, message in (
        ("binary", 8, "no 64 leading"),
        ("product", 33, "33 parts"),
        ("pca", 3, "two bytes each"),
    ):
        with pytest.raises(ValueError, match=message):
            codec(kind, size).fit(learned)
    with pytest.raises(ValueError, match="more vectors"):
        codec("product", 8).fit(learned[:100])
