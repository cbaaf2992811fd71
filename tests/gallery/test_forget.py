"""Forgetting: no byte of the person stays in any file, and nobody else is touched."""

import io

import numpy as np
import pytest
from PIL import Image

from ipse.errors import GalleryError
from ipse.gallery import Gallery, search
from ipse.gallery.rows import vectors_of
from ipse.gallery.store import scan
from ipse.identity import Identity

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")
NAME = "Zoë Quixley-Forgetmé"


def traces(folder, name, vectors, crops=(), texts=()):
    """What of a person is found in the files of a folder, file names included."""
    needles = {f"name in {code}": name.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "latin-1")}
    needles |= {f"text {text!r}": text.encode() for text in texts}
    for i, vector in enumerate(np.asarray(vectors, np.float32)):
        # Parts of a vector too: an index may cut it up or leave out a few numbers.
        for size in (4, 2):
            data = vector.astype(np.float32 if size == 4 else np.float16).tobytes()
            needles |= {f"vector {i} float{8 * size} at {at}": data[at * size : (at + 4) * size] for at in (0, 5, 12)}
    for i, crop in enumerate(crops):
        needles |= {f"crop {i} at {at}": crop[at : at + 24] for at in range(40, len(crop) - 24, 200)}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    found = []
    for path in files:
        data = path.read_bytes() + str(path).encode()
        found += [f"{what} in {path.name}" for what, needle in needles.items() if needle in data]
    return found


def picture(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def with_zoe(full):
    """Zoë among twelve others, with crops, in several writes and versions of the table."""
    generator = np.random.default_rng(11)
    vectors = generator.normal(size=(5, 16)).astype(np.float32)
    crops = [picture(i) for i in range(5)]
    note = {"source": "holiday/zoe-on-the-beach.jpg", "tags": ["zoe-tag"]}
    full.enroll(NAME, vectors[:2], crops=crops[:2], provenance=[note, note])
    full.enroll("Later", generator.normal(size=(2, 16)))
    consent = {"purposes": {"recognize": True}, "by": "zoe-hand"}
    full.enroll(NAME, vectors[2:], crops=crops[2:], add=True, consent=consent)
    full.set_consent(NAME, {**consent, "by": "zoe-pen"})
    full.calibrate(0.2)
    full.optimize()
    full.keep_snapshot()
    return full, vectors, crops, ["zoe-on-the-beach", "zoe-tag", "zoe-hand", "zoe-pen"]


def test_no_byte_stays(with_zoe):
    gallery, vectors, crops, texts = with_zoe
    # The search for traces finds them as long as they are there.
    before = traces(gallery.path, NAME, vectors, crops, texts)
    assert {"name in utf-8", "text 'zoe-tag'", "vector 4 float32 at 0", "crop 4 at 40"} <= {
        what.rsplit(" in ", 1)[0] for what in before
    }
    others = {name: gallery.person(name) for name in gallery.names() if name != NAME}
    assert gallery.forget(NAME) == 5
    assert traces(gallery.path, NAME, vectors, crops, texts) == []
    assert NAME not in gallery and {name: gallery.person(name) for name in gallery.names()} == others
    assert gallery.search(vectors[0])[0].nearest.name != NAME
    with pytest.raises(GalleryError, check=lambda error: error.reason == "unknown-person"):
        gallery.forget(NAME)


def test_no_byte_stays_in_an_index(gallery, monkeypatch):
    monkeypatch.setattr(search, "INDEX_FROM", 3000)
    generator = np.random.default_rng(0)
    spec = gallery.encoder
    everybody = [
        Identity(f"P{i}", generator.normal(size=(4, 16)), spec.name, spec.fingerprint, spec.metric) for i in range(1000)
    ]
    gallery.enroll_many([*everybody, Identity(NAME, np.full((1, 16), 0.1234567), "toy", spec.fingerprint, "l2")])
    assert gallery._store.record["index"] and list(gallery.path.glob("gen-*/*.lance/_indices/*"))
    assert traces(gallery.path, NAME, np.full((1, 16), 0.1234567))
    gallery.forget(NAME, "P7")
    assert gallery._store.record["index"] and list(gallery.path.glob("gen-*/*.lance/_indices/*"))
    assert traces(gallery.path, NAME, np.full((1, 16), 0.1234567)) == []
    assert traces(gallery.path, "no such name", everybody[7].templates) == [] and len(gallery) == 3996
    assert traces(gallery.path, "no such name", everybody[8].templates)


def test_all_or_nobody(full):
    with pytest.raises(GalleryError, check=lambda error: error.reason == "unknown-person"):
        full.forget("Person 01", "Nobody")
    assert "Person 01" in full and full.forget() == 0
    assert full.forget(*full.names()) == 36 and full.people() == [] and len(full) == 0
    full.enroll("Person 01", np.ones(16))
    assert full.search(np.ones(16))[0].name == "Person 01"


def test_whoever_has_it_open_goes_on(full, people):
    other = Gallery.open(full.path)
    other.search(people["Person 02"][0])
    assert len(other) == 36
    full.forget("Person 01")
    assert other.search(people["Person 02"][0])[0].name == "Person 02" and len(other) == 33
    other.enroll("New", people["Person 01"])
    assert full.search(people["Person 01"][0])[0].name == "New"


def test_what_a_crash_leaves_is_completed_or_cleared_away(full, people):
    # The state of a process that died between noting whom to forget and rewriting, and half a new generation.
    with full._store.writing():
        person = full._id_of("Person 05")
        full._store.update_record(forgetting=[person])
    (full.path / ".lock").write_bytes(b"writing")
    (full.path / "gen-half").mkdir()
    (full.path / "gen-half" / "data").write_bytes(people["Person 05"].tobytes())
    (full.path / ".gallery.json.0123.part").write_bytes(b"{")
    again = Gallery.open(full.path)
    assert traces(full.path, "Person 05", people["Person 05"]) == []
    assert "Person 05" not in again and len(again) == 33 and (full.path / ".lock").read_bytes() == b""
    assert len(list(full.path.glob("gen-*"))) == 1 and not list(full.path.glob("*.part"))
    assert sum(len(vectors_of(batch)) for batch in full._store.read(scan)) == 33
