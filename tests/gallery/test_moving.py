import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ipse.encoders import ChipSpec, Encoder
from ipse.errors import FingerprintMismatch, GalleryError
from ipse.gallery import EncoderSpec, Gallery

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")


def refused(reason):
    return pytest.raises(GalleryError, check=lambda error: error.reason == reason)


class Means(Encoder):
    """Mean color of the chip's quarters: a real encoder, if a poor one."""

    name = "means"
    dim = 12
    modality = "face"
    license = "none"
    fingerprint = "b" * 64

    def __init__(self, metric="cosine", template=None, side=32):
        self.metric = metric
        self.chip = ChipSpec(side, side, template)

    def _encode(self, batch):
        half = self.chip.height // 2
        quarters = batch.reshape(len(batch), 2, half, 2, half, 3).mean(axis=(2, 4))
        return quarters.reshape(len(batch), 12).astype(np.float32)


@pytest.fixture
def crops():
    return np.random.default_rng(3).integers(0, 256, (4, 2, 2, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture
def pictured(gallery, people, crops):
    for i, (name, vectors) in enumerate(list(people.items())[:4]):
        gallery.enroll(name, vectors[:1], crops=[crops[i]], provenance=[{"source": f"{name}.jpg", "camera": "door"}])
    return gallery


def test_export_and_import_lose_nothing(pictured, tmp_path):
    consent = {"purposes": {"recognize": True, "generate": True}, "source": "form"}
    pictured.set_consent("Person 01", consent)
    assert pictured.export(tmp_path / "out" / "people.parquet") == 4
    copy = Gallery.import_(tmp_path / "out" / "people.parquet", tmp_path / "copy")
    assert copy.encoder == pictured.encoder and copy.people() == pictured.people()
    for name in pictured.names():
        assert copy.person(name) == pictured.person(name) and copy.crops(name) == pictured.crops(name)
    copy.require("Person 01", "generate")
    query = pictured.person("Person 02").templates
    assert copy.search(query, where="camera = 'door'")[0].name == "Person 02"


def test_some_people_can_be_exported(pictured, tmp_path):
    assert pictured.export(tmp_path / "x.parquet", ["Person 03"]) == 1
    assert Gallery.import_(tmp_path / "x.parquet", tmp_path / "copy").names() == ["Person 03"]
    with refused("unknown-person"):
        pictured.export(tmp_path / "y.parquet", ["Somebody else"])
    assert not (tmp_path / "y.parquet").exists()


def test_import_into_a_gallery_that_has_people(pictured, tmp_path, people):
    pictured.export(tmp_path / "x.parquet")
    other = Gallery.create(tmp_path / "other", pictured.encoder, key="secret")
    other.enroll("Person 03", people["Person 03"])
    with refused("needs-key"):
        Gallery.import_(tmp_path / "x.parquet", tmp_path / "other")
    plain = Gallery.create(tmp_path / "plain", pictured.encoder)
    plain.enroll("Person 03", people["Person 03"])
    with refused("name-clash"):
        Gallery.import_(tmp_path / "x.parquet", tmp_path / "plain")
    assert plain.names() == ["Person 03"]
    Gallery.import_(tmp_path / "x.parquet", tmp_path / "plain", add=True)
    assert len(plain) == 7 and len(plain.person("Person 03")) == 4
    Gallery.create(tmp_path / "foreign", EncoderSpec("toy", "9" * 64, "l2", 16))
    with pytest.raises(FingerprintMismatch):
        Gallery.import_(tmp_path / "x.parquet", tmp_path / "foreign")


def test_a_protected_gallery_moves_through_a_plain_file(tmp_path, spec, people):
    gallery = Gallery.create(tmp_path / "g", spec, key="one")
    gallery.enroll("Ana", people["Person 00"])
    gallery.export(tmp_path / "x.parquet")
    copy = Gallery.import_(tmp_path / "x.parquet", tmp_path / "copy", key="two")
    assert copy.protected and copy.search(people["Person 00"][0])[0].name == "Ana"
    np.testing.assert_allclose(copy.person("Ana").templates, people["Person 00"], atol=1e-5)


def test_files_that_are_no_exports(pictured, tmp_path):
    pictured.export(tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").touch()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "stranger.parquet")
    for name in ("short", "empty", "stranger"):
        with refused("damaged"):
            Gallery.import_(tmp_path / f"{name}.parquet", tmp_path / "new")
    with refused("missing"):
        Gallery.import_(tmp_path / "nothing.parquet", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with refused("unwritable"):
        pictured.export(tmp_path / "file" / "below.parquet")


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_migration_encodes_the_crops_again(pictured, crops, metric):
    encoder = Means(metric)
    pictured.calibrate(0.5)
    outcome = pictured.migrate(encoder)
    assert (outcome.templates, outcome.dropped, outcome.to_enroll_again) == (4, {}, ())
    assert Gallery.open(pictured.path, encoder).names() == [f"Person {i:02d}" for i in range(4)]
    assert pictured.encoder.name == "means" and pictured.calibration() is None
    answers = pictured.search(encoder.encode(list(crops)), k=1)
    assert [answer.nearest.name for answer in answers] == pictured.names()
    assert all(answer.nearest.distance < 1e-3 for answer in answers)
    assert pictured.person("Person 02").provenance[0]["source"] == "Person 02.jpg"


def test_migration_names_whom_it_would_lose(pictured, people, crops):
    pictured.enroll("Person 00", people["Person 00"][1:2], add=True)
    pictured.enroll("No Crop", people["Person 07"])
    pictured.enroll("Bad Crop", people["Person 08"][:1], crops=[b"not an image"])
    with refused("no-crops") as caught:
        pictured.migrate(Means())
    assert all(name in str(caught.value) for name in ("No Crop", "Bad Crop", "Person 00"))
    assert pictured.search(people["Person 07"][0])[0].name == "No Crop" and pictured.encoder.name == "toy"
    outcome = pictured.migrate(Means(), drop=True)
    assert outcome.templates == 4 and outcome.dropped == {"Person 00": 1, "No Crop": 3, "Bad Crop": 1}
    assert outcome.to_enroll_again == ("Bad Crop", "No Crop") and len(pictured) == 4


def test_migration_with_a_way_to_encode_of_ones_own(pictured):
    def brightness(crops):
        vectors = np.array([[crop.mean()] * 12 for crop in crops])
        vectors[0] = np.nan
        return vectors

    encoder = Means("l2")
    with pytest.raises(ValueError, match="shape"):
        pictured.migrate(encoder, lambda crops: np.zeros((1, 2)))
    assert pictured.encoder.name == "toy"
    assert pictured.migrate(encoder, brightness, drop=True).templates == 3


def test_crops_that_are_no_chips_are_searched_for_the_face(pictured):
    # These crops show nothing, so no face is found in any.
    outcome_names = set(pictured.names())
    with refused("no-crops") as caught:
        pictured.migrate(Means(template="dlib150", side=40))
    assert all(name in str(caught.value) for name in outcome_names)
