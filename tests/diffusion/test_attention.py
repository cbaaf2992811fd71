import pytest
import torch

from ipse.diffusion.attention import (
    Capture,
    Edit,
    Handle,
    Regions,
    Where,
    align,
    attached,
    blended,
    fit_region,
    from_capture,
    from_rows,
    layers_of,
    places,
    scaled,
)
from ipse.errors import IpseError


def test_layers_have_the_numbers_of_published_adapters(tiny):
    cross = {layer.index: layer for layer in layers_of(tiny("sd15")) if layer.cross}
    assert list(cross) == list(range(1, 32, 2)) and all(layer.context == 16 for layer in cross.values())
    assert [layer.width for layer in cross.values()] == [8, 8, 16, 16, *[24] * 5, *[16] * 3, *[8] * 3, 24]
    assert cross[31].name.startswith("mid_block")
    cross = {layer.index: layer for layer in layers_of(tiny("sdxl")) if layer.cross}
    assert list(cross) == list(range(1, 140, 2))
    widths = {16: [*range(1, 8, 2), *range(109, 120, 2)], 24: [*range(9, 108, 2), *range(121, 140, 2)]}
    assert {w: [i for i, layer in cross.items() if layer.width == w] for w in widths} == widths


def test_what_is_off_changes_no_bit(unet, predict):
    plain = predict(unet)
    idle = Edit(scaled(torch.zeros(6)), Where("cross", steps=range(5, 9)))
    with attached(unet, idle, Handle()):
        # A handle that overrides nothing goes through the mechanism and still changes nothing.
        assert torch.equal(predict(unet), plain)
    processors = {type(processor).__name__ for processor in unet.attn_processors.values()}
    assert processors == {"AttnProcessor2_0"} and torch.equal(predict(unet), plain)
    assert not unet._forward_pre_hooks


def test_steps_are_counted_anew_where_noise_turns(unet, predict):
    capture = Capture(Where("cross"))
    with attached(unet, capture):
        for timestep in (751, 501, 251, 1, 667, 334, 1):
            predict(unet, timestep=timestep)
            # The same level twice is the same step: guidance may take two calls.
            predict(unet, timestep=timestep)
    assert {step for step, _ in capture.maps} == {0, 1, 2, 3}
    steps = []

    class Steps(Handle):
        def wants(self, call):
            steps.append(call.step)
            return False

    with attached(unet, Steps()):
        # The last two go the other way.
        for timestep in (751, 501, 251, 1, 667, 334, 1, 500, 800):
            predict(unet, timestep=timestep)
    assert steps[:: len(steps) // 9] == [0, 1, 2, 3, 0, 1, 2, 0, 1]


def test_equal_handles_in_two_blocks_leave_nothing(unet, predict):
    plain, left = predict(unet), torch.zeros(1, 8, 8)
    with attached(unet, Regions([[1]], left)):
        with attached(unet, Regions([[1]], left.clone())):
            predict(unet)
        predict(unet)
    assert torch.equal(predict(unet), plain)
    assert {type(processor).__name__ for processor in unet.attn_processors.values()} == {"AttnProcessor2_0"}


def test_regions_keep_half_precision():
    region = torch.rand(1, 8, 8).to(torch.bfloat16)
    assert (
        fit_region(region, (4, 4)).dtype == torch.bfloat16 and fit_region(region > 0.5, (4, 4)).dtype == torch.float32
    )


def test_a_text_mask_is_kept(tiny, predict):
    unet = tiny("sd15")
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    plain = predict(unet, encoder_attention_mask=mask)
    capture = Capture()
    with attached(unet, capture):
        assert torch.equal(predict(unet, encoder_attention_mask=mask), plain)
    assert all(weights[0, :, 2:].max() < 1e-6 for weights in capture.maps.values())
    assert not torch.equal(plain, predict(unet))


def test_capture_changes_no_bit_and_keeps_every_layer(unet, predict):
    plain = predict(unet)
    capture = Capture(Where(), heads=True)
    with attached(unet, capture):
        assert torch.equal(predict(unet), plain)
    layers = layers_of(unet)
    assert {name for _, name in capture.maps} == {layer.name for layer in layers}
    for layer in layers:
        weights = capture.maps[0, layer.name]
        assert weights.shape[-1] == (6 if layer.cross else weights.shape[-2])
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_captured_weights_are_those_that_are_used(tiny, predict):
    unet = tiny("world")
    plain = predict(unet)
    capture = Capture(Where(), heads=True)
    with attached(unet, capture):
        predict(unet)
    changed = 0.0
    for kind in ("cross", "self"):
        with attached(unet, Edit(from_capture(capture), Where(kind))):
            torch.testing.assert_close(predict(unet), plain, rtol=1e-4, atol=1e-5)
            # With another text or picture, the kept weights are not what the network would use.
            changed = max(changed, float((predict(unet, seed=2) - plain).abs().max()))
    assert changed > 1e-2
    with attached(unet, Edit(from_capture(Capture()))), pytest.raises(IpseError, match="Nothing was captured"):
        predict(unet)


def test_steps_are_distinct_timesteps_of_a_run(tiny, predict):
    unet = tiny("world")
    capture = Capture(Where("cross", steps=range(1, 3)))
    with attached(unet, capture):
        for timestep in (900, 900, 600, torch.tensor([300, 300]), 100):
            predict(unet, timestep=timestep)
        assert {step for step, _ in capture.maps} == {1, 2}
        capture.clear()
        for timestep in (900, 600):  # a second run begins where the first did
            predict(unet, timestep=timestep)
        assert {step for step, _ in capture.maps} == {1}


def test_layers_are_chosen_by_position_name_kind_and_size(tiny, predict):
    unet = tiny("sd15")

    def captured(where):
        capture = Capture(where)
        with attached(unet, capture):
            predict(unet)
        return {name for _, name in capture.maps}

    names = [layer.name for layer in layers_of(unet)]
    assert captured(Where("cross", layers=(1, 31))) == {names[1], names[31]}
    assert captured(Where(layers=("mid_block",))) == set(names[30:])
    small = captured(Where("self", pixels=4))
    low = ("down_blocks.2", "up_blocks.1", "mid_block")
    assert small == {name for name in names if name.endswith("attn1") and name.startswith(low)}


def test_nested_blocks_act_together_and_leave_in_any_order(tiny, predict):
    unet = tiny("world")
    plain = predict(unet)
    zero = Edit(scaled(torch.zeros(6)))
    with attached(unet, zero):
        alone = predict(unet)
        capture = Capture()
        with attached(unet, capture):
            assert torch.equal(predict(unet), alone)
        assert torch.equal(predict(unet), alone) and not torch.allclose(alone, plain)
        # It sees what the handles before it left.
        assert capture.maps and not any(weights.any() for weights in capture.maps.values())
    outer, inner = attached(unet, zero), attached(unet, Capture())
    outer.__enter__(), inner.__enter__()
    outer.__exit__(None, None, None)
    assert torch.equal(predict(unet), plain)
    inner.__exit__(None, None, None)
    assert type(unet.mid_block.attentions[0].transformer_blocks[0].attn2.processor).__name__ == "AttnProcessor2_0"


def test_foreign_processors_are_refused_only_where_they_are_covered(tiny, predict):
    unet = tiny("world")

    class Foreign:
        def __call__(self, attn, hidden_states, **_):
            return hidden_states

    attn = unet.mid_block.attentions[0].transformer_blocks[0].attn1
    attn.processor = Foreign()
    with (
        pytest.raises(IpseError, match=r"mid_block.*attn1 is run by Foreign.*unload_ip_adapter"),
        attached(unet, Capture(Where("self"))),
    ):
        pass
    with attached(unet, Capture()):
        predict(unet)


def test_one_row_takes_over_the_attention_of_another(tiny, predict):
    unet = tiny("world")
    same = torch.cat([torch.randn(1, 4, 8, 8)] * 2)
    texts = torch.randn(2, 6, 12)
    with attached(unet, Edit(from_rows(0, 1))):
        taken = predict(unet, sample=same, encoder_hidden_states=texts)
    half = Edit(blended(from_rows(0, 1), 0.0))
    with attached(unet, half):
        own = predict(unet, sample=same, encoder_hidden_states=texts)
    plain = predict(unet, sample=same, encoder_hidden_states=texts)
    torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(taken[0], plain[0], rtol=1e-4, atol=1e-5)
    assert (taken[1] - plain[1]).abs().max() > 1e-3


def test_one_row_takes_over_the_attention_to_swapped_tokens(tiny, predict):
    unet = tiny("world")
    swap = torch.eye(6)[[0, 2, 1, 3, 4, 5]]
    own, taken = Capture(heads=True), Capture(heads=True)
    first = Where("cross", layers=(1,))
    with attached(unet, own):
        predict(unet)
    with attached(unet, Edit(from_rows(0, 1, swap), first), taken):
        predict(unet)
    name = layers_of(unet)[1].name
    before, after = own.maps[0, name], taken.maps[0, name]
    assert torch.equal(after[0], before[0]) and torch.equal(after[1], before[0][..., [0, 2, 1, 3, 4, 5]])


def test_scaled_tokens_lose_their_share(tiny, predict):
    unet = tiny("world")
    capture = Capture()
    with attached(unet, Edit(scaled(torch.tensor([1.0, 1, 0, 1, 1, 2]))), capture):
        scaled_down = predict(unet)
    first = capture.maps[0, layers_of(unet)[1].name]
    capture.clear()
    with attached(unet, capture):
        plain = predict(unet)
    before = capture.maps[0, layers_of(unet)[1].name]
    torch.testing.assert_close(first, before * torch.tensor([1.0, 1, 0, 1, 1, 2]))
    assert (scaled_down - plain).abs().max() > 1e-3


def test_gradients_reach_the_latent_through_captured_attention(tiny, predict):
    unet = tiny("world")
    sample = torch.randn(1, 4, 8, 8, requires_grad=True)
    capture = Capture()
    with attached(unet, capture):
        predict(unet, grad=True, sample=sample, encoder_hidden_states=torch.randn(1, 6, 12))
    capture.average((8, 8))[:, 2].max().backward()
    assert sample.grad.abs().max() > 0


def test_regions_bind_tokens_to_their_place(unet, predict):
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    capture = Capture(Where("cross", pixels=64))
    regions = Regions([[2, 3]], left, rows=slice(1, 2))
    with attached(unet, regions, capture):
        predict(unet)
    maps = capture.average((8, 8), Where(pixels=64, layers=("down_blocks",)))
    # The columns at the border are between those of smaller feature maps.
    assert maps[1, 2:4, :, 7].max() < 1e-6 and maps[1, 2:4, :, 0].min() > 1e-2
    assert maps[0, 2:4, :, 7].min() > 1e-2
    with pytest.raises(IpseError, match="1 regions and tokens for 2"):
        Regions([[1], [2]], left)


def test_regions_keep_apart_in_self_attention(tiny, predict):
    unet = tiny("world")
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 1
    capture = Capture(Where("self", layers=(0,)))
    with attached(unet, Regions([[]], left, Where("self")), capture):
        predict(unet)
    (weights,) = capture.maps.values()
    inside = left.flatten().bool()
    assert weights[:, inside][:, :, ~inside].max() < 1e-6 and weights[:, ~inside][:, :, inside].max() < 1e-6


def test_regions_come_from_attention_itself(tiny, predict):
    unet = tiny("world")
    capture = Capture()
    with pytest.raises(IpseError, match="No attention was captured"):
        capture.average((8, 8))
    with attached(unet, capture):
        predict(unet)
    region = capture.region([2], (8, 8), threshold=0.5)
    maps = capture.average((8, 8))[:, 2]
    assert torch.equal(region, (maps > 0.5 * maps.amax((1, 2), keepdim=True)).float())
    flat = capture.region([2], (8, 8), threshold=1.0)
    assert not flat.any()


def test_regions_are_fitted_by_area():
    region = torch.zeros(2, 4, 4)
    region[0, 0, 0] = 1
    region[1] = 1
    fitted = fit_region(region, (2, 2))
    assert fitted[0].tolist() == [[0.25, 0.0], [0.0, 0.0]] and (fitted[1] == 1).all()


def test_words_are_found_in_prompts(tokenizer):
    assert places(tokenizer, "photo of a woman with a red hat", "woman") == [5]
    prompt = "photo of man, woman with hat"
    ids = tokenizer(prompt)["input_ids"]
    spelled = {
        word: [tokenizer.decode(ids[i]).strip() for i in places(tokenizer, prompt, word)]
        for word in ("man", "woman", "of", "with hat")
    }
    assert spelled == {"man": ["man"], "woman": ["woman"], "of": ["o", "f"], "with hat": ["with", "hat"]}
    assert places(tokenizer, "a cat and a CAT", "Cat") == places(tokenizer, "a cat and a cat", "cat")
    assert len(places(tokenizer, "a cat and a cat", "cat")) == 2
    for prompt, word in (("a woman", "man"), ("a cat", "hat"), ("a cat", ""), ("a cat", "<|endoftext|>")):
        with pytest.raises(IpseError, match="is not among"):
            places(tokenizer, prompt, word)


def test_prompts_are_aligned(tokenizer):
    mapping, shared = align(tokenizer, "a man with a hat", "a woman with a hat")
    assert torch.equal(mapping, torch.eye(16)) and shared.min() == 1
    mapping, shared = align(tokenizer, "photo with hat", "photo with red hat")
    added = places(tokenizer, "photo with red hat", "red")
    assert (shared == 0).nonzero().flatten().tolist() == added
    old, new = places(tokenizer, "photo with hat", "hat")[0], places(tokenizer, "photo with red hat", "hat")[0]
    assert mapping[old, new] == 1 and mapping[old].sum() == 1
    mapping, _ = align(tokenizer, "a cat", "a dog")  # one token becomes three
    assert mapping[2, 2:5].tolist() == pytest.approx([1 / 3] * 3)
