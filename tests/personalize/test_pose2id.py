"""Pose2ID's generator: it is told who and how somebody stands, on pictures that are no squares, and moves features."""

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.base import load_base  # noqa: E402
from ipse.diffusion.training.data import keypoints_of, pack  # noqa: E402
from ipse.errors import DataError, IpseError  # noqa: E402
from ipse.gallery.centralize import centralize_by_generation, generated_features  # noqa: E402
from ipse.personalize import open_method  # noqa: E402
from ipse.personalize.bodies import BodyReader, standard_poses  # noqa: E402
from ipse.personalize.training import Pairs, train_adapter  # noqa: E402
from ipse.world.dataset import read_dataset, write_dataset  # noqa: E402
from ipse.world.recipe import Recipe  # noqa: E402

BODIES = {
    "framing": "person",
    "size": [32, 64],
    "people": {"count": 4, "start": 1},
    "looks": {"count": 2},
    "shots": {"count": 2, "fix": {"occluder": None}},
    "truth": ["parts"],
    "captions": 3,
}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """A folder of pictures with captions: four people on two days, two pictures a day."""
    folder = tmp_path_factory.mktemp("bodies") / "data"
    write_dataset(Recipe.from_dict(BODIES), folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def pictures(bodies):
    return [record.pixels() for record in read_dataset(bodies).records()][:4]


@pytest.fixture(scope="module")
def body_base(body_folder):
    return load_base(body_folder, device="cpu")


@pytest.fixture(scope="module")
def method(body_base, bodies, cache, recipe_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("pose2id")
    train_adapter(recipe_of("pose2id", steps=2), body_base, [bodies], out, cache=cache)
    assert list((out / "sheets").glob("*.png"))
    return open_method("pose2id", body_base, adapter=out / "pose2id.safetensors", steps=2)


def test_the_standard_poses_go_around():
    poses = standard_poses()
    assert poses.shape == (8, 17, 3) and (poses[..., :2] > 0).all() and (poses[..., :2] < 1).all()
    nose, left, right = poses[:, 0], poses[:, 5], poses[:, 6]
    # The left shoulder is on the picture's right in front, on its left from behind; then the nose is hidden.
    assert left[0, 0] > right[0, 0] and left[4, 0] < right[4, 0]
    assert nose[0, 2] == 1 and nose[4, 2] == 0
    aside = nose[[2, 6], 0] - (left + right)[[2, 6], 0] / 2
    assert aside[0] * aside[1] < 0 and np.abs(aside).min() > 0.02


def test_keypoints_are_shares_of_the_picture(bodies, cache, tmp_path):
    corpus = pack([bodies], cache, (32, 16))
    points, records = keypoints_of([bodies], corpus), list(read_dataset(bodies).records(truth=True))
    own = [record for record in records if record.person in corpus.person]
    assert points.shape == (len(corpus), 17, 3)
    for found, record in zip(points, own, strict=True):
        np.testing.assert_allclose(found[:, :2] * (32, 64), record.truth["keypoints"], atol=1e-3)
        np.testing.assert_array_equal(found[:, 2], record.truth["keypoints_visible"])
    with pytest.raises(DataError, match="Pack them again"):
        keypoints_of([bodies, bodies], corpus)


def test_references_wear_the_same():
    person, look = np.repeat([5, 7], 4), np.tile([0, 0, 1, 1], 2)
    rows, draw = np.arange(8), np.random.default_rng(0)
    for one_look in (True, False):
        chosen = Pairs(person, look, one_look)(rows, draw)
        assert (person[chosen] == person).all() and (chosen != rows).all()
        assert ((look[chosen] == look) == one_look).all()
    # Where there is none, another will do.
    assert Pairs(np.array([5, 5]), np.array([0, 1]), one_look=True)(np.arange(2), draw).tolist() == [1, 0]


def test_pose_and_person_both_count(method, pictures):
    ada = method.fit([pictures[0]])
    person = ada.people[0]
    assert person["pose"].shape == (1, 17, 3) and person["local"].shape[2] == 128

    def made(person):
        (one,) = method.fitted([person], [[]]).generate("A picture of {a person}.", 1, 3)
        assert one.image.shape == (32, 16, 3)
        return one.image

    plain = made(person)
    turned = made(person | {"pose": torch.from_numpy(standard_poses()[4:5])})
    other = made(person | {"vector": -person["vector"]})
    places = made(person | {"local": person["local"].flip(1) + 1})
    for changed in (turned, other, places):
        assert not np.array_equal(changed, plain)
    # Of several photographs: one vector, all places.
    both = method.fit([pictures[0], pictures[1]]).people[0]
    assert both["vector"].shape == (1, 256) and both["local"].shape[1] == 2 * person["local"].shape[1]


def test_an_encoder_of_faces_is_refused(body_base, method):
    with pytest.raises(IpseError, match="one of the face"):
        BodyReader(body_base, "face-world")
    with pytest.raises(IpseError, match="no photograph"):
        method.fit([])


def test_features_are_moved_by_what_is_made(method, pictures):
    views = method.views(pictures[0])
    assert len(views) == 8 and all(one.shape == (32, 16, 3) for one in views)
    assert len({one.tobytes() for one in views}) == 8
    for one, again in zip(views, method.views(pictures[0]), strict=True):
        np.testing.assert_array_equal(one, again)

    def encode(some):
        return np.stack([method.reader.vector(one) for one in some])

    features = encode(pictures[:2])
    made = generated_features(pictures[:2], method.views, encode)
    assert made.shape == (2, 8, 256)
    moved = centralize_by_generation(features, made)
    wanted = features + made.mean(1)
    np.testing.assert_allclose(moved, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
