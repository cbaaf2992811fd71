"""People of the bench who are not the bench's, rendered once; and a judge that knows what was rendered."""

import hashlib
import json

import numpy as np
import pytest

from ipse.faces import HogDetector
from ipse.personalize import bench
from ipse.world.dataset import read_dataset

START, COUNT = 1, 3


class Knowing:
    """A judge that is never wrong about the world's pictures, and knows no others."""

    name, fingerprint = "knowing", "f" * 64
    attributes = ("expression", "glasses", "hat", "hair_color", "clothes_color")

    def __init__(self, facts):
        self._facts = facts

    def tell(self, pictures, faces):
        known = [self._facts.get(digest(picture), {}) for picture in pictures]
        return {name: self.truth(name, known) for name in self.attributes}, None

    def truth(self, name, facts):
        return np.array([known.get("top_color" if name == "clothes_color" else name, "") for known in facts], str)


def digest(picture):
    return hashlib.sha256(np.ascontiguousarray(picture)).hexdigest()


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Folder of the sets."""
    folder = tmp_path_factory.mktemp("bench")
    bench.prepare(folder, HogDetector(), people=COUNT, start=START, workers=1)
    return folder


@pytest.fixture(scope="session")
def chosen(rendered):
    """The people with one reference each."""
    return bench.prepare(rendered, HogDetector(), people=COUNT, start=START)


@pytest.fixture(scope="session")
def judge(rendered):
    data = read_dataset(rendered / f"world-{START}-{COUNT}")
    return Knowing({digest(r.pixels()): json.loads(r.truth["facts"]) for r in data.records(truth=True)})


PORTRAITS = """
framing: portrait
size: 128
people: {count: 8, start: 1}
looks: {count: 2, fix: {mask: null}}
shots: {count: 1, fix: {occluder: null}, ranges: {head.yaw: [-15, 15]}}
truth: [parts]
captions: 3
"""


@pytest.fixture(scope="session")
def portraits(tmp_path_factory):
    """A folder of pictures with captions: eight people on two days."""
    from ipse.world.dataset import write_dataset
    from ipse.world.recipe import Recipe

    folder = tmp_path_factory.mktemp("portraits")
    (folder / "recipe.yaml").write_text(PORTRAITS)
    write_dataset(Recipe.load(folder / "recipe.yaml"), folder / "data", workers=1)
    return folder / "data"


@pytest.fixture(scope="session")
def photographs(portraits):
    """By number, two photographs of a person."""
    shown = {}
    for one in read_dataset(portraits).records():
        shown.setdefault(one.person, []).append(one.pixels())
    return shown


def tiny_base(seed=0):
    """A base of the world, tiny, for pictures of 128 pixels."""
    import torch
    from transformers import CLIPVisionModelWithProjection

    from ipse.diffusion import Base
    from ipse.diffusion.components import make_denoiser, make_joint, make_vae
    from ipse.diffusion.training.denoiser import make_pipeline

    torch.manual_seed(seed)
    joint = make_joint(width=32, text_layers=1, image_layers=2, heads=2, patch=32, size=128, dim=16)
    image = CLIPVisionModelWithProjection(joint.config.vision_config)
    parts = make_vae(channels=(8, 8, 16, 16)), joint.text_model, make_denoiser(channels=(16, 32), heads=2, context=32)
    for network in (*parts, image):
        network.eval().requires_grad_(False)
    pipeline = make_pipeline(*parts, image_encoder=image)
    pipeline.set_progress_bar_config(disable=True)
    return Base("tiny", "world", pipeline)


@pytest.fixture(scope="session")
def base():
    return tiny_base()


@pytest.fixture(scope="session")
def other_base():
    return tiny_base(seed=1)


NETWORKS = {
    "face-adapter": {"tokens": 2, "hidden": 16},
    "image-adapter": {"tokens": 2, "width": 16, "depth": 1, "heads": 2},
    "instantid": {"tokens": 2, "width": 16, "depth": 1, "heads": 2},
    "photoverse": {"tokens": 2, "width": 16, "depth": 1, "heads": 2, "hidden": 16, "rank": 2},
    "consistentid": {"tokens": 2, "hidden": 16, "heads": 2, "width": 16, "rank": 2},
    "arc2face": {},
    "infinite-id": {"tokens": 2, "hidden": 16, "patch_tokens": 2, "width": 16, "depth": 1, "heads": 2},
    "id-aligner": {"tokens": 2, "hidden": 16},
    "storymaker": {"tokens": 2, "figure_tokens": 2, "hidden": 16, "width": 16, "depth": 1, "heads": 2, "rank": 2},
    "facechain-fact": {},
    "dp-adapter": {"tokens": 2, "text_tokens": 1, "hidden": 16},
    "masterweaver": {"tokens": 2, "heads": 2},
    "imagine-yourself": {"layers": [0], "rank": 2},
    "pose2id": {"tokens": 2, "place_tokens": 2, "width": 16, "depth": 1, "heads": 2},
}
"""Tiny options of each system that is trained."""

ENCODERS = {"pose2id": "body-world"}
"""Of those that do not read faces."""

LIKE = ("photoverse", "storymaker")
"""Trained with the loss on identity: one whose own it is, and one with a loss of its own kind beside it."""


@pytest.fixture
def untrained(base):
    """`untrained(system, **options)`: a method with a network that has not been trained."""
    import torch

    from ipse.personalize.adapting import Trained
    from ipse.personalize.contract import class_of

    def make(system, **options):
        torch.manual_seed(0)
        kind, sizes = class_of(system), {"vector": 256, "local": 128, "pooled": 16, "patches": 32}
        return kind(base, Trained(kind.build(base, sizes, **NETWORKS[system] | options), {"trained_with": []}))

    return make


@pytest.fixture
def batch_of(base):
    """`batch_of(method)`: three rows of a batch, of random numbers, with a face in the upper middle of each picture."""
    import torch

    from ipse.personalize.adapting import Batch, Words

    def features(rows):
        unit = torch.nn.functional.normalize(torch.randn(rows, 256))
        random = {"local": torch.randn(rows, 16, 128), "patches": torch.randn(rows, 17, 32)}
        random |= {"pose": torch.rand(rows, 17, 3)}
        random |= {"five": torch.rand(rows, 5, 2), "portrait": torch.randn(rows, 1, 3, 128, 128)}
        return {"vector": unit, "length": torch.full((rows,), 20.0), **random}

    def make(method, rows=3):
        torch.manual_seed(1)
        clean, noise = torch.randn(rows, *base.latent), torch.randn(rows, *base.latent)
        steps, scheduler = torch.linspace(100, 800, rows).long(), base.pipeline.scheduler
        tokenizer = base.pipeline.tokenizer
        prompt = ["A portrait of a young woman, smiling."] * rows
        ids = tokenizer(prompt, padding="max_length", return_tensors="pt")["input_ids"]
        subject = torch.zeros_like(ids, dtype=torch.bool)
        subject[:, 5:7] = True
        with torch.no_grad():
            words = Words(base.pipeline.text_encoder(ids).last_hidden_state, ids, [subject])
        face = torch.zeros(rows, 16, 16)
        face[:, 4:12, 4:12] = 1
        return Batch(
            clean,
            noise,
            scheduler.add_noise(clean, noise, steps),
            steps,
            scheduler.alphas_cumprod[steps],
            scheduler.get_velocity(clean, noise, steps),
            words,
            [{name: value for name, value in features(rows).items() if name in method.features}],
            {**features(rows), "face": face},
            torch.ones(rows, dtype=torch.bool),
        )

    return make


def adapter_recipe(system, **changes):
    from ipse.personalize.training import AdapterRecipe

    given = {"steps": 4, "batch": 4, "holdout": 0.3, "ema": 0.5, "look_every": 100, "save_every": 2}
    given |= {"network": NETWORKS[system], "optimizer": {"rate": 0.01, "warmup": 1}}
    given |= {"encoder": ENCODERS[system]} if system in ENCODERS else {}
    given |= {"options": {"likeness": 0.1}} if system in LIKE else {}
    return AdapterRecipe.from_dict({"system": system} | given | changes)


@pytest.fixture(scope="session")
def recipe_of():
    return adapter_recipe


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Folder of packs and features."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trained(base, portraits, cache, tmp_path_factory):
    """`trained(system)`: the folder of a finished run."""
    from ipse.personalize.training import train_adapter

    runs = {}

    def run(system):
        if system not in runs:
            runs[system] = tmp_path_factory.mktemp(system)
            train_adapter(adapter_recipe(system), base, [portraits], runs[system], cache=cache)
        return runs[system]

    return run
