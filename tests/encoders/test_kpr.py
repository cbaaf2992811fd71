"""KPR: what keypoints become, and what of them reaches the features of parts."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.encoders.backbones.kpr import KEYPOINTS, MAPS, PARTS, heat_maps, prompts  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402

OPTIONS = {"width": 16, "depth": 2, "heads": 2, "dim": 8, "size": [32, 16], "patch": 4, "stride": 4}


def keypoints(x=4.0, y=8.0, count=2):
    points = np.zeros((count, KEYPOINTS, 3), np.float32)
    points[:] = x, y, 1
    return points


def network(seed=0):
    torch.manual_seed(seed)
    made = backbone("kpr", **OPTIONS).eval()
    # The tokens of a prompt begin at zero.
    torch.nn.init.normal_(made.prompts.weight, std=0.1)
    return made


def test_every_keypoint_but_the_hidden_ones_has_its_map():
    points = keypoints(x=12.0, y=4.0)
    points[0, 9], points[0, 10], points[0, 7, 2] = (-1, 4, 1), (3, 4, 0), 0
    told = prompts(points, (32, 16))
    assert told.shape == (2, 17, 3)
    assert (told[0, [7, 9, 10]] == 0).all() and told[0, 0] == pytest.approx([0.75, 0.125, 1])
    maps = heat_maps(torch.from_numpy(told), (32, 16)).numpy()
    assert maps.shape == (2, 7, 32, 16)
    names = list(MAPS)
    # The wrist is outside and the elbow unknown; the other arm has its elbow.
    assert not maps[0, names.index("left_arm")].any() and maps[0, names.index("right_arm")].max() > 0.5
    row, column = np.unravel_index(maps[0, 0].argmax(), (32, 16))
    assert row in (3, 4) and column in (11, 12)
    assert not maps[:, 6].any()
    other = heat_maps(torch.from_numpy(prompts(points, (32, 16), keypoints(2.0, 20.0))), (32, 16)).numpy()
    assert (other[:, :6] == maps[:, :6]).all()
    assert np.unravel_index(other[1, 6].argmax(), (32, 16))[0] in (19, 20)


def test_no_prompt_is_no_keypoints_and_a_new_network_ignores_all():
    made = network()
    pixels, told = torch.randn(2, 3, 32, 16), torch.from_numpy(prompts(keypoints(), (32, 16), keypoints(12, 20)))
    with torch.no_grad():
        plain = made(pixels)
        assert torch.equal(plain, made(pixels, torch.zeros_like(told)))
        assert (made(pixels, told) - plain).abs().max() > 1e-3
        # Who is meant and who is not are not the same.
        swapped = torch.from_numpy(prompts(keypoints(12, 20), (32, 16), keypoints()))
        assert (made(pixels, told) - made(pixels, swapped)).abs().max() > 1e-3
        fresh = backbone("kpr", **OPTIONS).eval()
        assert torch.equal(fresh(pixels, told), fresh(pixels))


def test_parts_are_means_where_they_are_and_hidden_ones_are_zeros():
    made = network()
    with torch.no_grad():
        # All places are of the head, or of nothing.
        last = made.scores[1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 9, -9, -9, -9, -9]))
        pixels = torch.randn(2, 3, 32, 16)
        body = made.body(pixels)
        assert body.visible.tolist() == [[True] + [False] * 4] * 2 and body.scores.shape == (2, 6, 8, 4)
        assert body.parts.shape == (2, len(PARTS), 8)
        grid = made.feature_map(pixels).mean((2, 3))
        assert torch.allclose(body.parts[:, 0], made.reduce["parts"](grid[:, None])[:, 0], atol=1e-5)
        templates = made(pixels).unflatten(1, (6, 8))
    lengths = templates.norm(dim=2)
    assert lengths[:, 0].numpy() == pytest.approx(1, abs=1e-5) and not lengths[:, 2:].any()
    assert made.dim == 48


def test_wrong_shapes_are_told():
    with pytest.raises(WeightsError, match="who is meant"):
        prompts(np.zeros((2, 5, 3)), (32, 16))
    with pytest.raises(WeightsError, match="of others"):
        prompts(keypoints(), (32, 16), np.zeros((1, 17, 3)))
    with pytest.raises(WeightsError, match="pixels"):
        network()(torch.zeros(1, 3, 16, 16))
