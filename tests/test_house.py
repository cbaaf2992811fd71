"""The house stands: rooms import only from floors below them, and the package carries what it should."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ipse"
FLOORS = [
    {"_files", "errors", "identity", "images", "catalogue"},
    {"measure", "zoo"},
    {"faces", "bodies", "encoders", "training"},
    {"gallery", "attributes", "world"},
    {"diffusion"},
    {"personalize", "edit", "video", "tryon", "avatar", "synth", "guard"},
    {"cli", "app"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(path):
    """The modules that a file imports, as absolute names."""
    package = ("ipse", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_every_room_has_a_floor():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert rooms - {"__init__", "__pycache__"} <= FLOOR.keys()


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_never_climb(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "ipse" and len(parts) > 1 and parts[1] in FLOOR:
            assert FLOOR[parts[1]] <= FLOOR[room], f"{room} imports {module} from a floor above"


def test_nothing_needs_torchvision_or_timm():
    for path in PACKAGE.rglob("*.py"):
        assert not {module.split(".")[0] for module in imported(path)} & {"torchvision", "timm"}, path
    assert "torchvision" not in (ROOT / "constraints.txt").read_text()


def test_every_dependency_has_a_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {d.split(">")[0].split("[")[0].replace("_", "-").lower() for d in wanted}
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert pinned[0] == "torch==2.13.0"
    assert names <= {line.split("==")[0].replace("_", "-").lower() for line in pinned}
