"""Pictures as trajectories: they lead back, another prompt leads elsewhere, files say what they are."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from ipse.diffusion.base import load_base  # noqa: E402
from ipse.diffusion.inversion import METHODS, Inversion, invert_picture, psnr  # noqa: E402
from ipse.errors import DataError, IpseError, WeightsError  # noqa: E402

PROMPT, OTHER = "A portrait of a young woman with red hair.", "A man in a hat."


@pytest.fixture(scope="module")
def base(base_folder):
    return load_base(base_folder, device="cpu")


@pytest.fixture(scope="module")
def picture():
    smooth = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return smooth.repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module", params=METHODS)
def inversion(request, base, picture):
    return invert_picture(base, picture, PROMPT, steps=6, method=request.param, seed=4)


def test_it_leads_back(base, picture, inversion):
    alone = base.decode(base.encode(picture))
    back = inversion.generate(base)
    (another,) = base.generate(PROMPT, steps=6, guidance=1.0)
    # The rounds come near, in a network of random weights; independent noise is tied to the picture whatever it says.
    nearer = psnr(back.image, alone) - psnr(another.image, alone)
    assert nearer > {"ddim": 3, "edit-friendly": 30}[inversion.made["method"]]
    assert (back.prompt, back.steps, back.guidance) == (PROMPT, 6, 1.0)
    assert inversion.levels.shape == (6, 4, 4, 4) and inversion.made["base"]["sha256"] == base.fingerprint
    # The noise comes first.
    clean = base.encode(picture)[0]
    assert (inversion.levels[-1] - clean).norm() < (inversion.levels[0] - clean).norm()


def test_another_prompt_changes_it_by_the_strength(base, picture, inversion):
    back = inversion.generate(base).image.astype(int)
    changes = [
        np.abs(inversion.generate(base, OTHER, guidance=7.0, strength=s).image - back).mean() for s in (0.2, 1.0)
    ]
    assert changes[1] > changes[0]
    told = base.provenance(inversion.generate(base, OTHER, strength=0.5))
    assert told["Description"] == OTHER and "it does not show a real scene as it was" in told["Source"]
    assert told["ipse"]["inversion"]["prompt"] == PROMPT and told["ipse"]["strength"] == 0.5
    assert told["ipse"]["scheduler"] == "DDIMScheduler" and json.dumps(told)
    with pytest.raises(IpseError, match="strength 0 is not"):
        inversion.generate(base, strength=0)


def test_files_hold_all_of_it(base, inversion, tmp_path):
    again = Inversion.load(inversion.save(tmp_path / "new" / "a.safetensors"))
    assert again.made == inversion.made
    np.testing.assert_array_equal(again.generate(base).image, inversion.generate(base).image)
    with pytest.raises(DataError, match="Cannot write"):
        inversion.save(tmp_path / "new" / "a.safetensors" / "b")


def test_another_base_is_refused(base, inversion):
    other = dataclasses.replace(inversion, made=inversion.made | {"base": {"name": "else", "sha256": "0" * 64}})
    with pytest.raises(WeightsError, match=r"the base else \(000000000000\), not with world-base .*--base"):
        other.generate(base)


def test_files_that_are_none(inversion, tmp_path):
    path = inversion.save(tmp_path / "a.safetensors")
    tensors, content = load_file(path), path.read_bytes()
    with pytest.raises(DataError, match="Cannot read"):
        Inversion.load(tmp_path / "nothing")
    save_file(tensors, path)
    with pytest.raises(DataError, match="no inverted picture"):
        Inversion.load(path)
    made = dict(inversion.made)
    for changes, told in (
        ({"steps": 7}, made),
        ({}, {"steps": 6}),
        ({"method": "magic"}, made),
    ):
        text = json.dumps(told | changes)
        save_file(tensors, path, metadata={"format": "ipse.inversion/1", "made": text})
        with pytest.raises(DataError, match=r"is damaged.*Invert the picture again"):
            Inversion.load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is damaged"):
        Inversion.load(path)


def test_what_cannot_be_inverted(base, picture):
    for options in ({"steps": 0}, {"seed": -1}, {"method": "magic"}):
        with pytest.raises(IpseError):
            invert_picture(base, picture, PROMPT, **options)
    with pytest.raises(IpseError, match="more steps"):
        invert_picture(base, picture, PROMPT, steps=1)
    with pytest.raises(IpseError, match="a square"):
        invert_picture(base, picture[:16], PROMPT)
