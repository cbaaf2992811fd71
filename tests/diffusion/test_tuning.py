import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ipse.diffusion.attention import Capture, Where, attached
from ipse.diffusion.tuning import (
    TEXT_TARGETS,
    Texts,
    Words,
    add_lora,
    denoising_loss,
    fit,
    load_lora,
    lora_off,
    pivotal,
    remove_lora,
    restored,
    save_lora,
    set_strength,
)
from ipse.errors import IpseError, WeightsError


@pytest.fixture
def encoder(tokenizer):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config).eval().requires_grad_(False)


@pytest.fixture
def scheduler():
    return DDIMScheduler(clip_sample=False, steps_offset=1)


def encoded(encoder, tokenizer, prompt):
    ids = tokenizer(prompt, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
    return encoder(ids).last_hidden_state


def some(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_new_words_begin_as_the_words_they_are_named_after(encoder, tokenizer):
    words = Words(encoder, tokenizer, {"<someone>": "man"})
    for prompt in ("photo of a <someone>", "<someone> with <someone>, red", "a cat"):
        plain = encoded(encoder, tokenizer, prompt.replace("<someone>", "man"))
        torch.testing.assert_close(words.encode(prompt)[0], plain[0])
    both = words.encode(["a <someone>", "a cat"])
    torch.testing.assert_close(both[1:], encoded(encoder, tokenizer, "a cat"))
    torch.testing.assert_close(words.encode("a <someone>", layer=-2).shape, both[:1].shape)
    before = len(tokenizer)
    words.vectors.data += some((12,))
    assert (words.encode("a <someone>") - both[0]).abs().max() > 1e-2
    assert torch.equal(encoded(encoder, tokenizer, "a cat"), both[1:]) and len(tokenizer) == before


def test_words_have_many_vectors_and_levels(encoder, tokenizer):
    words = Words(encoder, tokenizer, {"<a>": "man", "<b>": "cat"}, vectors=3, levels=2)
    assert words.vectors.shape == (2, 6, 12)
    out = words.encode(["<a> with <b>"])
    assert out.shape == (2, 1, 16, 12) and torch.equal(out[0], out[1])
    words.vectors.data[1, 3:] += some((12,))  # the second word of the second level
    changed = words.encode(["<a> with <b>"])
    assert torch.equal(changed[0], out[0])
    # bos, three of <a>, "with", three of <b>
    torch.testing.assert_close(changed[1, 0, :5], out[1, 0, :5])
    assert (changed[1, 0, 5:8] - out[1, 0, 5:8]).abs().amax(1).min() > 1e-4
    with pytest.raises(IpseError, match="stands beyond the 16 tokens"):
        words.encode("photo of a red cat with a hat and 123456 <a>")
    with pytest.raises(IpseError, match="nothing to begin as"):
        Words(encoder, tokenizer, {"<a>": " "})


def test_words_are_written_as_diffusers_reads_them(encoder, tokenizer, tmp_path):
    words = Words(encoder, tokenizer, {"<a>": "man"}, vectors=2)
    words.vectors.data += some((1, 2, 12))
    words.save(tmp_path / "words.safetensors")
    again = Words(encoder, tokenizer, {"<a>": "cat"}, vectors=2)
    again.read(tmp_path / "words.safetensors")
    assert torch.equal(again.vectors, words.vectors)
    assert torch.equal(load_file(tmp_path / "words.safetensors")["<a>"], words.vectors[0])
    with pytest.raises(WeightsError, match=r"the word '<b>' is not there; 1 vectors of 12 are wanted.*has <a>"):
        Words(encoder, tokenizer, {"<b>": "cat"}).read(tmp_path / "words.safetensors")
    with pytest.raises(WeightsError, match=r"'<a>' is \(2, 12\); 3 vectors"):
        Words(encoder, tokenizer, {"<a>": "cat"}, vectors=3).read(tmp_path / "words.safetensors")


def test_words_of_all_levels_travel(encoder, tokenizer, tmp_path):
    words = Words(encoder, tokenizer, {"<a>": "man", "<b>": "cat"}, vectors=3, levels=2)
    words.vectors.data += some((2, 6, 12))
    words.save(tmp_path / "new" / "words.safetensors")
    again = Words(encoder, tokenizer, {"<b>": "man", "<a>": "man"}, vectors=3, levels=2)
    again.read(tmp_path / "new" / "words.safetensors")
    assert torch.equal(again.vectors, words.vectors[:, [3, 4, 5, 0, 1, 2]])
    with pytest.raises(WeightsError, match=r"'<a>' is \(2, 3, 12\)"):
        Words(encoder, tokenizer, {"<a>": "cat"}, vectors=3, levels=3).read(tmp_path / "new" / "words.safetensors")


def test_layers_and_steps_have_texts_of_their_own(tiny, predict):
    unet = tiny("world")
    text, own = some((2, 6, 12)), some((1, 6, 12), 1)
    plain = predict(unet, encoder_hidden_states=text)
    with attached(unet, Texts([(Where(), own)])):
        everywhere = predict(unet, encoder_hidden_states=text)
    torch.testing.assert_close(everywhere, predict(unet, encoder_hidden_states=own.repeat(2, 1, 1)))
    with attached(unet, Texts([(Where(steps=range(1, 2)), own)], rows=slice(1, 2))):
        assert torch.equal(predict(unet, encoder_hidden_states=text, timestep=500), plain)
        late = predict(unet, encoder_hidden_states=text, timestep=400)
    now = predict(unet, encoder_hidden_states=text, timestep=400)
    torch.testing.assert_close(late[0], now[0])
    assert (late[1] - now[1]).abs().max() > 1e-4
    capture = Capture()
    texts = Texts([(Where(layers=("mid_block",)), own), (Where(layers=("mid_block", "up_blocks")), text.flip(0))])
    with attached(unet, texts, capture):
        mixed = predict(unet, encoder_hidden_states=text)
    assert not torch.allclose(mixed, plain) and not torch.allclose(mixed, everywhere)


def test_a_word_is_learned_and_nothing_else_changes(encoder, tokenizer, scheduler, tiny):
    unet = tiny("world")
    words = Words(encoder, tokenizer, {"<a>": "man"}, vectors=2)
    clean = some((2, 4, 8, 8))
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}

    def loss(generator):
        return denoising_loss(unet, scheduler, clean, words.encode(["a <a>"] * 2), torch.Generator().manual_seed(0))

    losses = fit(words.parameters(), loss, 12, rate=0.1)
    assert losses[-1] < losses[0]
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())
    with pytest.raises(IpseError, match="loss of step 0 is no number"):
        fit(words.parameters(), lambda generator: words.vectors.sum() * torch.nan, 2, rate=0.1)


def test_the_loss_is_that_of_the_scheduler(tiny, scheduler):
    unet = tiny("world")
    clean, text = some((3, 4, 8, 8)), some((3, 6, 12), 1)
    for kind in ("epsilon", "v_prediction"):
        scheduler.register_to_config(prediction_type=kind)
        value = denoising_loss(unet, scheduler, clean, text, torch.Generator().manual_seed(5))
        maker = torch.Generator().manual_seed(5)
        levels, noise = torch.randint(1000, (3,), generator=maker), torch.randn(clean.shape, generator=maker)
        x = scheduler.add_noise(clean, noise, levels)
        goal = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, levels)
        out = unet(x, levels, encoder_hidden_states=text).sample
        torch.testing.assert_close(value, (out - goal).square().mean())
        left = torch.zeros(16, 16)
        left[:, :8] = 1
        masked = denoising_loss(unet, scheduler, clean, text, torch.Generator().manual_seed(5), mask=left)
        torch.testing.assert_close(masked, (out - goal)[..., :4].square().mean())


def train_lora(unet, scheduler, name="default", seed=0, **options):
    parameters = add_lora(unet, 2, name=name, seed=seed, **options)
    clean, text = some((2, 4, 8, 8), seed), some((2, 6, 12), seed + 1)
    fixed = {"generator": None}

    def loss(generator):
        fixed["generator"] = torch.Generator().manual_seed(0)
        return denoising_loss(unet, scheduler, clean, text, fixed["generator"])

    return fit(parameters, loss, 6, rate=1e-2)


def test_low_rank_changes_are_switched_off_removed_and_merged(tiny, scheduler, predict):
    unet = tiny("world")
    plain, keys = predict(unet), set(unet.state_dict())
    losses = train_lora(unet, scheduler)
    assert losses[-1] < losses[0]
    tuned = predict(unet)
    assert (tuned - plain).abs().max() > 1e-3
    with lora_off(unet):
        assert torch.equal(predict(unet), plain)
    set_strength(unet, 0.0)
    torch.testing.assert_close(predict(unet), plain)
    set_strength(unet, 0.5)
    assert 0 < (predict(unet) - plain).norm() < (tuned - plain).norm()
    set_strength(unet, 1.0)
    assert torch.equal(predict(unet), tuned)
    # Attention handles work on tuned networks.
    capture = Capture()
    with attached(unet, capture):
        assert torch.equal(predict(unet), tuned)
    merged = tiny("world")
    train_lora(merged, scheduler)
    remove_lora(merged, merge=True)
    assert set(merged.state_dict()) == keys
    torch.testing.assert_close(predict(merged), tuned, rtol=1e-4, atol=1e-5)
    remove_lora(unet)
    assert set(unet.state_dict()) == keys and torch.equal(predict(unet), plain)
    with pytest.raises(IpseError, match="no low-rank change 'default'"):
        set_strength(unet, 1.0)


def test_low_rank_changes_travel_and_stock_pipelines_read_them(tiny, scheduler, encoder, tokenizer, tmp_path, predict):
    unet = tiny("world")
    train_lora(unet, scheduler)
    for parameter in add_lora(encoder, 2, targets=TEXT_TARGETS):
        parameter.data.add_(0.1)
    tuned, text = predict(unet), encoded(encoder, tokenizer, "a man")
    path = tmp_path / "pytorch_lora_weights.safetensors"
    save_lora({"unet": unet, "text_encoder": encoder}, path)
    remove_lora(encoder)
    other = tiny("world")
    load_lora({"unet": other, "text_encoder": encoder}, path, name="again")
    assert torch.equal(predict(other), tuned) and torch.equal(encoded(encoder, tokenizer, "a man"), text)
    with pytest.raises(IpseError, match="has a low-rank change 'again' already"):
        add_lora(other, 2, name="again")
    remove_lora(encoder)

    stock = tiny("world")
    pipe = StableDiffusionPipeline(
        vae=None, text_encoder=encoder, tokenizer=tokenizer, unet=stock, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(predict(stock), tuned, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded(pipe.text_encoder, tokenizer, "a man"), text, rtol=1e-4, atol=1e-5)
    # A second change finds its maps beneath the first.
    load_lora({"unet": other, "text_encoder": encoder}, path, name="second")
    assert (predict(other) - tuned).abs().max() > 1e-4
    with pytest.raises(WeightsError, match=r"is for another unet: .* of its .* maps do not fit"):
        load_lora({"unet": tiny("sd15"), "text_encoder": encoder}, path, name="third")
    with pytest.raises(WeightsError, match="is for another text_encoder"):
        load_lora({"unet": tiny("world")}, path)


def test_full_tuning_is_undone_to_the_bit(tiny, scheduler, predict):
    unet = tiny("world")
    plain = predict(unet)
    clean, text = some((1, 4, 8, 8)), some((1, 6, 12), 1)
    with restored(unet):
        unet.requires_grad_(True)
        fit(unet.parameters(), lambda g: denoising_loss(unet, scheduler, clean, text, g), 2, rate=1e-2)
        assert (predict(unet) - plain).abs().max() > 1e-3
    assert torch.equal(predict(unet), plain)


def test_pivotal_tuning_learns_the_word_first(tiny, scheduler, encoder, tokenizer, predict):
    unet = tiny("world")
    plain = predict(unet)
    words = Words(encoder, tokenizer, {"<a>": "man"})
    clean, seen = some((2, 4, 8, 8)), []

    def loss(generator):
        seen.append(words.vectors.detach().clone())
        text = words.encode(["a <a>"] * 2)
        return denoising_loss(unet, scheduler, clean, text, torch.Generator().manual_seed(0))

    losses = pivotal(words, unet, loss, word_steps=4, weight_steps=4, word_rate=0.1, weight_rate=1e-2, rank=2)
    assert losses[3] < losses[0] and losses[-1] < losses[4]
    assert not torch.equal(seen[0], seen[3]) and all(torch.equal(seen[4], later) for later in seen[5:])
    assert not torch.allclose(predict(unet), plain)
    remove_lora(unet)
    assert torch.equal(predict(unet), plain)


def test_low_rank_changes_that_are_not_whole_are_refused(tiny, tmp_path):
    unet, path = tiny("world"), tmp_path / "lora.safetensors"
    add_lora(unet, 2)
    save_lora({"unet": unet}, path)
    whole = load_file(path)
    first, other = [key for key in whole if key.endswith("lora_B.weight")][:2]
    foreign = {key.replace(".lora_A.weight", ".lora_down.weight"): tensor for key, tensor in whole.items()}
    without = {key: tensor for key, tensor in whole.items() if key != first}
    ranks = dict(whole)
    for half, axis in (("lora_A", 0), ("lora_B", 1)):
        key = other.replace("lora_B", half)
        ranks[key] = torch.cat([whole[key]] * 2, axis)
    fresh = tiny("world")
    for wrong in (foreign, without, ranks):
        save_file(wrong, path)
        with pytest.raises(WeightsError, match="is not one low-rank change"):
            load_lora({"unet": fresh}, path)
        assert fresh.state_dict().keys() == tiny("world").state_dict().keys()
    save_lora({"unet": unet}, path)
    with pytest.raises(IpseError, match="has a low-rank change 'default' already"):
        load_lora({"unet": unet}, path)


def test_off_within_off_stays_off_and_what_is_frozen_stays_frozen(tiny, scheduler, predict):
    unet = tiny("world")
    plain = predict(unet)
    train_lora(unet, scheduler)
    unet.requires_grad_(False)
    with lora_off(unet):
        with lora_off(unet):
            assert torch.equal(predict(unet), plain)
        assert torch.equal(predict(unet), plain)
    assert not torch.equal(predict(unet), plain)
    assert not any(parameter.requires_grad for parameter in unet.parameters())


def test_damaged_files_are_told(tmp_path, tiny):
    path = tmp_path / "lora.safetensors"
    save_file({"unet.a.lora_A.weight": torch.zeros(2)}, path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_lora({"unet": tiny("world")}, path)
