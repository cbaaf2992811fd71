"""The benchmark of gait: its own figures, not its training."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gait
from ipse.training.recipe import TrainRecipe
from ipse.world.walks import Walks


def some_walks():
    """Three people in two Looks from two sides, and features by which clothes and sides are seen more than people."""
    places = [(who, day, side) for who in range(3) for day in range(2) for side in (0.0, 90.0)]
    people, looks, azimuths = (np.array(column) for column in zip(*places, strict=True))
    return Walks(np.zeros((12, 64, 88, 3), np.uint8), people, looks, azimuths)


def test_a_gallery_has_one_walk_of_each_person_from_elsewhere():
    walks = some_walks()
    right = np.eye(3)[walks.people]
    for (other_look, other_view), count in zip([(True, False), (False, True), (True, True)], (12, 12, 12), strict=True):
        found, people = gait.hits(right, walks, other_look, other_view)
        assert found.tolist() == [1.0] * count and np.bincount(people).tolist() == [4, 4, 4]
    # Persons 0 and 1 change places in the other Look: nobody but 2 is found there, all within the Look.
    swapped = np.where((walks.looks == 1) & (walks.people < 2), 1 - walks.people, walks.people)
    assert gait.hits(np.eye(3)[swapped], walks, True, False)[0].mean() == pytest.approx(1 / 3)
    assert gait.hits(np.eye(3)[swapped], walks, False, True)[0].mean() == 1


def test_a_still_walk_shows_its_first_silhouette_only():
    strips = np.random.default_rng(0).integers(0, 255, (2, 64, 3 * 44, 3), np.uint8)
    seen = gait.still(strips)
    assert seen.shape == strips.shape
    assert all(np.array_equal(seen[:, :, i * 44 : (i + 1) * 44], strips[:, :, :44]) for i in range(3))


def test_the_recipe_takes_strips_of_the_benchmark():
    recipe = TrainRecipe.load(gait.RECIPE)
    assert recipe.cut.size == (64, 44 * gait.FRAMES) and recipe.modality == "gait"
