"""What follows from the body table alone but takes long to find, kept beside it: a first picture should come soon.

`python -m ipse.world.bake --derived` writes it; a test finds everything anew and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

TABLE = Path(__file__).parent / "data" / "derived.npz"

Arrays = dict[str, np.ndarray]
"""Arrays by name."""


@lru_cache(maxsize=1)
def _table() -> Arrays:
    if not TABLE.exists():
        return {}
    with np.load(TABLE) as data:
        return {name: data[name] for name in data.files}


def derived(name: str, find: Callable[[], Arrays]) -> Arrays:
    """The arrays called `name`: out of the table, or found by `find` where the table lacks them."""
    kept = {key.removeprefix(f"{name}/"): value for key, value in _table().items() if key.startswith(f"{name}/")}
    return kept or find()
