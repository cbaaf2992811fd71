import dlib
import numpy as np
import pytest

from ipse.errors import ImageError
from ipse.faces import TEMPLATES, Face, align, fit_similarity
from ipse.faces.align import cut_chips


def face_at(points, scheme="dlib5"):
    return Face((0, 0, 1, 1), 1.0, np.asarray(points, np.float32), scheme)


def placed(template, scale, turn, shift):
    """The template's own points, as a face of that scale, turn (radians) and place would show them."""
    z = np.exp(1j * turn) * scale * (template[:, 0] + 1j * template[:, 1]) + complex(*shift)
    return np.stack([z.real, z.imag], -1)


def smooth_image(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / a + y / b + c) for a, b, c in rng.uniform(9, 40, (6, 3))]
    return (127 + 60 * np.stack([waves[0] + waves[1], waves[2] + waves[3], waves[4] + waves[5]], -1)).astype(np.uint8)


def test_fit_similarity_recovers_transforms_in_a_batch():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 5, 2)) * 30
    angle, scale, shift = rng.uniform(-3, 3, 20), rng.uniform(0.1, 8, 20), rng.normal(size=(20, 2)) * 100
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    truth = np.stack([np.stack([cos, -sin, shift[:, 0]], -1), np.stack([sin, cos, shift[:, 1]], -1)], 1)
    target = np.einsum("nij,npj->npi", truth[..., :2], points) + shift[:, None]
    assert fit_similarity(points, target) == pytest.approx(truth, abs=1e-8)


def test_fit_similarity_is_the_least_squares_one_and_never_mirrors():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(2, 5, 2))
    best = fit_similarity(source, target)

    def error(matrix):
        return ((source @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum()

    for change in np.eye(4) * 1e-3:
        a, b, x, y = change
        near = best + np.array([[a, -b, x], [b, a, y]])
        assert error(near) > error(best)
    mirrored = fit_similarity(source, source * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) >= 0


def test_fit_similarity_of_one_repeated_point():
    target = np.random.default_rng(2).normal(size=(5, 2))
    matrix = fit_similarity(np.full((5, 2), 7.0), target)
    assert matrix @ [7, 7, 1] == pytest.approx(target.mean(0))


@pytest.mark.parametrize(("scale", "turn", "tolerance"), [(0.5, 0.1, 3), (1.0, 0, 3), (1.6, -0.3, 3), (2.6, 0.2, 3)])
def test_dlib_cuts_the_same_chips(scale, turn, tolerance):
    """Beyond twice the chip's size dlib shrinks the image by another filter, so chips are alike rather than equal."""
    image = smooth_image(700, 800)
    points = np.rint(placed(TEMPLATES["dlib150"].points["dlib5"], scale, turn, (200, 150)))
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 100, 100), [dlib.point(int(x), int(y)) for x, y in points])
    expected = dlib.get_face_chip(image, shape, size=150, padding=0.25).astype(float)
    found = align(image, [face_at(points)], "dlib150")[0]
    inside = (found.min(-1) > 0) & (expected.min(-1) > 0)
    assert inside.mean() > 0.9
    assert np.abs(found - expected)[inside].mean() < tolerance


def test_a_chip_does_not_depend_on_its_neighbors():
    image = smooth_image(500, 600)
    template = TEMPLATES["dlib150"].points["dlib5"]
    faces = [face_at(placed(template, s, t, (60, 90))) for s, t in ((0.4, 0), (1, 0.5), (2.2, 0.1), (1.3, -2))]
    together = align(image, faces)
    assert together.shape == (4, 150, 150, 3) and together.dtype == np.uint8
    for chip, face in zip(together, faces, strict=True):
        assert np.array_equal(chip, align(image, [face])[0])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("scheme", ["dlib5", "arcface5"])
@pytest.mark.parametrize("scale", [0.7, 3.3])
def test_landmarks_arrive_where_the_template_wants_them(name, scheme, scale):
    template = TEMPLATES[name]
    points = placed(template.points[scheme], scale, 0.4, (260, 120))
    y, x = np.mgrid[:900, :900]
    for point, target in zip(points, template.points[scheme], strict=True):
        spot = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (3 * scale) ** 2))
        image = (255 * spot).astype(np.uint8)[..., None].repeat(3, 2)
        chip = align(image, [face_at(points, scheme)], name)[0, ..., 0].astype(float)
        rows, columns = np.indices(chip.shape)
        center = np.array([(columns * chip).sum(), (rows * chip).sum()]) / chip.sum()
        assert center + template.origin == pytest.approx(target, abs=0.25)


def test_both_schemes_cut_the_same_chip_of_an_average_face():
    image = smooth_image(400, 400)
    template = TEMPLATES["arcface112"]
    chips = [
        align(image, [face_at(placed(template.points[scheme], 1.5, 0.2, (100, 80)), scheme)], template)[0].astype(float)
        for scheme in ("dlib5", "arcface5")
    ]
    assert np.abs(chips[0] - chips[1]).max() <= 1


def test_what_lies_outside_the_image_is_black():
    image = np.full((100, 100, 3), 200, np.uint8)
    points = placed(TEMPLATES["dlib150"].points["dlib5"], 1, 0, (0, 0)) - [75, 0]
    chip = align(image, [face_at(points)])[0]
    assert (chip[:95, 80:] == 200).all() or (chip[:95, 80:170] == 200).mean() > 0.99
    assert (chip[:, :70] == 0).all() and (chip[105:] == 0).all()


def test_no_faces_give_no_chips():
    assert align(smooth_image(10, 10), []).shape == (0, 150, 150, 3)
    assert align(smooth_image(10, 10), [], "arcface112").shape == (0, 112, 112, 3)


@pytest.mark.parametrize("image", [np.zeros((5, 5)), np.zeros((5, 5, 3)), np.zeros((5, 5, 4), np.uint8), "face.jpg"])
def test_what_is_not_an_image_is_refused(image):
    with pytest.raises(ImageError, match="uint8 RGB array") as caught:
        align(image, [])
    assert caught.value.reason == "bad-array"


def test_edges_are_repeated_on_request():
    image = smooth_image(40, 50)
    shifted = np.array([[[1.0, 0, -10], [0, 1, 25]]])
    black, repeated = cut_chips(image, shifted, 30)[0], cut_chips(image, shifted, 30, repeat_edges=True)[0]
    assert np.array_equal(black[:15, 10:], image[25:, :20]) and not black[:, :10].any() and not black[15:].any()
    padded = np.pad(image, ((0, 20), (10, 0), (0, 0)), mode="edge")
    assert np.array_equal(repeated, padded[25:55, :30])
