"""FaceChain-FACT: a gate before each layer, a rule that keeps it to the face, and references that become harder."""

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.attention import attached, layers_of  # noqa: E402
from ipse.diffusion.inpainting import inpaint  # noqa: E402
from ipse.errors import IpseError  # noqa: E402
from ipse.personalize.adapting import Conditions  # noqa: E402
from ipse.personalize.facechain_fact import FactOptions, fair  # noqa: E402


@pytest.fixture
def closed(untrained):
    return untrained("facechain-fact")


@pytest.fixture
def opened(closed):
    for layer in closed.network.layers.values():
        layer.alpha_attend.data.fill_(0.07)
        layer.alpha_feed.data.fill_(-0.04)
    return closed


def test_the_gate_is_closed_at_first(closed, batch_of):
    batch = batch_of(closed)
    with torch.no_grad():
        plain = closed.predict(batch, Conditions(batch.words.text))
        torch.testing.assert_close(closed.predict(batch), plain, rtol=0, atol=0)
        next(iter(closed.network.layers.values())).alpha_attend.fill_(0.5)
        assert not torch.allclose(closed.predict(batch), plain)


def test_a_short_training_can_open_the_gate(closed, batch_of):
    layer = next(iter(closed.network.layers.values()))
    pixels, face = torch.randn(3, 4, 16), closed.network.tokens(batch_of(closed).people[0]["local"])
    gains = []
    with torch.no_grad():
        # What 500 steps add up to at a mean rate of a quarter of a thousandth; and as far as it goes.
        for alpha in (0.125, 100.0):
            layer.alpha_attend.fill_(alpha)
            gains.append(float(layer(pixels, face, 1.0).norm()))
    assert gains[0] > 0.8 * gains[1]


def test_pixels_gain_from_the_face_before_they_look_at_the_text(opened, batch_of):
    batch = batch_of(opened)
    unet, text = opened.unet, batch.words.text
    layer = next(layer for layer in layers_of(unet) if layer.cross)
    attention, pixels = unet.get_submodule(layer.name), torch.randn(3, 64, layer.width)
    tokens = opened.network.tokens(batch.people[0]["local"])
    with torch.no_grad():
        gain = opened.network.layers[str(layer.index)](pixels, tokens, 1.0)
        wanted = attention(pixels + gain, encoder_hidden_states=text) + gain
        with attached(unet, *opened.condition(batch.people, batch.words, 1.0).handles):
            found = attention(pixels, encoder_hidden_states=text)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_each_place_of_the_face_counts_and_so_does_where_it_is(opened, batch_of):
    (person,) = batch_of(opened).people
    pixels, layer = torch.randn(3, 4, 16), next(iter(opened.network.layers.values()))
    with torch.no_grad():
        gains = []
        moved = person["local"].roll(5, 1)
        changed = person["local"].clone()
        changed[:, 3] += 1
        for local in (person["local"], moved, changed):
            gains.append(layer(pixels, opened.network.tokens(local), 1.0))
        assert not torch.allclose(gains[0], gains[1]) and not torch.allclose(gains[0], gains[2])
        twice = opened.network.tokens(person["local"].repeat(1, 2, 1))
        torch.testing.assert_close(twice.chunk(2, 1)[0], twice.chunk(2, 1)[1])
    with pytest.raises(IpseError, match="15 places here, and the adapter was trained on 16"):
        opened.network.tokens(person["local"][:, :15])


def test_fair_counts_what_is_added_outside_of_the_face():
    face = torch.zeros(1, 4, 4)
    face[:, 1:3, 1:3] = 1
    inside = face.flatten(1)[..., None] * torch.ones(1, 16, 3)
    assert fair([(inside, (4, 4))], face) == 0
    assert fair([(1 - inside, (4, 4))], face) == pytest.approx(12 / 16)
    assert fair([(torch.ones(1, 4, 3), (2, 2))], face) == pytest.approx(0.75)


def test_fair_is_trained_and_makes_the_adapter_leave_the_rest_alone(opened, batch_of):
    batch = batch_of(opened)
    opened.options = FactOptions(fair=0.0)
    without, told = opened.loss(batch)
    assert told["outside"] > 0 and without == opened.denoising_error(opened.predict(batch), batch)[0]
    opened.options = FactOptions(fair=1000.0)
    loss, told = opened.loss(batch)
    torch.testing.assert_close(loss, without + 1000 * told["outside"])
    optimizer = torch.optim.Adam(opened.network.parameters(), 0.01)
    first = told["outside"].detach()
    for _ in range(3):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss, told = opened.loss(batch)
    assert told["outside"] < 0.7 * first


def test_faces_are_dropped_and_shuffled_more_and_more_often(closed):
    closed.options = FactOptions(same=0.2, drop_person=0.1, curriculum=0.5)
    told = [closed.options_at(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert [options.same for options in told] == pytest.approx([1, 0.6, 0.2, 0.2])
    assert [options.drop_person for options in told] == pytest.approx([0, 0.05, 0.1, 0.1])
    closed.options = FactOptions(curriculum=0.0)
    assert closed.options_at(0.0).same == 0


def test_it_paints_within_a_mask(opened, batch_of):
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    mask = np.zeros((128, 128), np.float32)
    mask[32:96, 32:96] = 1
    opened.steps = 1
    ada = opened.fitted([{"local": batch_of(opened).people[0]["local"][:1]}], [["a"]])
    (painted,) = ada.inpaint(picture, mask, "A portrait of {a young woman}.")
    (plain,) = inpaint(opened.base, picture, mask, "A portrait of a young woman.", steps=1)
    (nobody,) = ada.inpaint(picture, mask, "A portrait of {a young woman}.", strength=0)
    assert np.array_equal(nobody.image, plain.image) and painted.more["photographs"] == [["a"]]
    assert np.array_equal(painted.image[mask == 0], picture[mask == 0])
    assert not np.array_equal(painted.image[mask == 1], plain.image[mask == 1])
