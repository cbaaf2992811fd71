"""``ipse describe``, and the recognizing verbs with encoders by name; the networks here are made by hand."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ipse import cli
from ipse.encoders import ChipSpec
from ipse.world import look, person, render, shot
from ipse.zoo.onnx_graph import OnnxGraph

EVEN = {"mood": "neutral", "head.yaw": 0, "head.pitch": 0, "occluder": None, "degrade.low_res": 1, "degrade.blur_px": 0}
BARE = {"mask": None, "hat": None, "glasses": None, "scarf": None, "hair.style": "short"}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def pooled(size, outputs, name="pixels"):
    """A network that mixes the colors of a picture's quarters by random matrices."""
    graph = OnnxGraph("pooled")
    height, width = size
    x = graph.input(name, "float32", ("n", 3, height, width))
    window = [height // 4, width // 4]
    x = graph.node("Flatten", graph.node("AveragePool", x, kernel_shape=window, strides=window))
    for number, (output, count) in enumerate(outputs.items()):
        mix = np.random.default_rng(number).normal(size=(48, count)).astype(np.float32)
        graph.output(graph.node("MatMul", x, graph.weight(mix), name=output), "float32", ("n", count))
    return graph


def spec(height, width, template):
    return ChipSpec(height, width, template, "rgb", (127.5,) * 3, (127.5,) * 3)


@pytest.fixture(scope="module")
def networks(tmp_path_factory, made_up_network):
    """A folder in place of ipse's own: a face encoder, a body encoder and attributes."""
    folder = tmp_path_factory.mktemp("networks")
    embedding, more = {"embedding": {"kind": "embedding"}}, {"dim": 16, "metric": "cosine"}
    for name, chip, modality, threshold in (
        ("faces", spec(112, 112, "arcface112"), "face", 0.2),
        ("bodies", spec(64, 32, None), "body", None),
    ):
        graph = pooled((chip.height, chip.width), {"embedding": 16})
        kind = {"kind": chip.template or "whole", "margin": 0.25}
        known = {**more, "threshold": threshold, "modality": modality}
        made_up_network(folder, name, graph, "identity", chip, embedding, kind, **known)
    outputs = {
        "glasses": {"kind": "classes", "classes": ["none", "worn"]},
        "age": {"kind": "number", "number": [0, 100]},
    }
    graph = pooled((64, 64), {"glasses": 2, "age": 2})
    chip, kind = spec(64, 64, None), {"kind": "whole", "margin": 0.25}
    made_up_network(folder, "attributes-world", graph, "attributes", chip, outputs, kind)
    return folder


@pytest.fixture
def inside(networks, monkeypatch):
    """These networks as those that come with ipse."""
    monkeypatch.setattr(sys.modules["ipse.zoo.shipped_files"], "SHIPPED", networks)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name, number in (("Ada", 5), ("Ben", 12)):
        who = person(number)
        Image.fromarray(render(who, look(0, who, fix=BARE), shot(0, fix=EVEN), "portrait", 128).image).save(
            folder / f"{name}.png"
        )
    Image.new("RGB", (64, 64), (90, 120, 80)).save(folder / "meadow.png")
    (folder / "broken.jpg").write_bytes(b"")
    return folder


def test_describe_tells_every_face(capsys, inside, photos, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, "describe", photos, "--json", "--report", page)
    *files, last = [json.loads(line) for line in out.splitlines()]
    found = {entry["path"].rsplit("/", 1)[1]: entry for entry in files}
    assert code == 0 and {name: len(entry["faces"]) for name, entry in found.items()} == {
        **{"Ada.png": 1, "Ben.png": 1, "meadow.png": 0, "broken.jpg": 0}
    }
    assert found["broken.jpg"]["reason"] == "empty"
    told = found["Ada.png"]["faces"][0]["attributes"]
    assert told["glasses"]["value"] in ("none", "worn") and 0 <= told["age"]["value"] <= 100
    assert sum(told["glasses"]["chances"].values()) == pytest.approx(1, abs=1e-3)
    assert last["summary"]["faces"] == 2 and last["summary"]["problems"] == 1
    assert last["summary"]["network"] == "attributes-world" and len(last["summary"]["fingerprint"]) == 64
    text = page.read_text()
    assert text.count("data:image/jpeg") == 2 and "glasses (" in text and "± " in text and "broken.jpg" in text
    assert not re.search(r"https?:", text)
    code, out, _ = run(capsys, "describe", photos / "Ada.png")
    assert code == 0 and "face 1" in out and "glasses (" in out and "1 file, 1 face." in out


def test_describe_without_a_face_or_a_network(capsys, inside, photos, tmp_path):
    code, out, _ = run(capsys, "describe", photos / "meadow.png")
    assert code == 3 and "no face" in out
    (tmp_path / "film.mp4").write_bytes(b"")
    code, out, _ = run(capsys, "describe", tmp_path / "film.mp4", "--json")
    assert code == 3 and json.loads(out.splitlines()[0])["reason"] == "unsupported"
    code, _, err = run(capsys, "describe", photos, "--network", "moods-world")
    assert code == 2 and "moods-world is not in this build" in err and "attributes-world" in err
    code, _, err = run(capsys, "describe", photos, "--network", "faces")
    assert code == 2 and "trained for identity" in err


def test_encoders_by_name(capsys, inside, photos, tmp_path):
    gallery = tmp_path / "gallery"
    chosen = ("-g", gallery, "--encoder", "faces")
    assert run(capsys, "enroll", "Ada", photos / "Ada.png", *chosen)[0] == 0
    code, out, _ = run(capsys, "find", photos / "Ada.png", "--json", *chosen)
    (one,) = json.loads(out.splitlines()[0])["people"]
    assert code == 0 and one["name"] == "Ada" and one["known"] and one["distance"] < 1e-4
    # Vectors of two encoders are never compared.
    code, _, err = run(capsys, "find", photos / "Ada.png", "-g", gallery)
    assert code == 2 and "faces" in err and "dlib-face-128" in err
    code, _, err = run(capsys, "verify", photos / "Ada.png", photos / "Ben.png", "--encoder", "nobody")
    assert code == 2 and "dlib-face-128, bodies, faces" in err


def test_every_picture_is_a_body_for_an_encoder_of_bodies(capsys, inside, tmp_path):
    crops = tmp_path / "crops"
    crops.mkdir()
    for name, color in (("red", (200, 30, 30)), ("green", (20, 160, 60))):
        picture = np.full((120, 50, 3), color, np.uint8)
        picture[60:] //= 2
        Image.fromarray(picture).save(crops / f"{name}.png")
    chosen = ("-g", tmp_path / "gallery", "--encoder", "bodies")
    code, out, err = run(capsys, "enroll", "Red", crops / "red.png", *chosen)
    assert code == 0, out + err
    code, out, _ = run(capsys, "find", crops, "--json", "--threshold", "0.01", *chosen)
    found = {entry["path"].rsplit("/", 1)[1]: entry["people"] for entry in map(json.loads, out.splitlines()[:-1])}
    assert code == 0 and [one["name"] for one in found["red.png"]] == ["Red"]
    assert [one["name"] for one in found["green.png"]] == ["unknown"]


def test_finding_with_a_shipped_encoder_loads_no_torch(networks, photos, tmp_path):
    encoder = str(networks / "faces.onnx")
    steps = [["enroll", "Ada", str(photos / "Ada.png")], ["find", str(photos / "Ada.png")]]
    for arguments in steps:
        script = (
            f"import sys; sys.argv[1:] = {[*arguments, '-g', str(tmp_path / 'gallery'), '--encoder', encoder]!r}\n"
            "from ipse import cli\n"
            "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
            "assert not {'torch', 'onnx'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
