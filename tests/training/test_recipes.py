"""The recipes that come with ipse: complete, small, and built as they say."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.training.augment import Augmentation, Geometry  # noqa: E402
from ipse.training.losses import SumOfLosses  # noqa: E402
from ipse.training.recipe import TrainRecipe  # noqa: E402
from ipse.training.tasks.attributes import Target  # noqa: E402
from ipse.training.tasks.landmarks import MIRROR, LandmarkNetwork, five_of  # noqa: E402

FOLDER = Path(__file__).parents[2] / "recipes" / "encoders"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_the_recipes_are_there():
    whole, parts = ["attributes", "body", "face", "gait", "landmarks"], ["attributes-start", "face-start"]
    assert sorted([f"{name}-world" for name in whole] + parts + ["face-robust", "market1501"]) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_every_part_of_a_recipe_can_be_built(name):
    recipe = TrainRecipe.load(FOLDER / f"{name}.yaml")
    assert recipe.name == name and recipe.data.source
    options = dict(recipe.network)
    network = LandmarkNetwork(**options) if recipe.task == "landmarks" else backbone(options.pop("backbone"), **options)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, *recipe.cut.size))
    # In half precision, as weights are shipped; those of Market-1501 are not.
    assert name == "market1501" or sum(p.numel() for p in network.parameters()) * 2 <= 4e6
    torch.manual_seed(0)
    pictures, maps = Augmentation(recipe.augment)(torch.rand(4, 3, *recipe.cut.size))
    assert pictures.shape == (4, 3, *recipe.cut.size) and maps.shape == (4, 2, 3)
    assert pictures.min() >= 0 and pictures.max() <= 1
    if recipe.task == "identity":
        losses = SumOfLosses(recipe.losses, network.dim, 50, torch.randn(50, 3))
        loss, _ = losses(torch.randn(8, network.dim), torch.arange(8) // 2, torch.randn(8, network.dim))
        assert torch.isfinite(loss)
    assert all(Target.from_recipe(target, plan).width >= 2 for target, plan in recipe.targets.items())


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others():
    plan = TrainRecipe.load(FOLDER / "face-world.yaml").augment
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    out = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        out.append(Augmentation(plan)(pictures)[0])
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])


@pytest.mark.parametrize("options", [{"flip": 1.0}, {"turn": 30.0}, {"scale": 0.3}, {"shift": 0.2}], ids=str)
def test_points_move_with_the_pixels(options):
    torch.manual_seed(2)
    pictures = torch.zeros(5, 1, 60, 40)
    pictures[:, :, 29:32, 14:17] = 1.0  # around (15, 30)
    geometry = Geometry(**options)
    maps = geometry.draw(5, 60, 40)
    moved = geometry.move_pictures(pictures, maps)
    points = geometry.move_points(torch.tensor([[[15.0, 30.0]]]).expand(5, 1, 2), maps)[:, 0]
    assert (points - torch.tensor([15.0, 30.0])).norm(dim=1).max() > 1
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(40.0), indexing="ij")
    for picture, point in zip(moved[:, 0], points, strict=True):
        middle = torch.stack([(picture * x).sum(), (picture * y).sum()]) / picture.sum()
        assert (middle - point).norm() < 0.2
    assert geometry.mirrored(maps).all() == ("flip" in options)


def test_mirrored_landmarks_keep_their_names():
    assert (MIRROR[MIRROR] == list(range(70))).all()
    import numpy as np

    points = np.random.default_rng(0).normal(size=(70, 2))
    five, mirrored = five_of(points), five_of((points * (-1, 1))[MIRROR])
    assert np.allclose(mirrored[[1, 0, 2, 4, 3]] * (-1, 1), five)
