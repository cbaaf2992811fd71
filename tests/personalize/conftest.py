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
