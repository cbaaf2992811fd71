"""FreeCure: the base's self-attention inside a mask, expressions by inversion, and not a weight changed."""

import json
import warnings

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.attention import Handle, Where, attached  # noqa: E402
from ipse.diffusion.reference import Record  # noqa: E402
from ipse.personalize import open_method  # noqa: E402
from ipse.personalize.freecure import FreeCure, asked_parts, without_expression  # noqa: E402
from ipse.personalize.references import ReferenceWarning  # noqa: E402


class Everywhere(FreeCure):
    """Takes the left half of every picture for what was asked for: a tiny base shows nobody."""

    def mask(self, picture, parts):
        mask = torch.zeros(picture.shape[:2])
        mask[:, : picture.shape[1] // 2] = 1
        return mask


@pytest.fixture(scope="module")
def over(base, trained):
    return open_method("face-adapter", base, adapter=trained("face-adapter") / "face-adapter.safetensors", steps=4)


@pytest.fixture(scope="module")
def fit(photographs):
    def fit(method):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReferenceWarning)
            return method.fit(photographs[1])

    return fit


def test_what_a_prompt_asks_for():
    assert asked_parts("A portrait of a woman with long red hair, wearing sunglasses and a red cap.") == [
        "hair", "glasses", "hat",
    ]  # fmt: skip
    assert asked_parts("A portrait of a man with a full beard in a blue shirt, hatless.") == ["beard", "top"]
    assert asked_parts("A woman with puckered lips.") == [] and asked_parts("A park.") == []
    assert without_expression("A close-up photo of a man, smiling, in front of a bookshelf.") == (
        "A close-up photo of a man, in front of a bookshelf."
    )
    assert without_expression("A portrait of a woman, smiling broadly.") == "A portrait of a woman."
    assert without_expression("A portrait of a smiling woman in a park.") == "A portrait of a woman in a park."
    assert without_expression("A man looking surprised, lit from the left.") == "A man, lit from the left."
    assert without_expression("A portrait of a woman.") is None


def test_the_mask_is_where_a_part_is(over, photographs):
    method = FreeCure(over.base, over=over)
    face = next(one for one in photographs[1] if method.mask(one, ["eyes"]) is not None)
    eyes, lips = (method.mask(face, [part]).nonzero().float().mean(0) for part in ("eyes", "lips"))
    assert eyes[0] < lips[0]
    assert method.mask(np.zeros((64, 64, 3), np.uint8), ["hair"]) is None


class Spy(Handle):
    where = Where("self")

    def __init__(self):
        self.weights = []

    def see(self, call, weights):
        self.weights.append(weights)


def test_the_base_is_seen_inside_the_mask_and_there_more_by_its_weight(base, over):
    unet, size = base.pipeline.unet, base.latent
    torch.manual_seed(0)
    own, other, text = torch.randn(1, *size), torch.randn(1, *size), torch.randn(1, 77, 32)
    mask = torch.zeros(size[1:])
    mask[:, : size[2] // 2] = 1
    method, record = FreeCure(base, over=over), Record()
    shares = {}
    with torch.no_grad():
        with attached(unet, record):
            unet(other, 500, encoder_hidden_states=text)
        for method.weight in (0.0, 2.0):
            spy = Spy()
            with attached(unet, method.aware(record, mask), spy):
                unet(own, 500, encoder_hidden_states=text)
            (first, *_) = spy.weights
            pixels = first.shape[2]
            side = round(pixels**0.5)
            outside = first[..., pixels:].unflatten(-1, (side, side))[..., side // 2 :]
            assert first.shape[3] == 2 * pixels and outside.max() < 1e-6
            shares[method.weight] = first[..., pixels:].sum(-1).mean()
    assert 0 < shares[0.0] < shares[2.0] < 1


def test_strength_0_is_the_base_and_no_weight_is_changed(base, over, fit):
    before = {key: value.clone() for key, value in over.network.state_dict().items()}
    fingerprint = base.fingerprint
    cured, plain = fit(Everywhere(base, over=over)), fit(over)
    prompt, text = "A portrait of {a woman} with red hair.", "A portrait of a woman with red hair."
    (nobody,), (off,) = base.generate(text, 1, 5, 4), cured.generate(prompt, 1, 5, 0.0)
    np.testing.assert_array_equal(off.image, nobody.image)
    (sick,), (healed,) = plain.generate(prompt, 1, 5), cured.generate(prompt, 1, 5)
    assert not np.array_equal(healed.image, sick.image)
    assert healed.more["parts"] == ["hair"] and healed.more["over"] == "face-adapter" and off.more["parts"] == []
    # Nothing to restore: the wrapped method's picture, to the bit.
    prompt = "A portrait of {a woman} in a park."
    np.testing.assert_array_equal(next(cured.generate(prompt, 1, 5)).image, next(plain.generate(prompt, 1, 5)).image)
    assert type(base)(base.name, base.kind, base.pipeline).fingerprint == fingerprint
    assert all(torch.equal(before[key], value) for key, value in over.network.state_dict().items())


def test_an_expression_comes_back_by_another_prompt(base, over, fit):
    method = FreeCure(base, over=over)
    (picture,) = fit(over).generate("A portrait of {a woman}, smiling.", 1, 5)
    (cured,) = fit(method).generate("A portrait of {a woman}, smiling.", 1, 5)
    assert cured.more["untold"] == "A portrait of a woman." and not np.array_equal(cured.image, picture.image)
    # The same prompt both ways and no guidance leads back to the picture; another prompt leads away from there.
    method.guidance, method.steps = 1.0, 40
    text = "A portrait of a woman, smiling."
    same, moved = (method.guide(picture.image, told, text).astype(int) for told in (text, "A man in a red hat."))
    kept = base.decode(base.encode(picture.image))
    assert np.abs(same - kept).mean() < 4 and np.abs(moved - kept).mean() > 1.2 * np.abs(same - kept).mean()


def test_it_wraps_the_method_of_an_adapter(base, trained):
    method = open_method("freecure", base, adapter=trained("face-adapter") / "face-adapter.safetensors", steps=3)
    assert method.over.name == "face-adapter" and method.over.steps == 3
    assert json.dumps(method.trained_with) == json.dumps(method.over.trained_with)
