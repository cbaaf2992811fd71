"""Attributes of faces: chances, what hides what, and where the face is cut; the network here is made by hand."""

import numpy as np
import pytest

from ipse.attributes import VOCABULARY, AttributeRecognizer
from ipse.attributes.judge import open_judge
from ipse.encoders import ChipSpec
from ipse.errors import ImageError, WeightsError
from ipse.faces import TEMPLATES, Face, HogDetector
from ipse.faces.align import face_box_template, portrait_template
from ipse.world import look, person, render, shot
from ipse.zoo import shipped_files
from ipse.zoo.onnx_graph import OnnxGraph
from ipse.zoo.shipped_files import SHIPPED

SIDE = 32
CHIP = ChipSpec(SIDE, SIDE, None, "rgb", (0.0,) * 3, (255.0,) * 3)
OUTPUTS = {
    "mask": {"kind": "classes", "classes": ["no", "yes"]},
    "beard": {"kind": "classes", "classes": ["none", "worn"]},
    "age": {"kind": "number", "number": [0.0, 100.0]},
}
WHOLE = {"kind": "whole", "margin": 0.25}
# Logarithms of how frequent beards were in training: one in five.
PRIOR = np.log([0.8, 0.2]).astype(np.float32)


def colors():
    """Red tells of a mask, green of a beard, blue is the age in shares of 100 (4 years; in the red, anything)."""
    graph = OnnxGraph("colors")
    x = graph.input("pixels", "float32", ("n", 3, SIDE, SIDE))
    mean = graph.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    for name, weight, bias in (
        ("mask", [[-10, 10], [0, 0], [0, 0]], [5, -5]),
        ("beard", [[0, 0], [0, np.log(4)], [0, 0]], [0, -np.log(4)]),
        ("age", [[0, 40], [0, 0], [1, 0]], [0, 2 * np.log(0.04)]),
    ):
        product = graph.node("MatMul", mean, graph.weight(np.float32(weight)))
        graph.output(graph.node("Add", product, graph.weight(np.float32(bias)), name=name), "float32", ("n", 2))
    return graph


@pytest.fixture(scope="module")
def network(tmp_path_factory, made_up_network):
    tensors = {"priors.mask": np.zeros(2, np.float32), "priors.beard": PRIOR}
    folder = tmp_path_factory.mktemp("networks")
    return made_up_network(folder, "colors", colors(), "attributes", CHIP, OUTPUTS, WHOLE, tensors)


def chip(red, green, blue):
    return np.full((1, SIDE, SIDE, 3), (red, green, blue), np.uint8)


def test_chances_and_deviations(network):
    recognizer = AttributeRecognizer(network, threads=1)
    assert recognizer.attributes == tuple(OUTPUTS)
    (told,) = recognizer.tell(chip(0, 0, 102))
    assert told["mask"].value == "no" and told["mask"].confidence > 0.999
    assert told["beard"].value == "none" and told["beard"].confidence == pytest.approx(0.8, abs=1e-4)
    assert told["age"].value == pytest.approx(40, abs=0.1) and told["age"].deviation == pytest.approx(4, abs=0.1)
    assert told["beard"].text == "no beard (80 %)" and told["age"].text == "age 40 ± 4 years"
    assert told["beard"].to_json() == {"value": "none", "confidence": 0.8, "chances": {"none": 0.8, "worn": 0.2}}
    assert told["age"].to_json() == {"value": 40.0, "deviation": 4.0} and told["age"].confidence is None


def test_nobody_knows_less_than_the_range(network):
    (told,) = AttributeRecognizer(network, threads=1).tell(chip(255, 0, 102))
    assert told["age"].deviation == pytest.approx(100 / 12**0.5)


def test_with_even_frequencies_what_is_rare_is_told_sooner(network):
    (learned,), (even,) = (
        AttributeRecognizer(network, frequencies=frequencies, threads=1).tell(chip(0, 0, 0))
        for frequencies in ("learned", "even")
    )
    # The picture says nothing of a beard: what was learned of how many have one is all there is.
    assert learned["beard"].chances["worn"] == pytest.approx(0.2, abs=1e-4)
    assert even["beard"].chances["worn"] == pytest.approx(0.5, abs=1e-4)
    assert even["mask"].chances == pytest.approx(learned["mask"].chances)


def test_what_is_hidden_is_not_seen(network):
    bare, masked = AttributeRecognizer(network, threads=1).tell(np.concatenate([chip(0, 255, 0), chip(255, 255, 0)]))
    assert bare["beard"].chances == pytest.approx({"none": 0.5, "worn": 0.5}, abs=1e-4)
    assert masked["mask"].value == "yes" and masked["beard"].value is None and masked["beard"].hidden_by == "mask"
    assert masked["beard"].text == "beard: not seen (mask)" and masked["beard"].confidence is None
    assert masked["beard"].to_json() == {"value": None, "hidden_by": "mask"}
    assert masked["age"].value == 0


def test_faces_are_cut_as_in_training(network, tmp_path, made_up_network):
    """A blue face on red: cut as the portrait it is, the chip shows both as the template says."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[..., 0] = 255
    points = portrait_template(SIDE).points["arcface5"] * 2 + [60, 40]
    image[40:104, 60:124] = (0, 0, 255)  # exactly the chip
    face = Face((60, 40, 124, 104), 1.0, points.astype(np.float32), "arcface5")
    (told,) = AttributeRecognizer(network, threads=1).recognize(image, [face])
    assert told["age"].value > 93 and told["mask"].value == "no"
    assert AttributeRecognizer(network, threads=1).recognize(image, []) == []
    for kind, cut, template in (
        ("box", {"kind": "face_box", "margin": 0.1}, face_box_template(SIDE, 0.1)),
        ("arcface", {"kind": "arcface112", "margin": 0.25}, TEMPLATES["arcface112"]),
    ):
        spec = ChipSpec(SIDE, SIDE, "arcface112" if kind == "arcface" else None, "rgb", CHIP.mean, CHIP.std)
        path = made_up_network(tmp_path, kind, colors(), "attributes", spec, OUTPUTS, cut)
        used = AttributeRecognizer(path, threads=1)._template
        assert used.points["dlib5"] == pytest.approx(template.points["dlib5"])


def test_as_a_judge_it_tells_classes_of_the_face_it_is_given(network):
    judge = open_judge(network)
    assert judge.attributes == ("mask", "beard")
    masked = np.zeros((SIDE, SIDE, 3), np.uint8)
    masked[..., 0] = 255
    points = portrait_template(SIDE).points["arcface5"].astype(np.float32)
    told, features = judge.tell([masked, masked], [Face((0, 0, 31, 31), 1.0, points, "arcface5"), None])
    assert features is None
    # What is behind the mask is not seen, and nothing is where there is no face.
    assert told["mask"].tolist() == ["yes", ""] and told["beard"].tolist() == ["", ""]
    assert judge.truth("beard", [{"beard": "full"}, {"beard": "none"}, {}]).tolist() == ["worn", "none", ""]


def test_what_does_not_fit_is_refused(network, tmp_path, made_up_network):
    with pytest.raises(ImageError, match=r"\(32, 32, 3\)"):
        AttributeRecognizer(network, threads=1).tell(np.zeros((1, 40, 40, 3), np.uint8))
    for outputs, what in (
        ({"mood": {"kind": "classes", "classes": ["good", "bad"]}}, "tells mood"),
        ({"beard": {"kind": "classes", "classes": ["none", "long"]}}, "tells beard as long"),
    ):
        path = made_up_network(tmp_path, "strange", colors(), "attributes", CHIP, outputs, WHOLE)
        with pytest.raises(WeightsError, match=what):
            AttributeRecognizer(path)
    if not (SHIPPED / "attributes-world.onnx").exists():
        with pytest.raises(WeightsError, match="attributes-world is not in this build"):
            AttributeRecognizer()


shipped = pytest.mark.skipif(not (SHIPPED / "attributes-world.onnx").exists(), reason="attributes-world is not shipped")


@shipped
def test_the_shipped_network_tells_what_the_vocabulary_has():
    outputs = shipped_files("attributes-world").contract["outputs"]
    assert len(outputs) >= 8
    for name, output in outputs.items():
        rest = VOCABULARY[name].otherwise
        if rest and rest.name in output.get("classes", ()):
            # What it tells apart besides is what the rest is said not to be.
            assert set(output["classes"]) - {rest.name} == set(rest.but), name


@shipped
def test_the_shipped_network_sees_what_is_worn():
    """Of people whom it has not learned from (its training begins with person 1000), in busts, cut by the detector."""
    recognizer, detector = AttributeRecognizer(frequencies="even", threads=1), HogDetector()
    right, count, ages = 0, 0, []
    even = {"mood": "neutral", "head.yaw": 0, "head.pitch": 0, "occluder": None, "degrade.low_res": 1}
    for number in (0, 1, 4, 5, 7, 9, 12, 14):
        for glasses in (None, {"style": "rect"}):
            who = person(number)
            worn = look(0, who, fix={"glasses": glasses, "hat": None, "mask": None, "scarf": None})
            picture = render(who, worn, shot(0, fix=even), "bust", 256)
            faces = detector.detect(picture.image)
            if len(faces) != 1:
                continue
            (told,) = recognizer.recognize(picture.image, faces)
            true = {"gender": "female" if who.gender < 0.5 else "male", "glasses": "worn" if glasses else "none"}
            true |= {"hat": "none", "mask": "no"}
            right += sum(told[name].value == value for name, value in true.items() if name in told)
            count += sum(name in told for name in true)
            ages.append(abs(told["age"].value - who.age))
    assert count > 40 and right > 0.85 * count
    assert np.mean(ages) < 14  # the middle of all ages would be some twenty years off
