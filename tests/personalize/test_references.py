"""Photographs: the person in them is found, and what is wrong with them is said."""

import warnings

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("torch")

from ipse.errors import IpseError
from ipse.images import resize
from ipse.personalize.references import FaceReader, ReferenceWarning

NAMES = ("vector", "length", "five", "pooled", "patches")


@pytest.fixture(scope="module")
def reader(base):
    return FaceReader(base)


def test_features_of_a_person(reader, photographs):
    seen = reader.person(photographs[1][:1], NAMES)
    assert {name: tuple(value.shape) for name, value in seen.items()} == {
        "vector": (1, 256),
        "length": (1,),
        "five": (1, 5, 2),
        "pooled": (1, 16),
        "patches": (1, 17, 32),
    }
    assert float(seen["vector"].norm()) == pytest.approx(1)
    five = seen["five"][0].numpy()
    # Eyes above the nose above the mouth, left before right, within the picture.
    assert five[:2, 1].max() < five[2, 1] < five[3:, 1].min() and five[0, 0] < five[1, 0] and five[3, 0] < five[4, 0]
    assert 0.3 < five.mean() < 0.7
    nobody = reader.nobody(NAMES)
    assert all(nobody[name].shape == seen[name].shape for name in NAMES) and not nobody["vector"].any()


def test_several_photographs_are_one_person(reader, photographs):
    one, both = (reader.person(photographs[1][:count], NAMES) for count in (1, 2))
    assert both["patches"].shape == (1, 34, 32) and float(both["vector"].norm()) == pytest.approx(1)
    assert 0.3 < float((one["vector"] * both["vector"]).sum()) < 1


def test_people_are_told_apart(reader, photographs):
    clear = {n: shown for n, shown in photographs.items() if all(len(reader.find(one)) == 1 for one in shown)}
    vectors = {n: reader.person(shown[:1], ["vector"])["vector"][0] for n, shown in clear.items()}
    again = {n: reader.person(shown[1:], ["vector"])["vector"][0] for n, shown in clear.items()}
    assert len(clear) >= 4
    right = [max(vectors, key=lambda n: float(vectors[n] @ vector)) == who for who, vector in again.items()]
    assert np.mean(right) >= 0.75


def test_what_cannot_be_used(reader, photographs):
    plain = np.full((128, 128, 3), 120, np.uint8)
    with pytest.raises(IpseError, match=r"No face was found in the photograph .128×128 pixels"):
        reader.person([plain], ["vector"])
    with pytest.raises(IpseError, match="There are 2 faces in the photograph"):
        reader.person([np.concatenate([photographs[1][0], photographs[3][0]], 1)], ["vector"])
    with pytest.raises(IpseError, match=r"different people: unlike the others is photograph [12] of 2"):
        reader.person([photographs[1][0], photographs[4][0]], ["vector"])
    with pytest.raises(IpseError, match="no photograph"):
        reader.person([], ["vector"])


def test_what_is_doubtful_is_said(reader, photographs):
    plain = np.full((128, 128, 3), 120, np.uint8)
    with pytest.warns(ReferenceWarning, match=r"No face was found in photograph 2 of 2.*left out"):
        reader.person([photographs[1][0], plain], ["vector"])
    with pytest.warns(ReferenceWarning, match=r"Photograph 3 of 3 is not like the others"):
        reader.person([*photographs[1], photographs[4][0]], ["vector"])
    blurred = resize(resize(photographs[1][0], 24, 24), 128, 128)
    with pytest.warns(ReferenceWarning, match="The photograph: The face is blurred"):
        reader.person([blurred], ["vector"])


def test_an_encoder_without_a_threshold_says_that_it_did_not_compare(base, photographs):
    reader = FaceReader(base)
    reader.encoder.threshold = None
    with pytest.warns(ReferenceWarning, match=r"face-world: whether these show one person was not checked"):
        reader.person([photographs[1][0], photographs[4][0]], ["vector"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        reader.person(photographs[1][:1], ["vector"])
    assert not any("not checked" in str(one.message) for one in said), "one photograph is of one person"


def test_places_of_a_face_and_the_face_in_a_picture(reader, photographs):
    names = ("local", "face", "portrait")
    picture = photographs[1][0]
    (found,) = reader.find(picture)
    told = reader.features([picture], [found.face], names)
    assert {name: value.shape for name, value in told.items()} == {
        "local": (1, 16, 128),
        "face": (1, 16, 16),
        "portrait": (1, 1, 3, 128, 128),
    }
    # Each eye, the nose and the corners of the mouth are in the face; the corners of the picture are not.
    face = told["face"][0]
    places = np.floor((found.face.landmarks + 0.5) / 128 * 16).astype(int)
    assert all(face[y, x] > 0.3 for x, y in places) and not face[0].any() and 0.05 < face.mean() < 0.6
    assert np.ptp(told["local"][0], axis=0).max() > 0 and -1 <= told["portrait"].min() < told["portrait"].max() <= 1
    both = reader.person(photographs[1], ("local", "portrait"))
    assert both["local"].shape == (1, 32, 128) and both["portrait"].shape == (1, 2, 3, 128, 128)
    nobody = reader.nobody(("local", "portrait"))
    assert not any(value.any() for value in nobody.values()) and nobody["local"].shape == (1, 16, 128)
