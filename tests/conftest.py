import hashlib
import json
import signal
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save

# No deadline: how long an example takes is the machine's business. The same examples each time: a test that fails for
# one fails for all.
settings.register_profile("ipse", deadline=None, derandomize=True)
settings.load_profile("ipse")

# Where the tests are started in the background, Ctrl-C is ignored, and children inherit that; some tests need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def write_network(folder, name, graph, task, chip, outputs, cut, tensors=None, **more):
    """The four files of a made-up network, as `ipse.training.ship` writes them; gives the path of its ONNX file."""
    contract = {"format": "ipse.network/1", "name": name, "task": task, "modality": "face", "license": "none", **more}
    contract |= {"chip": asdict(chip), "network": {}, "outputs": outputs, "cut": cut}
    weights = save(tensors or {"nothing": np.zeros(1, np.float32)})
    contract["sha256"] = hashlib.sha256(weights).hexdigest()
    files = {"safetensors": weights, "safetensors.json": json.dumps(contract).encode(), "onnx": graph.to_bytes()}
    sums = {f"{name}.{part}": hashlib.sha256(content).hexdigest() for part, content in files.items()}
    record = {"format": "ipse.shipped/1", "name": name, "sha256": sums}
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in (files | {"json": json.dumps(record).encode()}).items():
        (folder / f"{name}.{part}").write_bytes(content)
    return folder / f"{name}.onnx"


@pytest.fixture(scope="session")
def made_up_network():
    return write_network


@pytest.fixture(scope="session")
def judge_file(tmp_path_factory):
    """The weights of a tiny judge of whole pictures, drawn by chance."""
    import torch

    from ipse.encoders.backbones import backbone
    from ipse.encoders.contract import ChipSpec
    from ipse.encoders.trained import save_network
    from ipse.training.tasks.attributes import AttributeNetwork, Target

    classes = {
        "hair_color": ["black", "brown", "auburn", "red"],
        "glasses": ["none", "worn"],
        "clothes_color": ["red", "blue"],
        "expression": ["neutral", "surprise"],
    }
    torch.manual_seed(0)
    shape = {"width": 0.125, "scale": 1, "dim": 8, "blocks": [1, 1, 1, 1], "size": [32, 32]}
    targets = [Target(name, classes=tuple(values)) for name, values in classes.items()]
    network = AttributeNetwork(backbone("mobilefacenet", **shape), targets)
    # What it has seen of how frequent glasses are must not decide.
    network.priors["glasses"].data = torch.tensor([50.0, 0.0])
    contract = {
        "name": "judge",
        "task": "attributes",
        "modality": "face",
        "license": "none",
        "chip": ChipSpec(32, 32, None, "rgb", (127.5,) * 3, (127.5,) * 3),
        "network": {"backbone": "mobilefacenet"} | shape,
        "outputs": {name: {"kind": "classes", "classes": values} for name, values in classes.items()},
        "cut": {"kind": "whole"},
    }
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    save_network(network, contract, path)
    return path


def stages_by_chance(folder, size, latent):
    """What the finished stages of a base leave, tiny, their weights drawn by chance."""
    import torch
    from transformers import CLIPTextModel

    from ipse.diffusion.components import make_denoiser, make_joint, make_vae
    from ipse.diffusion.training.assemble import STAGES

    torch.manual_seed(0)
    joint = make_joint(width=32, text_layers=1, image_layers=1, heads=2, patch=16, size=32, dim=16)
    vae = make_vae(channels=(8, 8, 16, 16), size=size)
    unet = make_denoiser(channels=(16, 32), heads=2, context=32, size=latent)
    text = CLIPTextModel(joint.config.text_config)
    for stage, network in zip(STAGES, (joint, text, vae, unet), strict=True):
        network.save_pretrained(folder / stage / "weights")
        (folder / stage / "record.json").write_text(json.dumps({"steps": 0}))
    return folder


@pytest.fixture(scope="session")
def base_runs(tmp_path_factory):
    """The stages of a base for pictures of 32 pixels."""
    return stages_by_chance(tmp_path_factory.mktemp("runs"), 32, 4)


@pytest.fixture(scope="session")
def base_folder(base_runs):
    """A base of them."""
    from ipse.diffusion.training.assemble import assemble

    assemble(base_runs, base_runs / "tiny")
    return base_runs / "tiny"


@pytest.fixture(scope="session")
def body_folder(tmp_path_factory):
    """A base for pictures that are 32 pixels high and 16 wide."""
    from ipse.diffusion.training.assemble import assemble

    runs = stages_by_chance(tmp_path_factory.mktemp("bodies"), (32, 16), (4, 2))
    assemble(runs, runs / "tiny")
    return runs / "tiny"
