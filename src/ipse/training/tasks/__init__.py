"""What can be trained: one file per task."""

from __future__ import annotations

import importlib

from ipse.training.data import Chips
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import Task

_TASKS = {
    "identity": "IdentityTask",
    "attributes": "AttributesTask",
    "landmarks": "LandmarksTask",
    "proton": "ProtonTask",
    "starbucks": "StarbucksTask",
}


def make_task(recipe: TrainRecipe, chips: Chips) -> Task:
    """The task of a recipe, for the chips that it trains on."""
    module = importlib.import_module(f"{__name__}.{recipe.task}")
    return getattr(module, _TASKS[recipe.task])(recipe, chips)


__all__ = ["Task", "make_task"]
