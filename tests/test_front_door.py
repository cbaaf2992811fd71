import importlib
import subprocess
import sys

import pytest

import ipse

HEAVY = {"torch", "diffusers", "transformers", "ray", "gradio", "lancedb", "warp", "onnxruntime", "scipy", "matplotlib"}


def modules_after(code):
    """The top-level modules that a fresh Python has loaded after running the code."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join({{m.split('.')[0] for m in sys.modules}}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_importing_ipse_loads_nothing_else():
    assert not modules_after("import ipse") & (HEAVY | {"numpy", "PIL", "typer", "rich"})


def test_the_ground_floor_needs_only_numpy_and_pillow():
    loaded = modules_after("import ipse; ipse.Identity; ipse.read_image; ipse.catalogue.systems(); ipse.IpseError")
    assert {"numpy", "PIL"} <= loaded and not loaded & HEAVY


def test_the_command_line_starts_without_numpy():
    assert not modules_after("import ipse.cli; ipse.cli.get_command(ipse.cli.app)") & (HEAVY | {"numpy", "PIL"})


@pytest.mark.parametrize("name", ipse.__all__)
def test_every_name_at_the_door_is_there(name):
    assert getattr(ipse, name) is not None
    assert name in dir(ipse)


def test_rooms_open_by_attribute():
    assert ipse.images is importlib.import_module("ipse.images")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ipse.nothing  # noqa: B018
