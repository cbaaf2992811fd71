"""The last stage of the base, which learns to follow who is to be shown."""

import json
from dataclasses import asdict

import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from ipse.cli import main  # noqa: E402
from ipse.diffusion import load_base  # noqa: E402
from ipse.diffusion.training.assemble import assemble, unpack  # noqa: E402
from ipse.personalize.people import PeopleStage  # noqa: E402
from ipse.personalize.references import FaceReader  # noqa: E402
from ipse.personalize.training import AdapterRecipe, train_adapter  # noqa: E402

WEIGHTS = "weights/diffusion_pytorch_model.safetensors"


def test_the_network_learns_beside_an_adapter_that_is_not_kept(portraits, cache, recipe_of, tmp_path):
    runs = tmp_path / "runs"
    unpack("world", runs)
    recipe = recipe_of("face-adapter", options={"likeness": 0.1, "maps": 1.0})

    # A base of its own: the one that tests share stands still.
    record = train_adapter(recipe, load_base("world"), [portraits], runs / "people", cache=cache, stage=PeopleStage)
    assert FaceReader(load_base("world")).encoder.fingerprint in record["trained_with"]
    assert {"loss", "loss_nobody"} < record["figures"].keys()
    assert not list((runs / "people").glob("*.safetensors"))
    before, after = (load_file(runs / stage / WEIGHTS) for stage in ("denoiser", "people"))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)

    given = asdict(recipe)
    (tmp_path / "people.yaml").write_text(json.dumps({"system": given.pop("stage"), **given}))
    told = ["train", "base", "people", tmp_path / "people.yaml", "--base", "world", "--data", portraits]
    told += ["--out", tmp_path / "cut", "--cache", cache]
    for more in (["--minutes", 0], ["--resume"]):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in (*told, *more)])
        assert not end.value.code
    cut = load_file(tmp_path / "cut" / "people" / WEIGHTS)
    assert all(torch.equal(after[key], cut[key]) for key in after)

    assemble(runs, tmp_path / "base", joint="none")
    base = load_base(tmp_path / "base")
    assert all(torch.equal(value, after[key].half().float()) for key, value in base.pipeline.unet.state_dict().items())
    assert base.fingerprint != load_base("world").fingerprint
    assert unpack(tmp_path / "base", tmp_path / "again") == ["text", "vae", "denoiser", "people"]


def test_the_recipe_is_one_of_an_adapter(pytestconfig):
    recipe = AdapterRecipe.load(pytestconfig.rootpath / "recipes" / "base" / "people.yaml")
    assert recipe.stage == "face-adapter" and recipe.options["likeness"] and recipe.options["drop_person"]
