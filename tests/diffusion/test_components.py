"""The parts of the base: what the tokenizer knows, and that diffusers' classes fit each other."""

import json

import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from transformers import CLIPTokenizer  # noqa: E402

from ipse.diffusion.components import (  # noqa: E402
    TOKENS,
    make_denoiser,
    make_joint,
    make_scheduler,
    make_tokenizer,
    make_vae,
    parameters,
    vocabulary,
    words,
)
from ipse.world import caption, person  # noqa: E402
from ipse.world.parts import LABELS  # noqa: E402
from ipse.world.recipe import Recipe  # noqa: E402
from ipse.world.shot import FRAMINGS  # noqa: E402


def test_every_word_is_one_token():
    tokenizer = make_tokenizer()
    assert words() == tuple(sorted(set(words())))
    for word in words():
        assert tokenizer.tokenize(word) == [f"{word}</w>"]


def test_the_tokenizer_knows_every_word_of_captions():
    tokenizer = make_tokenizer()
    known = {f"{word}</w>" for word in words()} | {",</w>", ".</w>", "-</w>"}
    recipe = Recipe.from_dict({"framing": "portrait", "people": {"count": 1}})
    texts = [
        text
        for number in range(40)
        for framing in FRAMINGS
        for text in caption.captions(
            person(number),
            recipe.look(person(number), 0),
            recipe.shot(person(number), 0, number),
            framing,
            set(LABELS) if number % 2 else None,
            seed=number,
        )
    ]
    # What is seldom said is in the tables that captions are put together from.
    tables = (caption._ACTING, caption._HAVING, caption._GLASSES, caption._HATS, caption._BEARDS, caption._POSES)
    texts += [
        text for table in (*tables, caption._PLACES, caption._OCCLUDERS, caption._GARMENTS) for text in table.values()
    ]
    texts += [text for options in (*caption._SUBJECTS.values(), *caption._NOUNS.values()) for text in options]
    texts += [text for pronouns in caption._PRONOUNS.values() for text in pronouns]
    for text in texts:
        assert set(tokenizer.tokenize(text)) <= known, text
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) <= TOKENS


def test_any_other_text_falls_into_parts():
    tokenizer = make_tokenizer()
    ids = tokenizer("A wizard’s castle, 雪")["input_ids"]
    assert tokenizer.unk_token_id not in ids[1:-1]


def test_the_tokenizer_is_the_same_from_its_files(tmp_path):
    ours = make_tokenizer()
    ours.save_pretrained(tmp_path)
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    text = "A close-up photo of an elderly man, wearing a T-shirt."
    assert theirs(text)["input_ids"] == ours(text)["input_ids"]
    assert theirs.model_max_length == TOKENS and len(theirs) == len(vocabulary()[0])
    json.dumps(vocabulary()[0])


def test_the_parts_fit_each_other():
    joint, vae, unet = make_joint().eval(), make_vae().eval(), make_denoiser().eval()
    pictures = torch.zeros(1, 3, 128, 128)
    with torch.inference_mode():
        latents = vae.encode(pictures).latent_dist.mode()
        assert latents.shape == (1, 4, 16, 16) and vae.decode(latents).sample.shape == pictures.shape
        context = joint.text_model(torch.tensor([make_tokenizer()("A portrait.")["input_ids"]])).last_hidden_state
        assert unet(latents, 5, encoder_hidden_states=context).sample.shape == latents.shape
        assert joint.vision_model(pictures).pooler_output.shape == context[:, 0].shape
    # The limit is 40 MB in half precision.
    assert 2 * sum(map(parameters, (joint, vae, unet))) < 36e6
    assert 3e6 < parameters(unet) < 9e6


def test_the_last_step_has_no_signal():
    assert make_scheduler().alphas_cumprod[-1] == 0
