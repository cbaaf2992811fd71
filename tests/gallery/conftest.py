import numpy as np
import pytest

from ipse.gallery import EncoderSpec, Gallery

DIM = 16


@pytest.fixture
def spec():
    return EncoderSpec("toy", "f" * 64, "l2", DIM, threshold=0.5)


@pytest.fixture
def gallery(tmp_path, spec):
    return Gallery.create(tmp_path / "gallery", spec)


@pytest.fixture
def people():
    """Vectors of 12 people far apart, three of each close together: name -> (3, DIM) float32."""
    generator = np.random.default_rng(7)
    centers = generator.normal(size=(12, DIM))
    return {
        f"Person {i:02d}": (center + generator.normal(scale=0.03, size=(3, DIM))).astype(np.float32)
        for i, center in enumerate(centers)
    }


@pytest.fixture
def full(gallery, people):
    for name, vectors in people.items():
        gallery.enroll(name, vectors)
    return gallery
