"""Infinite-ID: the text is off in training, and two streams are mixed after it."""

import dataclasses
import warnings
from math import prod

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.attention import Handle, Where, attached  # noqa: E402
from ipse.diffusion.reference import Record  # noqa: E402
from ipse.errors import IpseError  # noqa: E402
from ipse.personalize import open_method  # noqa: E402
from ipse.personalize.adapting import Batch, Words  # noqa: E402
from ipse.personalize.infinite_id import DecouplingOptions, Mixed, adain_mean  # noqa: E402
from ipse.personalize.references import ReferenceWarning  # noqa: E402

PROMPT = "A portrait of {a young woman}, smiling."


@pytest.fixture(scope="module")
def method(base, trained):
    return open_method("infinite-id", base, adapter=trained("infinite-id") / "infinite-id.safetensors", steps=2)


@pytest.fixture(scope="module")
def ada(method, photographs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReferenceWarning)
        return method.fit(photographs[1])


@pytest.fixture(scope="module")
def batch(base, method, ada):
    torch.manual_seed(0)
    latents = [torch.randn(2, *base.latent) for _ in range(3)]
    ids = torch.zeros(2, 77, dtype=torch.long)
    words = Words(torch.randn(2, 77, 32), ids, [])
    (person,) = ada.people
    twice = {name: value.repeat(2, *(1,) * (value.ndim - 1)) for name, value in person.items()}
    known = torch.ones(2, dtype=torch.bool)
    steps = torch.tensor([100, 600])
    return Batch(*latents, steps, torch.tensor([0.9, 0.3]), latents[0], words, [twice], twice, known)


def with_other_words(batch):
    return dataclasses.replace(batch, words=dataclasses.replace(batch.words, text=-batch.words.text))


def test_training_does_not_see_the_text(method, batch):
    with torch.no_grad():
        off = method.predict(batch)
        torch.testing.assert_close(method.predict(with_other_words(batch)), off, rtol=0, atol=0)
        changed = dataclasses.replace(batch, people=[{k: -v for k, v in batch.people[0].items()}])
        assert not torch.allclose(method.predict(changed), off)
        told = method.of(method.network)
        told.options = DecouplingOptions(text=True)
        assert not torch.allclose(told.predict(with_other_words(batch)), told.predict(batch))


def test_only_the_mean_is_moved():
    own, other = torch.randn(2, 5, 3), 4 + 2 * torch.randn(2, 9, 3)
    moved = adain_mean(own, other)
    torch.testing.assert_close(moved.mean(1), other.mean(1))
    torch.testing.assert_close(moved.std(1), own.std(1))


class Spy(Handle):
    where = Where("self")

    def __init__(self):
        self.seen = {}

    def heads(self, call, query, key, value):
        self.seen[call.layer.name] = (prod(call.grid), key, value)
        return query, key, value


def test_the_second_stream_sees_both_and_is_aligned_to_the_first(base, batch):
    unet, text = base.pipeline.unet, batch.words.text
    record, own, both = Record(), Spy(), Spy()
    with torch.no_grad():
        with attached(unet, record):
            unet(batch.clean, 500, encoder_hidden_states=text)
        with attached(unet, own):
            unet(batch.noisy, 500, encoder_hidden_states=text)
        with attached(unet, Mixed(record), both):
            unet(batch.noisy, 500, encoder_hidden_states=text)
    first = next(iter(own.seen))
    for name, (pixels, key, value) in both.seen.items():
        attention = unet.get_submodule(name)
        for states, linear in ((key, attention.to_k), (value, attention.to_v)):
            assert states.shape[2] == 2 * pixels
            recorded = linear(record.states[0, name])
            torch.testing.assert_close(states[:, :, pixels:].transpose(1, 2).flatten(2), recorded)
            mine, theirs = states[:, :, :pixels], states[:, :, pixels:]
            torch.testing.assert_close(mine.mean(2), theirs.mean(2), atol=1e-5, rtol=1e-4)
    # Before anything was mixed, its own keys are what they were but for their mean.
    alone, mixed = own.seen[first][1], both.seen[first][1][:, :, : own.seen[first][0]]
    torch.testing.assert_close(mixed - mixed.mean(2, keepdim=True), alone - alone.mean(2, keepdim=True))


def test_less_and_less_of_a_person_leads_to_the_base(base, ada, method):
    (plain,) = base.generate("A portrait of a young woman, smiling.", 1, 3, 2)
    (little,), (much,) = (ada.generate(PROMPT, 1, 3, strength) for strength in (1e-7, 1.0))
    assert np.abs(little.image.astype(int) - plain.image).max() <= 1
    assert np.abs(much.image.astype(int) - plain.image).max() > 1
    only = method.of(method.network)
    only.mixing = False
    (added,) = only.fitted(ada.people, [[]]).generate(PROMPT, 1, 3, 1.0)
    assert not np.array_equal(added.image, much.image)


def test_it_does_not_paint_within_a_mask(untrained, batch_of):
    system = untrained("infinite-id")
    person = {name: value[:1] for name, value in batch_of(system).people[0].items()}
    picture, mask = np.zeros((128, 128, 3), np.uint8), np.ones((128, 128))
    with pytest.raises(IpseError, match="does not paint within a mask"):
        system.fitted([person], [["a"]]).inpaint(picture, mask, "A portrait of {a woman}.")
