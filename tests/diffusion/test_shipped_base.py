"""The bases that come with ipse: they load, follow words, and are as small as is said."""

import numpy as np
import pytest

pytest.importorskip("diffusers")

from ipse.diffusion import load_base
from ipse.errors import WeightsError
from ipse.world import look, person, render, shot
from ipse.world.body import TABLE
from ipse.world.caption import captions
from ipse.zoo.shipped_files import SHIPPED


@pytest.fixture(scope="module")
def world():
    return load_base("world", device="cpu")


def test_it_is_small(world):
    assert world.kind == "world" and world.size == (128, 128) and world.latent == (8, 16, 16)
    assert world.record["bytes"] < 40e6
    # All that comes with ipse: weights, and the tables of the world.
    folders = [SHIPPED, TABLE.parent]
    assert sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()) < 60e6


@pytest.fixture(scope="module")
def bodies():
    return load_base("world-body", device="cpu")


def test_that_of_whole_bodies_is_smaller(bodies):
    assert bodies.kind == "world" and bodies.size == (128, 64) and bodies.latent == (8, 16, 8)
    assert bodies.record["bytes"] < 16e6
    who = person(7)
    for text in captions(who, look(0, who), shot(0), "person"):
        assert bodies.unknown_words(text) == []
    with pytest.raises(WeightsError, match="no joint encoder"):
        bodies.joint()


def test_colors_of_clothes_are_seen(bodies):
    def coat(color):
        prompt = f"A full-body picture of a man, wearing a {color} coat, standing, against a plain white background."
        pictures = [picture.image for picture in bodies.generate(prompt, n=3, seed=1, steps=8)]
        # The chest.
        return np.stack(pictures)[:, 32:56, 24:40].mean((0, 1, 2))

    red, blue = coat("red"), coat("blue")
    assert red[0] - red[2] > blue[0] - blue[2] + 40


def test_what_gave_a_loss_cannot_judge_it(world):
    from ipse.encoders import open_encoder
    from ipse.personalize import open_method

    assert open_method("bare", world).trained_with == (open_encoder("face-world").fingerprint,)


def test_it_knows_the_words_of_the_worlds_captions(world):
    who = person(7)
    for number in range(3):
        worn, taken = look(number, who), shot(number)
        for text in captions(who, worn, taken, "portrait"):
            assert world.unknown_words(text) == []


def test_its_encoder_of_pictures_finds_the_other_picture_of_somebody(world):
    import torch

    from ipse.diffusion.training.loop import pictures_of

    people = [person(number) for number in range(40, 52)]
    shots = [
        np.stack(
            [render(who, look(0, who), shot(n, fix={"occluder": None}), "portrait", size=128).image for who in people]
        )
        for n in range(2)
    ]
    encoder = world.pipeline.image_encoder.float()
    with torch.no_grad():
        first, second = (
            torch.nn.functional.normalize(encoder(pictures_of(torch.from_numpy(one)).float()).image_embeds)
            for one in shots
        )
    # By chance one of twelve is first.
    assert ((first @ second.T).argmax(1) == torch.arange(12)).float().mean() > 0.3


def test_its_half_of_texts_was_left_out(world):
    with pytest.raises(WeightsError, match="no joint encoder for texts"):
        world.joint()


def test_a_rendering_comes_back(world):
    who = person(7)
    picture = render(who, look(0, who), shot(0, fix={"occluder": None}), "portrait", size=128).image
    error = world.decode(world.encode(picture)).astype(float) - picture
    # Far from it is noise, at 10 dB, or a gray picture.
    assert 20 * np.log10(255 / np.sqrt((error**2).mean())) > 20


def test_colors_of_words_are_seen(world):
    def background(color):
        prompt = f"A portrait of a woman, against a plain {color} background."
        pictures = [picture.image for picture in world.generate(prompt, n=3, seed=1, steps=8)]
        # The upper corners.
        return np.stack(pictures)[:, :24, [*range(16), *range(112, 128)]].mean((0, 1, 2))

    red, blue = background("red"), background("blue")
    assert red[0] - red[2] > blue[0] - blue[2] + 40
