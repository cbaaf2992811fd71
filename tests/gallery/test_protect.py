import numpy as np
import pytest

from ipse.errors import GalleryError
from ipse.gallery import EncoderSpec, Gallery
from ipse.gallery.protect import Protection
from ipse.gallery.rows import vectors_of
from ipse.gallery.store import scan
from ipse.identity import Identity

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")


def refused(reason):
    return pytest.raises(GalleryError, check=lambda error: error.reason == reason)


def stored(gallery):
    return gallery._store.read(lambda table: np.concatenate([vectors_of(batch) for batch in scan(table)]))


def bytes_of(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def faces():
    """200 people in 64 dimensions with a mean and unequal axes, as embeddings have: (200, 2, 64) float32."""
    generator = np.random.default_rng(5)
    spread = np.linspace(2, 0.1, 64)
    centers = 0.5 + generator.normal(size=(200, 1, 64)) * spread
    return (centers + 0.2 * generator.normal(size=(200, 2, 64)) * spread).astype(np.float32)


@pytest.fixture
def protected(tmp_path, faces):
    spec = EncoderSpec("toy", "f" * 64, "l2", 64, threshold=4)
    gallery = Gallery.create(tmp_path / "g", spec, key="correct horse")
    gallery.enroll_many([Identity(f"P{i:03d}", v[:1], "toy", "f" * 64, "l2") for i, v in enumerate(faces)])
    return gallery


def test_the_rotation_keeps_distances_and_can_be_undone():
    protection = Protection.new("key", 128)
    np.testing.assert_allclose(protection.rotation @ protection.rotation.T, np.eye(128), atol=1e-12)
    vectors = np.random.default_rng(0).normal(size=(20, 128)).astype(np.float32)
    hidden = protection.hide(vectors)
    np.testing.assert_allclose(hidden @ hidden.T, vectors @ vectors.T, atol=1e-3)
    np.testing.assert_allclose(protection.reveal(hidden), vectors, atol=1e-5)
    again = Protection.unlock("key", 128, protection.record)
    np.testing.assert_array_equal(again.rotation, protection.rotation)
    # Another salt is another rotation.
    assert np.abs(Protection.new("key", 128).rotation - protection.rotation).max() > 0.1
    with pytest.raises(ValueError, match="empty"):
        Protection.new("", 8)


def test_the_rotation_is_the_same_on_every_machine():
    check = "12c20b0a9b772fc4f4f1bd38ff6f1eaaeda5e9bff6661c96cc3ca68b08df6c46"
    record = {"kdf": "scrypt", "n": 2**15, "r": 8, "p": 1, "salt": "00" * 16, "check": check}
    first_row = [0.13948959955072704, -0.7879560645468059, -0.5997231794428891]
    np.testing.assert_allclose(Protection.unlock("key", 3, record).rotation[0], first_row, atol=1e-12)


def test_search_works_with_the_key(protected, faces):
    answers = protected.search(faces[:, 1], k=1)
    assert np.mean([answer.nearest.name == f"P{i:03d}" for i, answer in enumerate(answers)]) > 0.97
    np.testing.assert_allclose(protected.person("P007").templates, faces[7, :1], atol=1e-4)
    plain = np.linalg.norm(faces[3, 1] - faces[3, 0])
    assert protected.search(faces[3, 1], k=1)[0].nearest.distance == pytest.approx(plain, rel=1e-4)


def test_stored_vectors_are_useless_without_the_key(protected, faces):
    theirs = stored(protected)
    hits = 0
    for i, probe in enumerate(faces[:, 1]):
        order = np.argsort(((theirs - probe) ** 2).sum(axis=1))
        hits += i in order[:1]
    # Chance is one in 200.
    assert hits <= 6
    # A wrong rotation is no better than none.
    other = Protection.new("another", 64)
    guesses = [int(((theirs - other.hide(probe[None])) ** 2).sum(axis=1).argmin()) for probe in faces[:, 1]]
    assert np.sum(np.array(guesses) == np.arange(200)) <= 6
    data = bytes_of(protected.path)
    assert not any(vector.tobytes() in data for vector in faces[:, 0]) and b"correct horse" not in data


def test_without_or_with_another_key(protected, faces):
    with refused("wrong-key"):
        Gallery.open(protected.path, key="wrong")
    blind = Gallery.open(protected.path)
    for use in (
        lambda: blind.search(faces[0]),
        lambda: blind.person("P001"),
        lambda: blind.enroll("New", faces[0]),
        lambda: blind.export(protected.path.parent / "x.parquet"),
        lambda: blind.rekey(None, "new"),
    ):
        with refused("needs-key"):
            use()
    assert len(blind.names()) == 200 and blind.forget("P001") == 1 and "P001" not in blind
    assert blind.calibrate(0.1).people == 199


def test_no_crops_under_a_key(protected, faces, tmp_path):
    crop = np.zeros((4, 4, 3), np.uint8)
    with refused("needs-key"):
        protected.enroll("New", faces[0, :1], crops=[crop])
    plain = Gallery.create(tmp_path / "plain", protected.encoder)
    plain.enroll("New", faces[0, :1], crops=[crop])
    with refused("needs-key"):
        plain.rekey(None, "key")
    plain.export(tmp_path / "x.parquet")
    with refused("needs-key"):
        Gallery.import_(tmp_path / "x.parquet", tmp_path / "other", key="key")
    assert plain.search(faces[0, 0])[0].name == "New"


def test_another_key_leaves_nothing_the_old_one_fits(protected, faces):
    witness = Gallery.open(protected.path, key="correct horse")
    old = stored(protected)
    with refused("wrong-key"):
        protected.rekey("wrong", "new")
    protected.rekey("correct horse", "battery staple")
    data = bytes_of(protected.path)
    assert not any(vector.tobytes() in data for vector in old)
    assert protected.search(faces[9, 1], k=1)[0].name == "P009"
    with refused("wrong-key"):
        Gallery.open(protected.path, key="correct horse")
    with refused("wrong-key"):
        witness.search(faces[0, 0])
    assert Gallery.open(protected.path, key="battery staple").search(faces[9, 1], k=1)[0].name == "P009"
    protected.rekey("battery staple", None)
    assert not protected.protected
    np.testing.assert_allclose(Gallery.open(protected.path).person("P009").templates, faces[9, :1], atol=1e-4)
