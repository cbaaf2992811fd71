"""Backbones: published weights fit with every key, give the published outputs, and slots take attention."""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.encoders.backbones import BACKBONES, backbone  # noqa: E402
from ipse.encoders.backbones.attention import KINDS, slot_costs  # noqa: E402
from ipse.encoders.weights import LAYOUTS, load_weights, read_checkpoint  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402

# Keys, shapes and outputs of the published modules themselves, with weights as `filled` makes them.
PUBLISHED = json.loads(gzip.decompress((Path(__file__).parent / "published_layouts.json.gz").read_bytes()))
SMALL = {
    "osnet": {"width": 0.25},
    "osnet_ibn": {"width": 0.25},
    "osnet_ain": {"width": 0.25},
    "resnet50": {"width": 0.125},
    "resnet50_ibn_a": {"width": 0.125},
    "resnet50_ibn_b": {"width": 0.125},
    "iresnet": {"depths": (1, 1, 1, 1), "width": 0.125, "stem": 2, "size": (64, 32)},
    "iresnet18": {"width": 0.125, "size": (64, 32)},
    "iresnet50": {"width": 0.125, "size": (64, 32)},
    "iresnet100": {"width": 0.125, "size": (64, 32)},
    "nested_iresnet": {"pairs": ((4, 512),), "depths": (1, 1, 1, 1), "width": 0.125, "stem": 2, "size": (64, 32)},
    "split_iresnet": {"depths": (1, 1, 1, 1), "width": 0.125, "stem": 2, "size": (64, 32)},
    "mobilefacenet": {"width": 0.25, "size": (64, 32)},
    "vit_small": {"size": (64, 32)},
    "vit_base": {"size": (64, 32)},
    "contour": {"angles": 64, "radii": 16, "width": 0.125},
    "made": {"width": 16, "heads": 2, "description": 4, "depths": (1, 1, 1), "size": (64, 32)},
    "kpr": {"width": 16, "depth": 1, "heads": 2, "dim": 8, "size": (64, 32)},
    "gaitset": {"channels": (4, 4, 8), "bins": (1, 4), "part": 2},
}
# Two silhouettes side by side; all others take this or any size.
SIZES = {"gaitset": (64, 88)}


def filled(shapes):
    """Weights that depend on key and shape alone."""
    tensors = {}
    for key, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(key.encode()))
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        if key.endswith("running_var"):
            values = draw.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            values = draw.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        elif key.endswith("weight"):
            values = draw.uniform(0.8, 1.2, shape)
        else:
            values = draw.normal(size=shape) * 0.1
        tensors[key] = torch.tensor(values.astype(np.float32))
    return tensors


def test_all_backbones_are_tried():
    assert SMALL.keys() == BACKBONES.keys()
    assert {case["layout"] for case in PUBLISHED.values()} | {"fast-reid/vit"} == LAYOUTS.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_published_outputs(name):
    case = PUBLISHED[name]
    network = backbone(case["backbone"], **case["options"]).eval()
    left_out = load_weights(network, filled(case["shapes"]), case["layout"])
    assert all("classifier" in key or key == "heads.weight" or ".fc." in key for key in left_out)
    pixels = torch.tensor(np.random.default_rng(0).normal(size=(1, 3, *case["size"])).astype(np.float32))
    side = (torch.tensor([2]), torch.tensor([1])) if "cameras" in case["options"] else ()
    with torch.no_grad():
        embedding = network(pixels, *side)[0]
    assert len(embedding) == case["length"] == network.dim
    scale = np.abs(case["output"]).max()
    np.testing.assert_allclose(embedding[:8].numpy(), case["output"], atol=2e-5 * scale)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_weight_and_the_pixels(name):
    options = dict(SMALL[name]) | ({"drop": 0.0} if name.startswith("vit") else {})
    torch.manual_seed(0)
    network = backbone(name, **options).train()
    pixels = torch.randn(3, 3, *SIZES.get(name, (64, 32)), requires_grad=True)
    (network(pixels) * torch.randn(3, network.dim)).sum().backward()
    assert pixels.grad.abs().max() > 0
    dead = [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not dead


@pytest.mark.parametrize(
    ("name", "kind"),
    [("osnet", "se"), ("resnet50", "eca"), ("iresnet18", "spatial"), ("mobilefacenet", "nonlocal"), ("vit_small", "se")]
    + [("osnet", kind) for kind in KINDS if kind != "se"],
)
def test_slots_take_attention(name, kind):
    torch.manual_seed(0)
    plain = backbone(name, **SMALL[name]).eval()
    slots = list(plain.slots)
    network = backbone(name, **SMALL[name], attention={slots[0]: kind, slots[-1]: kind}).eval()
    missing, unexpected = network.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing and all(key.startswith("attention.") for key in missing)
    pixels = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        before, after = plain(pixels), network(pixels)
    same = (after - before).abs().max() < 1e-5 * before.abs().max()
    assert same == (kind == "nonlocal")  # which starts as the identity


def test_streams_and_gate_of_osnet_can_be_left_out():
    whole = backbone("osnet", width=0.25).eval()
    summed = backbone("osnet", width=0.25, gate=False).eval()
    missing, unexpected = summed.load_state_dict(whole.state_dict(), strict=False)
    assert not missing and unexpected and all(".gate." in key for key in unexpected)
    with torch.no_grad():
        for block in (block for stage in whole.stages for block in stage):
            # A gate that opens fully for everything is a plain sum.
            block.gate.excite.weight.zero_()
            block.gate.excite.bias.fill_(30.0)
        pixels = torch.randn(2, 3, 64, 32)
        assert torch.allclose(whole(pixels), summed(pixels), atol=1e-5)
    single = backbone("osnet", width=0.25, streams=1)
    assert all(len(block.streams) == len(block.streams[0]) == 1 for stage in single.stages for block in stage)
    assert single.eval()(pixels).shape == (2, 512)


def test_attention_costs_least_where_maps_are_small():
    network = backbone("osnet", width=0.25)
    costs = slot_costs(network, "nonlocal", 128, 64)
    assert list(costs) == ["stage1", "stage2", "stage3"]
    assert costs["stage1"]["share"] > 4 * costs["stage3"]["share"] > 0
    assert costs["stage3"]["parameters"] > costs["stage1"]["parameters"]
    assert not network.attention


def test_side_information_of_unknown_cameras_is_their_mean():
    torch.manual_seed(0)
    network = backbone("vit_small", size=(64, 32), cameras=3).eval()
    pixels = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        network.side *= 50
        by_camera = [network(pixels, torch.tensor([camera])) for camera in range(3)]
        unknown = network(pixels)
    assert not torch.allclose(by_camera[0], by_camera[1], atol=1e-3)
    assert not any(torch.allclose(unknown, known, atol=1e-3) for known in by_camera)


def test_weights_that_do_not_fit_are_named_and_change_nothing():
    case = PUBLISHED["osnet_x0_25"]
    tensors = filled(case["shapes"])
    del tensors["conv3.0.conv2b.1.bn.weight"]
    tensors["conv3.0.conv2e.conv1.weight"] = torch.zeros(1)
    tensors["fc.0.weight"] = torch.zeros(512, 64)
    network = backbone("osnet", width=0.25)
    before = network.stem.conv.weight.clone()
    with pytest.raises(WeightsError) as caught:
        load_weights(network, tensors, "torchreid/osnet")
    text = str(caught.value)
    assert "2 missing: stages.1.0.streams.1.1.norm.weight, neck.linear.weight" in text
    assert "conv3.0.conv2e.conv1.weight" in text
    assert "fc.0.weight is (512, 64) where neck.linear.weight is (512, 128)" in text
    assert torch.equal(network.stem.conv.weight, before)


def test_wrong_width_wrong_layout_and_wrong_names():
    tensors = filled(PUBLISHED["osnet_x0_25"]["shapes"])
    with pytest.raises(WeightsError, match="of another shape"):
        load_weights(backbone("osnet", width=0.5), tensors, "torchreid/osnet")
    with pytest.raises(WeightsError, match="unknown"):
        load_weights(backbone("osnet", width=0.25), tensors, "torchreid/resnet")
    with pytest.raises(WeightsError, match="no weight layout"):
        load_weights(backbone("osnet", width=0.25), tensors, "torchreid/ossnet")
    with pytest.raises(WeightsError, match="Did you mean osnet"):
        backbone("osnett")
    with pytest.raises(WeightsError, match="cannot be built"):
        backbone("osnet", widht=1)
    with pytest.raises(WeightsError, match="no slot"):
        backbone("osnet", width=0.25, attention={"stage9": "se"})
    with pytest.raises(WeightsError, match="no attention"):
        backbone("osnet", width=0.25, attention={"stage1": "sse"})


def test_checkpoints_are_unwrapped(tmp_path):
    case = PUBLISHED["osnet_x0_25"]
    tensors = filled(case["shapes"])
    wrapped = {"state_dict": {f"module.{key}": value for key, value in tensors.items()}, "epoch": 60}
    torch.save(wrapped, tmp_path / "model.pth.tar")
    torch.manual_seed(0)
    network = backbone("osnet", width=0.25)
    assert load_weights(network, tmp_path / "model.pth.tar", "torchreid/osnet")
    assert torch.equal(network.stem.conv.weight, tensors["conv1.conv.weight"])
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    for name in ("broken.pth", "absent.pth"):
        with pytest.raises(WeightsError):
            read_checkpoint(tmp_path / name)
