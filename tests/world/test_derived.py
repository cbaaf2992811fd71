"""The table of what follows from the body holds what finding it anew gives."""

from __future__ import annotations

import numpy as np
import pytest

from ipse.world import derived
from ipse.world.bake import find_derived


def test_table_holds_what_is_found_anew(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    with np.load(derived.TABLE) as data:
        kept = {name: data[name] for name in data.files}
    monkeypatch.setattr(derived, "TABLE", tmp_path / "none.npz")
    derived._table.cache_clear()
    try:
        found = find_derived()
    finally:
        derived._table.cache_clear()
    assert kept.keys() == found.keys()
    for name, value in kept.items():
        assert value.dtype == found[name].dtype and value.shape == found[name].shape, name
        if value.dtype.kind == "f":
            assert np.abs(value - found[name]).max() < 1e-5, name
        else:
            # Where two candidates are equally near, mathematics libraries may decide differently.
            assert (value != found[name]).mean() < 0.01, name
