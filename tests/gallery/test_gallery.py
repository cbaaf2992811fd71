import json
import warnings

import numpy as np
import pytest

from ipse import Identity
from ipse.errors import ConsentError, FingerprintMismatch, GalleryError
from ipse.gallery import UNKNOWN, EncoderSpec, Gallery, UncalibratedWarning

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")
CONSENT = {"purposes": {"recognize": True, "generate": True}, "date": "2026-01-02", "source": "form 7"}


def refused(reason):
    return pytest.raises(GalleryError, check=lambda error: error.reason == reason)


def test_what_is_enrolled_comes_back_as_it_was(gallery, people):
    vectors = people["Person 00"]
    provenance = [{"source": f"{i}.jpg", "camera": "door", "box": [1, 2, 3, 4]} for i in range(3)]
    gallery.enroll("  Ana O'Neill ", vectors, quality=[0.5, 1, 0], provenance=provenance, consent=CONSENT)
    ana = Gallery.open(gallery.path).person("Ana O'Neill")
    spec = gallery.encoder
    assert ana == Identity(
        "Ana O'Neill", vectors, spec.name, spec.fingerprint, spec.metric, [0.5, 1, 0], provenance, CONSENT
    )
    info = gallery.people()[0]
    assert (info.name, info.templates, info.purposes) == ("Ana O'Neill", 3, ("generate", "recognize"))
    assert info.enrolled.endswith("+00:00") and len(gallery) == 3 and "Ana O'Neill" in gallery


def test_names_are_compared_composed(gallery, people):
    gallery.enroll("Jose\u0301", people["Person 00"])
    assert gallery.names() == ["Jos\u00e9"] and "Jose\u0301" in gallery


@pytest.mark.parametrize("name", ["", "  ", UNKNOWN, "a\nb", "\ud800", None])
def test_names_that_are_none(gallery, people, name):
    with refused("bad-name"):
        gallery.enroll(name, people["Person 00"])


def test_known_and_unknown(full, people):
    queries = np.concatenate([people["Person 03"][:1] + 0.01, people["Person 03"][:1] + 1])
    known, unknown = full.search(queries, k=3)
    assert known.known and known.name == "Person 03" and len(known.matches) == 3
    distance = float(np.linalg.norm(people["Person 03"] - queries[0], axis=1).min())
    assert known.nearest.distance == pytest.approx(distance, abs=1e-5)
    assert known.nearest.similarity == pytest.approx(1 / (1 + distance), abs=1e-5)
    assert not unknown.known and unknown.name == UNKNOWN and unknown.nearest.name == "Person 03"
    assert not any(match.known for match in unknown.matches) and unknown.threshold == 0.5
    assert [match.distance for match in known.matches] == sorted(match.distance for match in known.matches)


def test_an_empty_gallery_knows_nobody(gallery):
    answer = gallery.search(np.ones(16))[0]
    assert answer.name == UNKNOWN and answer.nearest is None and answer.matches == ()
    assert gallery.search(np.empty((0, 16))) == [] and gallery.people() == [] and len(gallery) == 0


def test_a_person_with_many_templates_leaves_room_for_others(gallery, people):
    gallery.enroll("Many", people["Person 00"][0] + np.random.default_rng(0).normal(scale=1e-3, size=(200, 16)))
    gallery.enroll("One", people["Person 01"][0])
    assert [match.name for match in gallery.search(people["Person 00"][0], k=5)[0].matches] == ["Many", "One"]


def test_groupings_are_the_distances_they_say(full, people):
    query = people["Person 05"][0] + 0.02
    far = np.linalg.norm(np.concatenate([people["Person 05"], people["Person 05"][:1] + 1]) - query, axis=1)
    full.enroll("Person 05", people["Person 05"][:1] + 1, add=True)
    for grouping, wanted in (("best", far.min()), ("mean", far.mean()), ("top3", np.sort(far)[:3].mean())):
        match = full.search(query, grouping=grouping, k=2)[0].matches[0]
        assert match.name == "Person 05" and match.distance == pytest.approx(wanted, abs=1e-4)


def test_filters_on_camera_date_and_tags(gallery, people):
    gallery.enroll(
        "Ana",
        people["Person 00"],
        provenance=[
            {"camera": "door", "date": "2026-01-01T10:00:00+00:00", "tags": ["hat"]},
            {"camera": "hall", "date": "2026-02-01"},
            {},
        ],
    )
    gallery.enroll("Ben", people["Person 01"][:1], provenance=[{"camera": "hall"}])
    query = people["Person 00"][0]

    def names(where):
        return [match.name for match in gallery.search(query, where=where)[0].matches]

    assert names("camera = 'hall'") == ["Ana", "Ben"] and names("camera = 'door'") == ["Ana"]
    assert names("date < timestamp '2026-01-15 00:00:00+00:00'") == ["Ana"]
    assert names("array_has(tags, 'hat')") == ["Ana"]
    assert gallery.search(query, where="camera = 'hall'")[0].nearest.provenance["camera"] == "hall"
    assert names("camera = 'roof'") == []
    with refused("bad-filter"):
        names("colour = 'red'")


@pytest.mark.parametrize("entry", [{"date": "yesterday"}, {"camera": 3}, {"tags": "hat"}])
def test_provenance_that_cannot_be_filtered_by(gallery, people, entry):
    with pytest.raises(ValueError):
        gallery.enroll("Ana", people["Person 00"][:1], provenance=[entry])
    assert len(gallery) == 0


def test_clashes_are_refused_or_joined(full, people):
    with refused("name-clash"):
        full.enroll("Person 01", people["Person 01"])
    full.enroll("Person 01", people["Person 01"] + 0.1, add=True)
    assert len(full.person("Person 01")) == 6 and len(full.people()) == 12
    spec = full.encoder
    twins = [Identity("Twin", people["Person 00"], spec.name, spec.fingerprint, spec.metric)] * 2
    with refused("name-clash"):
        full.enroll_many(twins)
    assert full.enroll_many(twins, add=True) == 6 and len(full.person("Twin")) == 6


def test_many_at_once_are_one_step(gallery):
    spec = gallery.encoder
    vectors = np.random.default_rng(0).normal(size=(3000, 2, 16))
    everybody = [Identity(f"P{i}", v, spec.name, spec.fingerprint, spec.metric) for i, v in enumerate(vectors)]
    assert gallery.enroll_many(everybody) == 6000 == len(gallery)
    assert len(list(gallery.path.glob("gen-*/*.lance/data/*"))) == 1
    assert [answer.nearest.name for answer in gallery.search(vectors[[5, 2999], 1], k=1)] == ["P5", "P2999"]
    with refused("name-clash"):
        gallery.enroll_many(everybody[:300])
    assert gallery.enroll_many([]) == 0


def test_small_writes_are_merged(gallery):
    for i in range(110):
        gallery.enroll(f"P{i}", np.full(16, i))
    assert len(gallery) == 110 and len(gallery.people()) == 110
    gallery.optimize()
    assert gallery.search(np.full(16, 50.0), k=1)[0].nearest.name == "P50"


def test_unknown_people_are_named_with_the_nearest_name(full):
    with refused("unknown-person") as caught:
        full.person("Person 1")
    assert "Did you mean 'Person 1" in str(caught.value)
    for use in (full.forget, full.crops, full.fuse, lambda name: full.require(name, "recognize")):
        with refused("unknown-person"):
            use("Nobody at all")


def test_vectors_that_do_not_fit(full):
    for bad in (np.ones(15), np.full(16, np.nan), np.ones((1, 2, 16))):
        with pytest.raises(ValueError):
            full.search(bad)
        with pytest.raises(ValueError):
            full.enroll("New", bad)
    with pytest.raises(ValueError, match="at least one"):
        full.search(np.ones(16), k=0)
    assert "New" not in full


def test_another_encoder_is_refused_with_the_way_out(full, people):
    other = EncoderSpec("toy", "e" * 64, "l2", 16)
    stranger = Identity("New", people["Person 00"], other.name, other.fingerprint, "l2")
    for use in (lambda: Gallery.open(full.path, other), lambda: full.enroll("New", stranger)):
        with pytest.raises(FingerprintMismatch, match="migrate"):
            use()
    assert Gallery.open(full.path, full.encoder).encoder == full.encoder


def test_directions_are_compared_by_cosine(tmp_path):
    gallery = Gallery.create(tmp_path / "g", EncoderSpec("arc", "a" * 64, "cosine", 8))
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 8))
    gallery.enroll("A", 5 * a)
    gallery.enroll("B", b)
    cosine = a @ (a + b) / np.linalg.norm(a) / np.linalg.norm(a + b)
    match = next(m for m in gallery.search(3 * (a + b))[0].matches if m.name == "A")
    assert match.similarity == pytest.approx(cosine, abs=1e-5) and match.distance == pytest.approx(1 - cosine, abs=1e-5)
    assert np.linalg.norm(gallery.person("A").templates) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="zeros"):
        gallery.search(np.zeros(8))


def test_without_any_threshold_nobody_is_known(tmp_path):
    gallery = Gallery.create(tmp_path / "g", EncoderSpec("new", "a" * 64, "l2", 4))
    gallery.enroll("A", np.ones(4))
    with pytest.warns(UncalibratedWarning, match="everybody is unknown"):
        answer = gallery.search(np.ones(4))[0]
    assert not answer.known and answer.threshold is None and answer.nearest.distance == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gallery.search(np.ones(4), threshold=0.1)[0].known


def test_consent_is_honored(gallery, people):
    gallery.enroll("Ana", people["Person 00"], consent=CONSENT)
    gallery.enroll("Ben", people["Person 01"])
    gallery.require("Ana", "generate")
    gallery.require("Ben", "recognize")
    with pytest.raises(ConsentError, match="Ben may not be used to generate"):
        gallery.require("Ben", "generate")
    gallery.enroll("Ana", people["Person 00"], consent={"purposes": {"recognize": True}}, add=True)
    with pytest.raises(ConsentError):
        gallery.require("Ana", "generate")
    gallery.set_consent("Ana", {"purposes": {"recognize": False, "generate": True}})
    gallery.require("Ana", "generate")
    assert [match.name for match in gallery.search(people["Person 00"][0])[0].matches] == ["Ben"]
    assert {info.name: info.purposes for info in gallery.people()} == {"Ana": ("generate",), "Ben": ("recognize",)}
    with pytest.raises(ValueError, match="purposes"):
        gallery.set_consent("Ana", {"purposes": "all"})


def test_crops_are_kept_beside_the_templates(gallery, people):
    crop = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    gallery.enroll("Ana", people["Person 00"], crops=[crop, b"any file", None])
    first, second, third = gallery.crops("Ana")
    assert first.startswith(b"\x89PNG") and second == b"any file" and third is None
    with pytest.raises(ValueError, match="1 crops"):
        gallery.enroll("Ben", people["Person 01"], crops=[crop])


def test_fused_templates_leave_out_a_stranger(full, people):
    full.enroll("Person 02", people["Person 09"][:1], add=True)
    fused = full.fuse("Person 02")
    assert fused.kept == (0, 1, 2) and set(fused.rejected) == {3}
    np.testing.assert_allclose(fused.vector, people["Person 02"].mean(axis=0), atol=1e-5)


def test_galleries_are_made_in_folders_of_their_own(tmp_path, spec, gallery):
    with refused("exists"):
        Gallery.create(gallery.path, spec)
    assert Gallery.create(gallery.path, spec, exist_ok=True).path == gallery.path
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    with refused("exists"):
        Gallery.create(tmp_path / "letters", spec)
    assert [entry.name for entry in (tmp_path / "letters").iterdir() if entry.name != ".lock"] == ["mine.txt"]
    with refused("missing"):
        Gallery.open(tmp_path / "nowhere")
    with refused("missing"):
        Gallery.open(tmp_path / "letters" / "mine.txt")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "ipse.gallery/9"}', '{"format": "ipse.gallery/1"}'])
def test_a_damaged_record_is_a_clear_error(gallery, text):
    (gallery.path / "gallery.json").write_text(text)
    with refused("damaged"):
        Gallery.open(gallery.path)


def test_damaged_data_are_a_clear_error(full):
    for file in full.path.glob("gen-*/*.lance/data/*"):
        file.write_bytes(file.read_bytes()[:50])
    with refused("damaged"):
        Gallery.open(full.path).search(np.ones(16))


def test_opening_reads_the_record_only(full):
    for file in full.path.glob("gen-*/*.lance/**/*"):
        if file.is_file():
            file.unlink()
    assert Gallery.open(full.path).encoder.name == "toy"


def test_the_record_names_nobody(full):
    full.calibrate(0.1)
    record = json.loads((full.path / "gallery.json").read_text())
    assert "Person" not in json.dumps(record)
