"""Inpainting: what is outside of the mask stays, what is inside is new; masks of pictures and of faces."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.base import GUIDANCE, load_base  # noqa: E402
from ipse.diffusion.inpainting import inpaint, read_mask, region_mask  # noqa: E402
from ipse.encoders import ChipSpec  # noqa: E402
from ipse.errors import IpseError  # noqa: E402
from ipse.faces.landmarks import POINTS  # noqa: E402
from ipse.faces.parts import LABELS  # noqa: E402
from ipse.world import look, person, render, shot  # noqa: E402
from ipse.zoo.onnx_graph import OnnxGraph  # noqa: E402

PROMPT = "A portrait of a young woman with red hair."


@pytest.fixture(scope="module")
def base(base_folder):
    return load_base(base_folder, device="cpu")


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)


@pytest.fixture
def left():
    mask = np.zeros((48, 48), np.float32)
    mask[:, :20] = 1
    return mask


def test_the_rest_stays_to_the_pixel(base, picture, left):
    left[:, 20] = 0.5
    one, other = inpaint(base, picture, left, PROMPT, n=2, seed=3, steps=3)
    for made in (one, other):
        np.testing.assert_array_equal(made.image[:, 21:], picture[:, 21:])
        assert np.abs(made.image[:, :20].astype(int) - picture[:, :20]).mean() > 10
    assert (one.seed, other.seed) == (3, 4) and not np.array_equal(one.image, other.image)
    (alone,) = inpaint(base, picture, left, PROMPT, seed=4, steps=3)
    np.testing.assert_array_equal(alone.image, other.image)
    told = base.provenance(one)
    assert told["Source"].startswith("Partly made") and len(told["ipse"]["inpaint"]["mask"]) == 64
    assert told["ipse"]["seed"] == 3 and told["ipse"]["guidance"] == GUIDANCE["world"] and json.dumps(told)


def test_all_of_a_picture_is_a_picture_from_words(base, picture):
    (all_new,) = inpaint(base, picture[:32, :32], np.ones((32, 32), np.float32), PROMPT, seed=5, steps=3)
    (made,) = base.generate(PROMPT, seed=5, steps=3)
    assert np.abs(all_new.image.astype(int) - made.image).max() <= 1


def test_masks_that_cannot_be(base, picture, left):
    for mask, problem in (
        (left[:40], "48×40 pixels, and the picture 48×48"),
        (0 * left, "is empty"),
        (2 * left, "from 0 to 1"),
        (np.nan * left, "from 0 to 1"),
    ):
        with pytest.raises(IpseError, match=problem):
            next(inpaint(base, picture, mask, PROMPT))
    with pytest.raises(IpseError, match="a square"):
        next(inpaint(base, picture[:24], left[:24], PROMPT))
    with pytest.raises(IpseError, match="0 pictures"):
        next(inpaint(base, picture, left, PROMPT, n=0))


def test_white_is_painted(tmp_path):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, :3, :3] = 255
    pixels[:2, ..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    # What is transparent is not painted.
    assert mask.dtype == np.float32 and mask[:2, :3].min() == 1 and mask[2:].max() == mask[:, 3:].max() == 0


def test_a_region_is_that_of_every_face(tmp_path, made_up_network):
    """A network that takes what is bright for hair and the rest for skin, wherever the face is."""
    side, graph = 64, OnnxGraph("bright")
    x = graph.input("pixels", "float32", ("n", 3, side, side))
    none = graph.node("Mul", graph.node("ReduceMean", x, axes=[1, 2, 3], keepdims=0), graph.weight(np.float32([0])))
    rows = graph.node("Reshape", none, graph.weight(np.int64([-1, 1])))
    spread = np.stack(np.meshgrid(np.linspace(0.2, 0.8, 10), np.linspace(0.2, 0.8, 7)), 2).reshape(1, POINTS, 2)
    points = graph.node("Reshape", none, graph.weight(np.int64([-1, 1, 1])))
    graph.output(graph.node("Add", points, graph.weight(spread.astype(np.float32)), name="points"), "float32",
                 ("n", POINTS, 2))  # fmt: skip
    graph.output(graph.node("Add", rows, graph.weight(np.ones((1, POINTS), np.float32)), name="visible"), "float32",
                 ("n", POINTS))  # fmt: skip
    cells = graph.node("AveragePool", x, kernel_shape=[4, 4], strides=[4, 4])
    mix = np.zeros((len(LABELS), 3, 1, 1), np.float32)
    mix[LABELS.index("hair")], mix[LABELS.index("skin")] = 1, -1
    graph.output(graph.node("Conv", cells, graph.weight(mix), name="parts"), "float32", ("n", len(LABELS), 16, 16))
    outputs = {"points": {"kind": "points"}, "visible": {"kind": "logits"}, "parts": {"kind": "map", "cell": 4}}
    chip = ChipSpec(side, side, None, "rgb", (127.5,) * 3, (127.5,) * 3)
    cut = {"kind": "face_box", "margin": 0.25, "size": [side, side]}
    network = made_up_network(tmp_path, "bright", graph, "landmarks", chip, outputs, cut)

    who = person(5)
    even = {"mood": "neutral", "head.yaw": 0, "head.pitch": 0, "occluder": None}
    bare = {"mask": None, "hat": None, "glasses": None, "scarf": None}
    one = render(who, look(0, who, fix=bare), shot(0, fix=even), "portrait", 128).image
    image = np.concatenate([one, one], 1)
    hair, skin, both = (region_mask(image, parts, network) for parts in (["hair"], ["skin"], ["hair", "skin"]))
    for half in (slice(0, 128), slice(128, 256)):
        assert hair[:, half].any() and skin[:, half].any()
    np.testing.assert_array_equal(hair + skin, both)
    assert image[hair > 0].mean() > 127.5 > image[skin > 0].mean()
    with pytest.raises(IpseError, match=r"no part of a picture called 'hairs'.*background, skin"):
        region_mask(image, ["hairs"], network)
    with pytest.raises(IpseError, match="shows no hat or bag"):
        region_mask(image, ["hat", "bag"], network)
    with pytest.raises(IpseError, match=r"No face was found.*--mask"):
        region_mask(np.zeros((64, 64, 3), np.uint8), ["hair"], network)
