import pickle

import numpy as np
import pytest

from ipse import images
from ipse.encoders import DlibFaceEncoder
from ipse.errors import ImageError
from ipse.faces import Detector, HogDetector, align

PEOPLE = (0, 1, 4, 5)


@pytest.fixture(scope="module")
def detector():
    return HogDetector()


def eyes(face):
    return np.array([face.landmarks[2:4].mean(0), face.landmarks[:2].mean(0)])


def is_at(face, truth):
    """Whether both eyes of a face are within a quarter of their distance from where they should be."""
    truth = np.asarray(truth)[:2]
    return (np.linalg.norm(eyes(face) - truth, axis=1) < np.linalg.norm(truth[1] - truth[0]) / 4).all()


def blown_up(picture, factor):
    side = round(picture.image.shape[0] * factor)
    return images.resize(picture.image, side, side), (picture.truth.five + 0.5) * factor - 0.5


@pytest.mark.parametrize("number", PEOPLE)
def test_finds_people_where_they_are(detector, portrait, number):
    picture = portrait(number)
    (face,) = detector.detect(picture.image)
    assert is_at(face, picture.truth.five)
    x0, y0, x1, y1 = face.box
    assert 0 <= x0 < x1 <= 191 and 0 <= y0 < y1 <= 191
    assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float32 and face.scheme == "dlib5"


def test_finds_everyone_in_a_group_surest_first(detector, portrait):
    pictures = [portrait(number) for number in PEOPLE]
    group = np.concatenate([picture.image for picture in pictures], 1)
    faces = detector.detect(group)
    assert len(faces) == len(PEOPLE)
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    for index, picture in enumerate(pictures):
        assert sum(is_at(face, picture.truth.five + [192 * index, 0]) for face in faces) == 1


def test_large_pictures_are_searched_at_a_bounded_size(detector, portrait):
    image, five = blown_up(portrait(1), 20)
    (face,) = detector.detect(image)
    assert is_at(face, five)


def test_small_faces_are_found_in_a_finer_search(portrait):
    image = np.full((900, 900, 3), 128, np.uint8)
    picture = portrait(1)
    image[600:792, 500:692] = picture.image
    assert HogDetector(small_faces="never").detect(image) == []
    for choice in ("auto", "always"):
        (face,) = HogDetector(small_faces=choice).detect(image)
        assert is_at(face, picture.truth.five + [500, 600])


def test_a_large_face_does_not_hide_small_ones(portrait):
    near, five = blown_up(portrait(5), 4)
    far = portrait(1)
    near[:192, :192] = far.image
    found = HogDetector(small_faces="always").detect(near)
    assert sum(is_at(face, five) for face in found) == 1
    assert sum(is_at(face, far.truth.five) for face in found) == 1
    assert len(found) == 2


@pytest.mark.parametrize("number", PEOPLE)
def test_close_crops_are_found_with_a_margin(detector, portrait, number):
    picture = portrait(number, size=512)
    eye_distance = np.linalg.norm(picture.truth.five[1] - picture.truth.five[0])
    x, y = picture.truth.five.mean(0)
    reach = 1.15 * eye_distance
    box = [round(v) for v in (x - reach, y - reach, x + reach, y + reach)]
    crop = images.crop(picture.image, box)
    (face,) = detector.detect(crop)
    assert is_at(face, picture.truth.five - box[:2])
    assert face.box[2] <= crop.shape[1] - 1 and face.box[3] <= crop.shape[0] - 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_pictures_are_found_on_request(portrait, quarters):
    picture = portrait(1)
    wide = np.concatenate([picture.image, np.full((192, 60, 3), 128, np.uint8)], 1)
    turned = np.ascontiguousarray(np.rot90(wide, quarters))
    (upright,) = HogDetector().detect(wide)
    (face,) = HogDetector(turned=True).detect(turned)
    # Aligned, the face looks as in the upright picture: box and landmarks were turned back with it.
    difference = align(turned, [face])[0].astype(float) - align(wide, [upright])[0]
    assert np.abs(difference).mean() < 3
    x0, y0, x1, y1 = face.box
    assert 0 <= x0 < x1 < turned.shape[1] and 0 <= y0 < y1 < turned.shape[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 2), (80, 80), (300, 200)])
def test_images_without_faces_give_none(detector, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for image in (np.zeros((*shape, 3), np.uint8), np.full((*shape, 3), 255, np.uint8), noise):
        assert detector.detect(image) == []
        assert HogDetector(turned=True, small_faces="always").detect(image) == []


def test_what_is_not_an_image_is_refused(detector):
    for image in (np.zeros((9, 9)), np.zeros((0, 9, 3), np.uint8), None):
        with pytest.raises(ImageError):
            detector.detect(image)


def test_images_are_left_as_they_are(detector, portrait):
    image = portrait(0).image.copy()
    image.flags.writeable = False
    detector.detect(image)
    detector.detect(image[:, ::-1])
    assert np.array_equal(image, portrait(0).image)


def test_is_a_detector_and_crosses_process_borders(detector, portrait):
    assert isinstance(detector, Detector)
    image = portrait(1).image
    (here,), (there,) = detector.detect(image), pickle.loads(pickle.dumps(detector)).detect(image)
    assert here.box == there.box and np.array_equal(here.landmarks, there.landmarks)


def test_faces_found_tell_people_apart(detector, portrait):
    """The whole way from pictures to embeddings: everyone is nearest to their own other picture."""
    encoder = DlibFaceEncoder(threads=1)
    vectors = []
    for yaw in (0, 12):
        chips = [align(image, detector.detect(image)[:1]) for image in (portrait(n, yaw).image for n in PEOPLE)]
        vectors.append(encoder.encode(np.concatenate(chips)))
    distances = np.linalg.norm(vectors[0][:, None] - vectors[1], axis=2)
    assert (distances.argmin(1) == np.arange(len(PEOPLE))).all()
