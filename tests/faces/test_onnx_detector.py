"""Networks with exactly the outputs of SCRFD and YuNet, small enough to be written here: they see a colored spot."""

import pickle

import numpy as np
import pytest

from ipse.errors import WeightsError
from ipse.faces import Detector, OnnxDetector
from ipse.zoo.onnx_graph import OnnxGraph

RED, GREEN, BLUE = range(3)
BOX = np.array([1.0, 1.5, 2.0, 2.5], np.float32)  # left, top, right, bottom of the cell's corner, in strides
POINTS = np.array([(0, 0), (1, 0), (0.5, 0.75), (0, 1.25), (1, 1.25)], np.float32)


def brightness(graph, x, channel, stride, scale, shift):
    """Mean of a channel over each cell, mapped by scale and shift and squeezed into 0..1; (cells, 1), row by row."""
    pick = np.zeros((1, 3, 1, 1), np.float32)
    pick[0, channel] = scale
    y = graph.node("Conv", x, graph.weight(pick), graph.weight(np.float32([shift])))
    y = graph.node("AveragePool", y, kernel_shape=[stride, stride], strides=[stride, stride])
    y = graph.node("Clip", y, graph.weight(np.float32(0)), graph.weight(np.float32(1)))
    return graph.node("Reshape", y, graph.weight(np.int64([-1, 1])))


def scrfd(path, side=64, channel=RED, wide=False, points=POINTS, drop=0):
    """Three levels of two anchors; only the level with stride 16 looks, by its second anchor."""
    graph = OnnxGraph("scrfd")
    sizes = ("h", "w") if wide else (side, side)
    x = graph.input("input.1", "float32", (1, 3, *sizes))
    outputs = []
    for kind, width in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            # The input is (pixel - 127.5) / 128: white is about 1, black about -1.
            seen = brightness(graph, x, channel, stride, 0.5, 0.5)
            none = graph.node("Mul", seen, graph.weight(np.float32(0)))
            pair = graph.node("Concat", none, seen if stride == 16 else none, axis=1)
            flat = graph.node("Reshape", pair, graph.weight(np.int64([-1, 1])))
            if kind == "score":
                out = graph.node("Identity", flat, name=f"{440 + len(outputs)}")
            else:
                values = BOX if kind == "bbox" else points.reshape(-1)
                zero = graph.node("Mul", flat, graph.weight(np.float32(0)))
                out = graph.node("Add", zero, graph.weight(values[None]), name=f"{440 + len(outputs)}")
            outputs.append((out, width))
    for out, width in outputs[drop:]:
        graph.output(out, "float32", ("n", width))
    path.write_bytes(graph.to_bytes())
    return path


def yunet(path, side=64, channel=RED):
    """Only the level with stride 8 looks; boxes are two cells wide and four high around a point inside the cell."""
    graph = OnnxGraph("yunet")
    x = graph.input("input", "float32", (1, 3, side, side))
    values = {"bbox": np.float32([0.5, 0.25, np.log(2), np.log(4)]), "kps": POINTS.reshape(-1)}
    for kind in ("cls", "obj", "bbox", "kps"):
        for stride in (8, 16, 32):
            # The input is blue, green, red in 0–255.
            seen = brightness(graph, x, 2 - channel, stride, 1 / 255, 0.0)
            if stride != 8 or kind in values:
                seen = graph.node("Mul", seen, graph.weight(np.float32(0)))
            if kind in values:
                seen = graph.node("Add", seen, graph.weight(values[kind][None]))
            width = len(values[kind]) if kind in values else 1
            out = graph.node("Reshape", seen, graph.weight(np.int64([1, -1, width])), name=f"{kind}_{stride}")
            graph.output(out, "float32", (1, "n", width))
    path.write_bytes(graph.to_bytes())
    return path


def spotted(height, width, *cells, color=RED, side=8):
    """A black image with bright cells, given by column and row."""
    image = np.zeros((height, width, 3), np.uint8)
    for column, row in cells:
        image[row * side : (row + 1) * side, column * side : (column + 1) * side, color] = 255
    return image


def test_scrfd_boxes_and_landmarks(tmp_path):
    detector = OnnxDetector(scrfd(tmp_path / "det.onnx"), threads=1)
    (face,) = detector.detect(spotted(64, 64, (1, 2), side=16))
    corner = np.array([16, 32])
    assert face.box == pytest.approx([0, 8, 48, 63])  # cut at the border: 0 = 16 - 16, 72 lies outside
    assert face.landmarks == pytest.approx(corner + 16 * POINTS, abs=1e-4)
    assert face.score == pytest.approx(1, abs=0.01) and face.scheme == "arcface5"
    assert detector.name == "det" and isinstance(detector, Detector)


def test_yunet_boxes_and_landmarks(tmp_path):
    detector = OnnxDetector(yunet(tmp_path / "yunet.onnx"), threads=1)
    (face,) = detector.detect(spotted(64, 64, (3, 4)))
    center = (np.array([3, 4]) + [0.5, 0.25]) * 8
    assert face.box == pytest.approx([*(center - [8, 16]), *(center + [8, 16])], abs=1e-4)
    assert face.landmarks == pytest.approx((np.array([3, 4]) + POINTS) * 8, abs=1e-4)
    assert face.score == pytest.approx(1, abs=1e-3) and face.scheme == "arcface5"


@pytest.mark.parametrize(("write", "side"), [(scrfd, 16), (yunet, 8)])
def test_colors_reach_the_network_in_its_order(tmp_path, write, side):
    detector = OnnxDetector(write(tmp_path / "net.onnx"), threads=1)
    assert len(detector.detect(spotted(64, 64, (2, 2), color=RED, side=side))) == 1
    assert detector.detect(spotted(64, 64, (2, 2), color=BLUE, side=side)) == []


@pytest.mark.parametrize(("height", "width"), [(128, 128), (256, 100), (60, 200), (32, 16)])
def test_any_image_is_fitted_in_and_answers_in_its_own_pixels(tmp_path, height, width):
    detector = OnnxDetector(yunet(tmp_path / "yunet.onnx"), threads=1)
    scale = 64 / max(height, width)
    view = round(height * scale), round(width * scale)
    image = np.zeros((height, width, 3), np.uint8)
    # The cell (0, 1) of the network's input, in pixels of this image.
    image[round(8 * height / view[0]) : round(16 * height / view[0]), : round(8 * width / view[1]), RED] = 255
    (face,) = detector.detect(image)
    factor = np.array([width / view[1], height / view[0]])
    assert face.landmarks == pytest.approx(((np.array([0, 1]) + POINTS) * 8 + 0.5) * factor - 0.5, abs=1e-3)


def test_faces_found_twice_are_one(tmp_path):
    detector = OnnxDetector(yunet(tmp_path / "yunet.onnx"), threads=1)
    image = spotted(64, 64, (2, 3), (2, 4), (6, 3))
    image[32:40, 16:24] = [215, 0, 0]  # the lower of two neighbors is less sure
    faces = detector.detect(image)
    assert sorted(tuple(face.landmarks[0] / 8) for face in faces) == [(2, 3), (6, 3)]


def test_threshold_and_free_input_size(tmp_path):
    image = spotted(64, 64, (1, 2), side=16) // 5 * 3
    path = scrfd(tmp_path / "free.onnx", wide=True)
    assert len(OnnxDetector(path, side=50, threads=1).detect(image)) == 1
    assert OnnxDetector(path, side=64, threshold=0.9, threads=1).detect(image) == []


def test_turned_images_are_searched_on_request(tmp_path):
    path = yunet(tmp_path / "yunet.onnx")
    image = spotted(64, 64, (3, 4))
    assert len(OnnxDetector(path, turned=True, threads=1).detect(image)) == 1
    assert OnnxDetector(path, turned=True, threads=1).detect(np.zeros((64, 64, 3), np.uint8)) == []


def test_other_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="there is no file"):
        OnnxDetector(tmp_path / "gone.onnx")
    with pytest.raises(WeightsError, match="neither SCRFD's nor YuNet's"):
        OnnxDetector(scrfd(tmp_path / "less.onnx", drop=3))
    with pytest.raises(WeightsError, match="neither SCRFD's nor YuNet's"):
        OnnxDetector(scrfd(tmp_path / "one.onnx", drop=1))


def test_crosses_process_borders(tmp_path):
    detector = pickle.loads(pickle.dumps(OnnxDetector(yunet(tmp_path / "yunet.onnx"), threads=1)))
    assert len(detector.detect(spotted(64, 64, (3, 4)))) == 1
