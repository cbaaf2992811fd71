"""The last stage of the base, which learns to follow who is to be shown."""

import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from ipse.diffusion import load_base  # noqa: E402
from ipse.diffusion.training.assemble import assemble, unpack  # noqa: E402
from ipse.personalize.people import PeopleStage  # noqa: E402
from ipse.personalize.references import FaceReader  # noqa: E402
from ipse.personalize.training import train_adapter  # noqa: E402

WEIGHTS = "weights/diffusion_pytorch_model.safetensors"


def test_the_network_learns_beside_an_adapter_that_is_not_kept(portraits, cache, recipe_of, tmp_path):
    runs = tmp_path / "runs"
    unpack("world", runs)
    recipe = recipe_of("face-adapter", options={"likeness": 0.1, "maps": 1.0})

    def run(folder, **given):
        # A base of its own: the one that tests share stands still.
        return train_adapter(recipe, load_base("world"), [portraits], folder, cache=cache, stage=PeopleStage, **given)

    record = run(runs / "people")
    assert FaceReader(load_base("world")).encoder.fingerprint in record["trained_with"]
    assert {"loss", "loss_nobody"} < record["figures"].keys()
    assert not list((runs / "people").glob("*.safetensors"))
    before, after = (load_file(runs / stage / WEIGHTS) for stage in ("denoiser", "people"))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)

    assert run(tmp_path / "cut", minutes=0.0) == {}
    run(tmp_path / "cut", resume=True)
    whole, cut = after, load_file(tmp_path / "cut" / WEIGHTS)
    assert all(torch.equal(whole[key], cut[key]) for key in whole)

    assemble(runs, tmp_path / "base", joint="none")
    base = load_base(tmp_path / "base")
    assert all(torch.equal(value, after[key].half().float()) for key, value in base.pipeline.unet.state_dict().items())
    assert base.fingerprint != load_base("world").fingerprint
    assert unpack(tmp_path / "base", tmp_path / "again") == ["text", "vae", "denoiser", "people"]
