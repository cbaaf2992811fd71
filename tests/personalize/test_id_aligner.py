"""ID-Aligner: rewards reach what is trained by one late step, for adapters and low-rank weights alike."""

import dataclasses
import json
import warnings

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.trajectory import to_latent  # noqa: E402
from ipse.errors import IpseError, WeightsError  # noqa: E402
from ipse.personalize import open_method  # noqa: E402
from ipse.personalize.adapting import Batch, Words, begin_with, read_weights  # noqa: E402
from ipse.personalize.id_aligner import IDAlignerLoRA, RewardOptions, Taste, bent  # noqa: E402
from ipse.personalize.references import ReferenceWarning  # noqa: E402
from ipse.personalize.training import train_adapter  # noqa: E402

PROMPT = "A portrait of {a young woman}, smiling."


@pytest.fixture(scope="module")
def method(base, trained):
    found = open_method("id-aligner", base, adapter=trained("id-aligner") / "id-aligner.safetensors", steps=2)
    found.options = RewardOptions(steps=4, last=2, seen=2)
    return found


@pytest.fixture(scope="module")
def shown(method, photographs):
    """Pictures of two people, (2, 3, 128, 128) of 0 to 1."""
    pixels = np.stack([next(one for one in photographs[person] if method.reader.find(one)) for person in (1, 3)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def batch(base, method, shown):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReferenceWarning)
        pictures = (255 * shown).round().byte().permute(0, 2, 3, 1).numpy()
        seen = [method.reader.person([picture], method.features) for picture in pictures]
    person = {name: torch.cat([one[name] for one in seen]) for name in seen[0]}
    with torch.no_grad():
        clean = to_latent(base.pipeline.vae, 2 * shown - 1)
    noise, steps, scheduler = torch.randn_like(clean), torch.tensor([100, 700]), base.pipeline.scheduler
    words = Words(torch.randn(2, 77, 32), torch.zeros(2, 77, dtype=torch.long), [])
    return Batch(
        clean, noise, scheduler.add_noise(clean, noise, steps), steps, scheduler.alphas_cumprod[steps],
        scheduler.get_velocity(clean, noise, steps), words, [person], person, torch.ones(2, dtype=torch.bool),
    )  # fmt: skip


def test_the_reward_tells_people_apart_and_reaches_the_pixels(method, batch, shown):
    pixels = shown.clone().requires_grad_(True)
    own, found = method.unlike_made(pixels, batch.people[0]["vector"])
    swapped, _ = method.unlike_made(pixels, batch.people[0]["vector"].flip(0))
    assert found == 1 and own < 0.1 < swapped
    (gradient,) = torch.autograd.grad(swapped, pixels)
    middle, edge = gradient[..., 40:100, 40:90].abs().mean(), gradient[..., :10].abs().mean()
    assert middle > 10 * edge
    nothing, none = method.unlike_made(torch.zeros(1, 3, 128, 128), batch.people[0]["vector"][:1])
    assert nothing == 0 and none == 0


def test_one_late_step_has_gradients(method, batch):
    grads = []
    hook = method.unet.register_forward_pre_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    try:
        made = method.made(batch, torch.tensor([0, 1]))
    finally:
        hook.remove()
    assert 3 <= len(grads) <= 4 and grads[-1] and not any(grads[:-1])
    made.square().mean().backward()
    moved = [name for name, one in method.network.named_parameters() if one.grad is not None and one.grad.any()]
    method.network.zero_grad()
    assert any("to_k" in name for name in moved) and not any("taste" in name for name in moved)
    assert all(one.grad is None for one in method.base.pipeline.unet.parameters())


def test_the_taste_learns_from_pairs_and_not_from_its_reward(base, shown):
    torch.manual_seed(0)
    taste = Taste(base.pipeline.image_encoder, centered=True)
    optimizer = torch.optim.Adam([taste.weight], 1e-3)
    losses = []
    for _ in range(12):
        loss = taste.preference(shown, bent(shown))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(np.log(2)) and np.mean(losses[-3:]) < 0.5
    pixels = bent(shown).requires_grad_(True)
    taste.weight.grad = None
    taste.reward(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0 and taste.weight.grad is None


def test_the_loss_has_both_rewards_beside_the_error(method, batch):
    torch.manual_seed(0)
    with_rewards, parts = method.loss(batch)
    assert {"mse", "unlike_made", "faces", "liked", "preference"} <= parts.keys()
    error, _ = method.denoising_error(method.predict(batch), batch)
    told = 0.2 * parts["unlike_made"] - 0.001 * parts["liked"] + parts["preference"]
    torch.testing.assert_close(with_rewards, error + told)
    without = method.of(method.network)
    without.options = RewardOptions(identity=0, aesthetic=0)
    torch.testing.assert_close(without.loss(batch)[0], error)


def test_it_begins_with_a_trained_adapter(base, portraits, cache, trained, recipe_of, tmp_path):
    start = trained("face-adapter") / "face-adapter.safetensors"
    recipe = recipe_of("id-aligner", start=str(start), steps=1, optimizer={"rate": 1e-9}, ema=0.0)
    train_adapter(recipe, base, [portraits], tmp_path, cache=cache)
    before, digest = read_weights(start)
    after, _ = read_weights(tmp_path / "id-aligner.safetensors")
    assert set(after) - set(before) == {"taste.weight"}
    assert all(torch.allclose(before[key], after[key], atol=1e-3) for key in before)
    assert json.loads((tmp_path / "record.json").read_text())["recipe"]["inputs"]["start"] == digest
    wrong = dict(before) | {"other": torch.zeros(1)}
    with pytest.raises(WeightsError, match="has other and 0 more"):
        begin_with(open_method("face-adapter", base, adapter=start).network, wrong)
    with pytest.raises(WeightsError, match="no adapter"):
        read_weights(tmp_path / "nothing.safetensors")


def test_low_rank_weights_are_tuned_beside_the_base(base, photographs, monkeypatch):
    monkeypatch.setattr(IDAlignerLoRA, "tuning", 3)
    monkeypatch.setattr(IDAlignerLoRA, "options", RewardOptions(steps=2, last=1, seen=1))
    fingerprint, method = base.fingerprint, IDAlignerLoRA(base, steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReferenceWarning)
        ada, again, ben = (method.fit(photographs[person]) for person in (1, 1, 3))
    changes = [layer.lora["q"].up.weight for layer in ada.method.network.layers.values()]
    assert all(change.abs().max() > 0 for change in changes)
    (plain,) = base.generate("A portrait of a young woman, smiling.", 1, 7, 2)
    (off,), (on,), (same,), (other,) = (
        one.generate(PROMPT, 1, 7, strength) for one, strength in ((ada, 0.0), (ada, 1.0), (again, 1.0), (ben, 1.0))
    )
    np.testing.assert_array_equal(off.image, plain.image)
    np.testing.assert_array_equal(on.image, same.image)
    assert not np.array_equal(on.image, plain.image) and not np.array_equal(on.image, other.image)
    assert type(base)(base.name, base.kind, base.pipeline).fingerprint == fingerprint
    with pytest.raises(IpseError, match="shows one person"):
        method.fit(photographs[1], photographs[3])
    assert dataclasses.asdict(method.options)["identity"] == 0.2
