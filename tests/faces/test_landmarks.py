"""Landmarks: where what a network tells of a chip lies in the image; the networks here are made by hand."""

import numpy as np
import pytest

from ipse import images
from ipse.encoders import ChipSpec
from ipse.errors import ImageError, WeightsError
from ipse.faces import Face, HogDetector, LandmarkDetector, LandmarkPredictor, fit_similarity
from ipse.faces.align import chip_maps, cut_chips, face_box_template, portrait_template
from ipse.faces.landmarks import POINTS, five_of
from ipse.faces.parts import LABELS
from ipse.gallery.index import Reader
from ipse.zoo.onnx_graph import OnnxGraph
from ipse.zoo.shipped_files import SHIPPED

SIDE, MARGIN = 64, 0.25
CHIP = ChipSpec(SIDE, SIDE, None, "rgb", (127.5,) * 3, (127.5,) * 3)
CUT = {"kind": "face_box", "margin": MARGIN, "size": [SIDE, SIDE]}
OUTPUTS = {"points": {"kind": "points"}, "visible": {"kind": "logits"}, "parts": {"kind": "map", "cell": 4}}
MEAN_FIVE = face_box_template(SIDE, MARGIN).points["arcface5"]


def mean_face():
    """(70, 2) points in a chip whose square is the landmarks' and whose five points are the mean face's."""
    points = np.full((POINTS, 2), SIDE / 2 - 0.5)
    for rows, place in zip(((*range(36, 42),), (*range(42, 48),), (30,), (48,), (54,)), MEAN_FIVE, strict=True):
        points[list(rows)] = place
    low = MARGIN / (1 + 2 * MARGIN) * SIDE - 0.5
    points[0], points[16] = (low, low), (SIDE - 1 - low, SIDE - 1 - low)
    return points


def always(points, told_parts):
    """A network that tells the same points of every chip, and parts by the chip's red: reddish cells are lips."""
    graph = OnnxGraph("always")
    x = graph.input("pixels", "float32", ("n", 3, SIDE, SIDE))
    none = graph.node("Mul", graph.node("ReduceMean", x, axes=[1, 2, 3], keepdims=0), graph.weight(np.float32([0.0])))
    none = graph.node("Reshape", none, graph.weight(np.int64([-1, 1, 1])))
    shares = ((points + 0.5) / SIDE)[None].astype(np.float32)
    graph.output(graph.node("Add", none, graph.weight(shares), name="points"), "float32", ("n", POINTS, 2))
    flat = graph.node("Reshape", none, graph.weight(np.int64([-1, 1])))
    logits = np.where(np.arange(POINTS) < 17, 9, -9)[None].astype(np.float32)
    graph.output(graph.node("Add", flat, graph.weight(logits), name="visible"), "float32", ("n", POINTS))
    cells = graph.node("AveragePool", x, kernel_shape=[4, 4], strides=[4, 4])
    mix = np.zeros((len(LABELS), 3, 1, 1), np.float32)
    mix[LABELS.index(told_parts), 0] = 1  # above 0, which all others are, where red is above the middle
    parts = graph.node("Conv", cells, graph.weight(mix), name="parts")
    graph.output(parts, "float32", ("n", len(LABELS), SIDE // 4, SIDE // 4))
    return graph


@pytest.fixture(scope="module")
def network(tmp_path_factory, made_up_network):
    folder = tmp_path_factory.mktemp("networks")
    return made_up_network(folder, "always", always(mean_face(), "lips"), "landmarks", CHIP, OUTPUTS, CUT)


def placed(scale, turn, shift):
    """The map of an upright chip into an image."""
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def face_by(to_image):
    five = MEAN_FIVE @ to_image[:, :2].T + to_image[:, 2]
    return Face((0.0, 0.0, 9.0, 9.0), 1.0, five.astype(np.float32), "arcface5")


PLACES = [placed(1.0, 0.0, (40, 30)), placed(2.3, 0.4, (150, 20)), placed(0.6, -1.6, (100, 170))]


@pytest.mark.parametrize("refine", [False, True])
def test_points_go_back_to_where_the_face_is(network, refine):
    image = np.zeros((260, 320, 3), np.uint8)
    faces = [face_by(place) for place in PLACES]
    found = LandmarkPredictor(network, refine=refine, threads=1).predict(image, faces)
    for place, face, one in zip(PLACES, faces, found, strict=True):
        assert one.to_image == pytest.approx(place, abs=1e-3)
        assert one.dense == pytest.approx(mean_face() @ place[:, :2].T + place[:, 2], abs=1e-2)
        assert one.five == pytest.approx(face.landmarks, abs=1e-2)
        assert one.visible == pytest.approx((np.arange(POINTS) < 17).astype(float), abs=1e-3)


def test_a_second_look_corrects_the_first(network, tmp_path, made_up_network):
    """A network that says the face is smaller and further right than the cut: the second cut is where it said."""
    scaled = (mean_face() - SIDE / 2 + 0.5) * 0.8 + SIDE / 2 - 0.5 + [5, 0]
    path = made_up_network(tmp_path, "off", always(scaled, "lips"), "landmarks", CHIP, OUTPUTS, CUT)
    face = face_by(placed(1.5, 0.3, (60, 60)))
    image = np.zeros((240, 240, 3), np.uint8)
    (first,) = LandmarkPredictor(path, refine=False, threads=1).predict(image, [face])
    (second,) = LandmarkPredictor(path, threads=1).predict(image, [face])
    inside = np.linalg.inv(np.vstack([second.to_image, [0, 0, 1]]))[:2]
    again = first.dense @ inside[:, :2].T + inside[:, 2]
    # In the second chip, what the first look found is as training cuts it.
    assert again == pytest.approx(mean_face(), abs=0.05)


def test_parts_lie_in_the_image_where_they_are_seen(network):
    """A red bar across the image is called lips, inside the face's chip and nowhere else."""
    image = np.zeros((200, 220, 3), np.uint8)
    image[80:120, :, 0] = 255
    (one,) = LandmarkPredictor(network, refine=False, threads=1).predict(image, [face_by(placed(2.0, 0.2, (60, 20)))])
    assert one.parts.shape == (SIDE, SIDE) and set(np.unique(one.parts)) == {0, LABELS.index("lips")}
    parts = one.parts_in(200, 220)
    y, x = np.mgrid[:200, :220]
    inverse = np.linalg.inv(np.vstack([one.to_image, [0, 0, 1]]))[:2]
    column, row = np.tensordot(inverse, np.stack([x, y, np.ones_like(x)]), 1)
    inside = (column > 0) & (column < SIDE - 1) & (row > 0) & (row < SIDE - 1)
    assert not parts[(column < -1) | (column > SIDE) | (row < -1) | (row > SIDE)].any()
    # The network's cells are 8 image pixels wide.
    deep, far = (y >= 90) & (y < 110), (y < 70) | (y >= 130)
    assert (parts[inside & deep] == LABELS.index("lips")).all() and not parts[inside & far].any()
    # A face that reaches over the edge is cut there.
    (edge,) = LandmarkPredictor(network, refine=False, threads=1).predict(image, [face_by(placed(2.0, 0.2, (190, 60)))])
    assert edge.parts_in(200, 220)[85:115, 215].all()
    (gone,) = LandmarkPredictor(network, refine=False, threads=1).predict(image, [face_by(placed(1.0, 0, (900, 900)))])
    assert not gone.parts_in(200, 220).any()


def test_chips_are_cut_as_in_training(portrait):
    """The square around the landmarks, with its margin, by the training's own cutting."""
    data = pytest.importorskip("ipse.training.data")
    import io

    from PIL import Image

    picture = portrait(4)
    file = io.BytesIO()
    Image.fromarray(picture.image).save(file, "PNG")
    truth = picture.truth
    row = {"image": file.getvalue(), "dense": truth.dense - 0.5, "face_box": np.array(truth.face_box) - 0.5}
    trained = data._chip(row, data.Cut("face_box", (SIDE, SIDE), MARGIN))
    # Of an upright frontal face, the five true points say where that square is, nearly.
    face = Face((0, 0, 1, 1), 1.0, (truth.five - 0.5).astype(np.float32), "arcface5")
    predictor_map = chip_maps([face], face_box_template(SIDE, MARGIN))
    inverse = np.linalg.inv(np.vstack([predictor_map[0], [0, 0, 1]]))[:2]
    ours = (truth.dense - 0.5) @ inverse[:, :2].T + inverse[:, 2]
    assert np.linalg.norm(ours - trained["columns"]["dense"], axis=1).mean() < 0.08 * SIDE
    # From the map that training has used, the chip is the same to the pixel.
    exact = fit_similarity(trained["columns"]["dense"].astype(np.float64), truth.dense - 0.5)
    (chip,) = cut_chips(picture.image, exact[None], SIDE)
    assert np.abs(chip.astype(int) - trained["image"])[2:-2, 2:-2].max() <= 2


def test_the_templates_are_where_the_detector_sees_faces(portrait):
    """The mean places of the five points, measured anew on a few people."""
    errors = {"face_box": [], "portrait": []}
    for number in (1, 4, 5, 7, 9, 12):
        picture = portrait(number)
        (face,) = HogDetector().detect(picture.image)
        dense = picture.truth.dense - 0.5
        low, high = dense.min(0), dense.max(0)
        for name, template in (("face_box", face_box_template(100, 0.0)), ("portrait", portrait_template(100))):
            (to_image,) = chip_maps([face], template)
            a, middle = to_image[0, 0], to_image @ [49.5, 49.5, 1]
            if name == "face_box":
                errors[name].append([*(middle - (low + high) / 2), 100 * a - (high - low).max()] / (high - low).max())
            else:
                # Half a side of the world's portraits: 1.12 times the larger of twice the distance of the eyes and 1.8
                # times that of eyes and mouth.
                five = five_of(dense)
                down = five[3:].mean(0) - five[:2].mean(0)
                half = 1.12 * max(2 * np.linalg.norm(five[1] - five[0]), 1.8 * np.linalg.norm(down))
                errors[name].append([*(middle - five[:2].mean(0) - 0.12 * down), 100 * a - 2 * half] / (2 * half))
    for name, limit in (("face_box", 0.08), ("portrait", 0.05)):
        assert np.abs(np.mean(errors[name], 0)).max() < limit, name


def test_another_detector_gets_these_points(network, portrait):
    picture = portrait(5)
    plain = HogDetector(small_faces="never")
    detector = LandmarkDetector(plain, LandmarkPredictor(network, threads=1))
    (before,), (after,) = plain.detect(picture.image), detector.detect(picture.image)
    assert after.scheme == "arcface5" and after.box == before.box and after.landmarks.shape == (5, 2)
    assert detector.detect(np.zeros((64, 64, 3), np.uint8)) == []
    with pytest.raises(ImageError):
        detector.detect(np.zeros((64, 64)))
    # What was read by it is not taken for what was read in another way.
    settings = {
        Reader(detector=d).settings for d in (plain, detector, LandmarkDetector(HogDetector(), detector._predictor))
    }
    assert len(settings) == 3


def test_networks_that_do_not_fit_are_refused(tmp_path, made_up_network):
    graph = always(mean_face(), "lips")
    path = made_up_network(tmp_path, "whole", graph, "landmarks", CHIP, OUTPUTS, {**CUT, "kind": "whole"})
    with pytest.raises(WeightsError, match="cut as face_box"):
        LandmarkPredictor(path)
    path = made_up_network(tmp_path, "other", graph, "attributes", CHIP, OUTPUTS, CUT)
    with pytest.raises(WeightsError, match="trained for attributes"):
        LandmarkPredictor(path)
    if not (SHIPPED / "landmarks-world.onnx").exists():
        with pytest.raises(WeightsError, match="landmarks-world is not in this build"):
            LandmarkPredictor()


shipped = pytest.mark.skipif(not (SHIPPED / "landmarks-world.onnx").exists(), reason="landmarks-world is not shipped")


@shipped
@pytest.mark.parametrize("number", [0, 1, 4, 5, 8])
def test_the_shipped_network_finds_landmarks(portrait, number):
    """Points of people it has not learned from (its training begins with person 1000), from the detector's faces."""
    picture = portrait(number)
    faces = HogDetector().detect(picture.image)
    (one,) = LandmarkPredictor(threads=1).predict(picture.image, faces)
    truth = picture.truth.dense - 0.5
    eyes = np.linalg.norm(truth[36] - truth[45])
    errors = np.linalg.norm(one.dense - truth, axis=1)[picture.truth.dense_visible] / eyes
    assert errors.mean() < 0.06
    shown, face = picture.truth.parts, LABELS.index("face")
    near = one.parts_in(*shown.shape)
    both = ((near == face) & (shown == face)).sum() / ((near == face) | (shown == face)).sum()
    assert both > 0.6
    assert np.mean((one.visible > 0.5) == picture.truth.dense_visible) > 0.8


@shipped
def test_the_shipped_network_follows_turned_and_enlarged_faces(portrait):
    picture = portrait(1)
    wide = images.resize(picture.image, 480, 480)
    turned = np.ascontiguousarray(np.rot90(wide))
    detector = LandmarkDetector(HogDetector(turned=True))
    (upright,), (aside,) = detector.detect(wide), detector.detect(turned)
    back = np.stack([479 - aside.landmarks[:, 1], aside.landmarks[:, 0]], 1)
    eyes = np.linalg.norm(upright.landmarks[1] - upright.landmarks[0])
    assert np.linalg.norm(back - upright.landmarks, axis=1).max() < 0.15 * eyes
