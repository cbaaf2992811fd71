"""Codes of a byte a dimension: small, and as good as the vectors."""

import numpy as np
import pytest

from ipse.gallery.codes import quantize, restored


def test_codes_are_a_byte_a_dimension_and_keep_directions():
    vectors = np.random.default_rng(0).normal(size=(500, 128)).astype(np.float32)
    codes = quantize(vectors)
    assert codes.dtype == np.int8 and codes.nbytes == 500 * 128
    unit, back = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), restored(codes)
    assert np.allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)
    assert (unit * back).sum(1).min() > 0.9998
    assert np.abs(back @ back.T - unit @ unit.T).max() < 0.01
    assert np.array_equal(codes, quantize(vectors * 1e-3)) and np.array_equal(codes, quantize(back))


def test_one_vector_and_a_vector_of_zeros():
    assert quantize(np.array([0.5, -0.25])).tolist() == [127, -64]
    assert np.array_equal(restored(quantize(np.zeros((1, 4)))), np.zeros((1, 4)))
    assert quantize(np.empty((0, 4))).shape == (0, 4)


def test_vectors_that_were_not_found_are_refused():
    with pytest.raises(ValueError, match="not all finite"):
        quantize(np.array([[0.1, np.nan]]))
