"""ContourReID: sketches, rays at learned angles, stripes, and people who are told by their outline."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.encoders.backbones.contour import AngleSpecificExtractor, PolarTransform, edges, outline  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402

TINY = {"angles": 32, "radii": 16, "stripes": 2, "depths": [1, 1], "width": 0.125, "dim": 16}


def test_an_outline_is_the_border_of_classes_whatever_they_are():
    parts = np.zeros((2, 8, 6), np.uint8)
    parts[0, 2:6, 2:4] = 3
    parts[1, 2:6, 2:4] = 9
    drawn = outline(parts)
    assert drawn.shape == (2, 8, 6, 3) and set(np.unique(drawn)) == {0, 255}
    assert (drawn[0] == drawn[1]).all()
    white = drawn[0, :, :, 0] > 0
    assert not white[3:5, 3].any() and white[2:6, 2].all() and white[2:6, 4].all() and white[6, 2:4].all()
    assert white.sum() == 11


def test_edges_are_where_pictures_change_and_not_what_color_they_are():
    pictures = np.full((2, 16, 8, 3), 40, np.uint8)
    pictures[0, 4:12, 2:6] = (200, 40, 40)
    pictures[1, 4:12, 2:6] = (40, 90, 40)
    drawn = edges(pictures)
    assert drawn.dtype == np.uint8 and np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1
    assert (drawn[0, 8, [0, 3, 4, 7]] == 0).all() and (drawn[0, 8, [1, 2, 5, 6]] > 150).all()
    assert (edges(pictures[:, :3]) == 0).all()


def test_rays_read_from_the_middle_outward_at_even_angles_first():
    polar = PolarTransform(8, 4)
    assert torch.rad2deg(polar.angles).tolist() == pytest.approx([-157.5 + 45 * i for i in range(8)], abs=1e-3)
    right = torch.linspace(-1, 1, 41).expand(1, 1, 41, 41)
    for picture, axis in ((right, torch.cos), (right.transpose(2, 3), torch.sin)):
        read = polar(picture)
        assert read.shape == (1, 1, 8, 4)
        radii = (torch.arange(4) + 0.5) / 4
        expected = axis(polar.angles)[:, None] * radii
        # Values are told at the middles of pixels, which begin half a pixel inside.
        assert torch.allclose(read[0, 0].detach(), expected * 41 / 40, atol=0.03)
    above = torch.rad2deg(PolarTransform(6, 4, (-120, -60)).angles)
    assert (above > -120).all() and (above < -60).all()
    for span in ((30, 30), (0, 400), (-400, 0)):
        with pytest.raises(WeightsError, match="degrees"):
            PolarTransform(8, 4, span)


def test_angles_move_to_where_the_lines_are_and_stay_in_order():
    picture = torch.zeros(1, 1, 33, 33)
    picture[:, :, 24:, 14:19] = 1  # below the middle
    polar = PolarTransform(16, 8)
    before = polar(picture).mean().item()
    optimizer = torch.optim.Adam(polar.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (-polar(picture).mean()).backward()
        optimizer.step()
    angles = polar.angles.detach()
    assert polar(picture).mean().item() > 1.5 * before
    assert (angles.diff() > 0).all() and angles[0] > -np.pi and angles[-1] < np.pi
    even = PolarTransform(16, 8, learned=False)
    assert not [p for p in even.parameters() if p.requires_grad]


def test_a_stripe_is_weighed_by_itself():
    torch.manual_seed(0)
    extractor = AngleSpecificExtractor(3, 2)
    x = torch.rand(2, 3, 4, 5)
    other = x.clone()
    other[:, :, 2:] = torch.rand(2, 3, 2, 5)
    one, two = extractor(x), extractor(other)
    assert one.shape == (2, 6)
    assert torch.equal(one[:, :3], two[:, :3]) and (one[:, 3:] - two[:, 3:]).abs().min() > 0
    swapped = extractor(x.flip(2))
    assert not torch.allclose(swapped[:, :3], one[:, 3:])
    with torch.no_grad():
        extractor.weight.zero_()
    assert torch.allclose(extractor(x)[:, :3], x[:, :, :2].mean((2, 3)) / 2)


def test_streams_see_their_own_span_and_all_reach_the_embedding():
    torch.manual_seed(0)
    network = backbone("contour", **TINY, spans=[(-180, 180), (-150, -30)]).eval()
    pixels = torch.rand(2, 3, 32, 16)
    changed = pixels.clone()
    changed[:, :, 20:] = 0  # below
    with torch.no_grad():
        first, second = (torch.cat([stream(x)[None] for stream in network.streams]) for x in (pixels, changed))
        assert (first[0] - second[0]).abs().max() > 1e-4 and torch.equal(first[1], second[1])
        assert network(pixels).shape == (2, 16) and network.feature_map(pixels).shape == (2, 32, 4, 2)
    for options in ({"stripes": 3}, {"spans": []}, {"angles": 0}):
        with pytest.raises(WeightsError, match="stripes"):
            backbone("contour", **{**TINY, **options})


def test_people_are_learned_by_their_outline(tmp_path):
    pytest.importorskip("kornia")
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from walking import recipe

    from ipse.training.described import Described
    from ipse.training.learning import embed, learn
    from ipse.training.networks import load_network

    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(6), 8)
    parts = np.zeros((48, 32, 16), np.uint8)
    for mask, person in zip(parts, people, strict=True):
        # Broader or narrower above and below, in a place that changes a little.
        above, below, shift = 2 + 2 * (person % 3), 2 + 5 * (person // 3), draw.integers(-1, 2)
        mask[4 + shift : 16, 8 - above : 8 + above] = draw.integers(1, 9)
        mask[16 : 28 + shift, 8 - below : 8 + below] = 10
    plan = recipe(
        name="lines", steps=30, network={"backbone": "contour", **TINY}, save_every=100,
        losses={"softmax": {}, "triplet": {"margin": 0.3}}, optimizer={"rate": 0.005, "warmup": 2},
    )  # fmt: skip
    sketches = outline(parts)
    network, _ = load_network(learn(Described(plan, sketches, people), tmp_path / "run"))
    vectors = embed(network, sketches)
    centers = np.stack([vectors[people == n].mean(0) for n in range(6)])
    assert ((vectors @ centers.T).argmax(1) == people).mean() > 0.9
    assert all(stream.polar.gaps.abs().max() > 0 for stream in network.streams)


def test_a_network_of_rays_can_be_exported(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("kornia")
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from walking import pictures, recipe

    from ipse.training.described import Described
    from ipse.training.export import export_onnx
    from ipse.training.learning import learn

    people = np.repeat(np.arange(4), 4)
    plan = recipe(name="rays", steps=1, network={"backbone": "contour", **TINY}, losses={"softmax": {}})
    weights = learn(Described(plan, pictures(people), people), tmp_path)
    assert export_onnx(weights)["random"]["embedding"] < 1e-4
