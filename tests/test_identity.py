import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from ipse import Identity
from ipse.errors import ConsentError, DataError, FingerprintMismatch

PRINT = "5e" * 32
ALLOWED = {"purposes": {"recognize": True, "generate": False}, "date": "2026-01-31", "source": "form 12"}


def person(templates=((1.0, 0.0), (0.0, 1.0)), name="Ada", **parts):
    return Identity(name, templates, "judge", parts.pop("fingerprint", PRINT), **parts)


def test_templates_are_copied_and_cannot_be_changed():
    given_templates = np.ones((2, 3), np.float64)
    identity = person(given_templates)
    given_templates[:] = 5
    assert identity.templates.dtype == np.float32 and (identity.templates == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        identity.templates[0, 0] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        identity.name = "Eve"
    assert len(identity) == 2 and identity.dim == 3
    assert identity.quality.tolist() == [1, 1] and identity.provenance == ({}, {})
    assert len(person([1.0, 2.0])) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"name": "  "}, "needs a name"),
        ({"fingerprint": ""}, "needs a fingerprint"),
        ({"metric": "dot"}, "'cosine' or 'l2'"),
        ({"templates": np.zeros((0, 4))}, r"shape \(N, D\)"),
        ({"templates": np.ones((2, 2, 2))}, r"shape \(N, D\)"),
        ({"templates": [[1, np.nan]]}, "not finite"),
        ({"templates": [[0, 0]]}, "no direction"),
        ({"quality": [1]}, "one value for each"),
        ({"quality": [1, 1.5]}, "from 0 to 1"),
        ({"quality": [1, np.nan]}, "from 0 to 1"),
        ({"provenance": [{}]}, "one for each"),
        ({"provenance": [{}, {"image": np.ones(2)}]}, "JSON"),
        ({"provenance": ["a", "b"]}, "dictionary"),
        ({"consent": {"purposes": {"recognize": "yes"}}}, "True or False"),
        ({"consent": [1]}, "dictionary"),
    ],
)
def test_parts_that_make_no_sense_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        person(**parts)


def test_a_zero_template_is_a_point_under_l2():
    assert person([[0.0, 0.0]], metric="l2").centroid().tolist() == [0, 0]


def test_centroid():
    np.testing.assert_allclose(person([[2.0, 0], [0, 0.1]]).centroid(), [0.5**0.5, 0.5**0.5], atol=1e-6)
    np.testing.assert_allclose(person([[2.0, 0], [0, 4.0]], metric="l2").centroid(), [1, 2])
    weighted = person([[2.0, 0], [0, 4.0]], metric="l2", quality=[0.75, 0.25])
    np.testing.assert_allclose(weighted.centroid(by_quality=True), [1.5, 1])
    np.testing.assert_allclose(weighted.centroid(), [1, 2])
    worthless = person([[2.0, 0], [0, 4.0]], metric="l2", quality=[0, 0])
    np.testing.assert_allclose(worthless.centroid(by_quality=True), [1, 2])
    with pytest.raises(ValueError, match="opposite"):
        person([[1.0, 0], [-1.0, 0]]).centroid()


@given(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(0.0625, 1, width=32)), st.sampled_from(["cosine", "l2"]))
def test_distances_are_distances(arrays, metric):
    one, two = (person(rows, metric=metric) for rows in arrays)
    assert one.distance(two) == pytest.approx(two.distance(one)) and one.distance(two) >= 0
    assert one.distance(one) == pytest.approx(0, abs=1e-6)
    assert one.similarity(one) == pytest.approx(1, abs=1e-6) and one.similarity(two) <= 1 + 1e-6


def test_known_distances():
    assert person([[3.0, 0]]).distance(person([[0, 2.0]])) == pytest.approx(1)
    assert person([[3.0, 0]]).similarity(person([[-1.0, 0]])) == pytest.approx(-1)
    points = person([[0.0, 0]], metric="l2"), person([[3.0, 4.0]], metric="l2")
    assert points[0].distance(points[1]) == pytest.approx(5)
    assert points[0].similarity(points[1]) == pytest.approx(1 / 6)


def test_encoders_are_never_mixed():
    other = person(fingerprint="0b" * 32)
    for call in (person().distance, person().similarity, person().merge):
        with pytest.raises(FingerprintMismatch, match="0b0b0b0b0b0b"):
            call(other)


def test_add_makes_a_new_identity():
    identity = person(provenance=[{"source": "a.jpg"}, {"source": "b.jpg"}], consent=ALLOWED)
    more = identity.add([[1.0, 1.0]], quality=[0.5], provenance=[{"source": "c.jpg", "box": [1, 2, 3, 4]}])
    assert len(identity) == 2 and len(more) == 3
    assert more.quality.tolist() == [1, 1, 0.5] and more.provenance[2]["box"] == [1, 2, 3, 4]
    assert more.name == "Ada" and more.consent == ALLOWED
    assert identity.add([2.0, 0.5]).provenance[-1] == {}
    with pytest.raises(ValueError, match="length 3"):
        identity.add([[1.0, 1.0, 1.0]])


def test_merge_allows_only_what_both_allow():
    other = person([[1.0, 1.0]], "Ada L.", consent={"purposes": {"generate": True, "recognize": True}, "source": "web"})
    merged = person(consent=ALLOWED).merge(other)
    assert merged.name == "Ada" and len(merged) == 3
    assert merged.permits("recognize") and not merged.permits("generate")
    assert merged.consent["source"] == "form 12" and merged.consent["merged"] == other.consent
    assert not person(consent=ALLOWED).merge(person()).permits("recognize")


def test_consent_is_asked_for_by_purpose():
    identity = person(consent=ALLOWED)
    identity.require("recognize")
    with pytest.raises(ConsentError, match="refuses it"):
        identity.require("generate")
    with pytest.raises(ConsentError, match="does not mention it"):
        person().require("recognize")


def test_equality_is_by_value():
    assert person(consent=ALLOWED) == person(consent=ALLOWED)
    assert person() != person(name="Eve") and person() != person(quality=[1, 0.5]) and person() != "Ada"
    assert person() != person([[1.0, 0.0]])
    with pytest.raises(TypeError, match="unhashable"):
        hash(person())
    assert pickle.loads(pickle.dumps(person(consent=ALLOWED))) == person(consent=ALLOWED)
    assert repr(person()) == "Identity('Ada', 2 templates of judge 5e5e5e5e5e5e)"


def test_saving_and_loading_changes_nothing(tmp_path):
    identity = person(
        np.random.default_rng(0).normal(size=(5, 128)),
        name="Zoë 人",
        metric="l2",
        quality=np.linspace(0, 1, 5),
        provenance=[{"source": f"{i}.jpg", "box": (0, i, 9, 9)} for i in range(5)],
        consent=ALLOWED,
    )
    path = identity.save(tmp_path / "new" / "zoe.safetensors")
    assert Identity.load(path) == identity
    person().save(path)
    assert Identity.load(path) == person()
    assert [p.name for p in path.parent.iterdir()] == ["zoe.safetensors"]


def test_damaged_files_are_refused(tmp_path):
    path = person(consent=ALLOWED).save(tmp_path / "a.safetensors")
    data = path.read_bytes()
    broken = tmp_path / "broken.safetensors"
    for size in (0, 4, 50, len(data) - 1):
        broken.write_bytes(data[:size])
        with pytest.raises(DataError, match="damaged"):
            Identity.load(broken)
    save_file({"templates": np.ones((1, 2), np.float32)}, broken)
    with pytest.raises(DataError, match="not an identity"):
        Identity.load(broken)
    arrays = {"templates": np.full((1, 2), np.nan, np.float32), "quality": np.ones(1, np.float32)}
    record = {"name": "a", "encoder": "b", "fingerprint": "c", "metric": "l2", "provenance": [], "consent": {}}
    for text in (json.dumps(record), json.dumps(record | {"surprise": 1}), "[]", "{"):
        save_file(arrays, broken, {"format": "ipse.identity/1", "identity": text})
        with pytest.raises(DataError, match="damaged"):
            Identity.load(broken)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="Cannot read"):
            Identity.load(missing)
    with pytest.raises(DataError, match="Cannot write"):
        person().save(path / "below")
