import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from ipse.diffusion.adapters import (
    Adapter,
    CodeProjection,
    FaceResampler,
    FacialFusion,
    FinalResampler,
    Fuser,
    LevelsProjection,
    LevelsResampler,
    LinearProjection,
    MlpProjection,
    PhotoFusion,
    Resampler,
    face_prompt,
)
from ipse.diffusion.attention import Capture, Where, attached, layers_of, places
from ipse.errors import FingerprintMismatch, IpseError


@pytest.fixture
def adapter(unet):
    return make_adapter(unet)


def make_adapter(unet, **options):
    torch.manual_seed(3)
    adapter = Adapter.new(unet, MlpProjection(32, unet.config.cross_attention_dim), **options)
    for low_rank in (lora for layer in adapter.layers.values() for lora in layer.lora.values()):
        nn.init.normal_(low_rank.up.weight)
    return adapter.requires_grad_(False)


def people(count=1, size=32):
    return nn.functional.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(4)))


def test_projections_make_tokens():
    vector, features = torch.randn(2, 32), torch.randn(2, 7, 24)
    levels = [torch.randn(2, 9, 24) for _ in range(5)]
    for projection, given, tokens in (
        (LinearProjection(32, 16), (vector,), 4),
        (MlpProjection(32, 16, 6), (vector,), 6),
        (Resampler(24, 20, 16, tokens=9, heads=4), (features,), 9),
        (Resampler(32, 20, 16, tokens=9, heads=4), (vector,), 9),
        (FinalResampler(24, 16, 16, tokens=5, heads=4), (features,), 5),
        (FaceResampler(32, 24, 16, heads=4, shortcut=False), (vector, features), 4),
        (LevelsProjection(32, 24, 16), (vector, levels), 10),
        (LevelsResampler(32, 24, 20, 16, tokens=8, heads=4), (vector, levels), 8),
        (CodeProjection(24, 16), (torch.randn(2, 18, 24),), 4),
    ):
        out = projection(*given)
        assert out.shape == (2, tokens, 16), projection
        # Rows do not mix, and the input matters.
        first = projection(*([x[:1] for x in item] if isinstance(item, list) else item[:1] for item in given))
        torch.testing.assert_close(first, out[:1], rtol=1e-4, atol=1e-5)
        assert (out[0] - out[1]).abs().max() > 1e-4


def test_the_shortcut_of_version_two_adds_the_vector_alone():
    torch.manual_seed(0)
    projection = FaceResampler(32, 24, 16, heads=4, shortcut=True)
    vector, features = torch.randn(2, 32), torch.randn(2, 7, 24)
    torch.testing.assert_close(projection(vector, features, image_strength=0.0), projection.vector(vector))
    both = projection(vector, features)
    projection.shortcut = False
    torch.testing.assert_close(both, projection.vector(vector) + projection(vector, features))


def test_an_adapter_that_is_off_changes_no_bit(unet, adapter, predict):
    plain = predict(unet)
    tokens = adapter.tokens(people(2))
    late = Where(steps=range(5, 9))
    with attached(unet, adapter.on(unet, tokens, strength=0.0), adapter.on(unet, tokens, where=late)):
        assert torch.equal(predict(unet), plain)
    with attached(unet, adapter.on(unet, tokens)):
        assert (predict(unet) - plain).abs().max() > 1e-3
    assert torch.equal(predict(unet), plain)


def test_tokens_are_attended_beside_the_text(tiny, predict):
    """With keys and values as the text's own, tokens of the text add exactly what the text gave."""
    unet = tiny("world")
    adapter = make_adapter(unet)
    text = torch.randn(2, 6, 12)
    name = next(layer.name for layer in layers_of(unet) if layer.cross)
    found = []
    linear = unet.get_submodule(f"{name}.to_out.0")
    hook = linear.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    predict(unet, encoder_hidden_states=text)
    with attached(unet, adapter.on(unet, text, strength=0.5)):
        predict(unet, encoder_hidden_states=text)
    hook.remove()
    torch.testing.assert_close(found[1], 1.5 * found[0])


def test_strength_is_by_layer(tiny, predict):
    unet = tiny("world")
    adapter = make_adapter(unet)
    tokens = adapter.tokens(people(2))

    def run(strength):
        with attached(unet, adapter.on(unet, tokens, strength=strength)):
            return predict(unet)

    cross = [layer for layer in layers_of(unet) if layer.cross]
    torch.testing.assert_close(run(0.7), run({layer.index: 0.7 for layer in cross}))
    torch.testing.assert_close(run({"": 0.7}), run(0.7))
    # Layers that are not named are off; the first name that fits counts.
    assert torch.equal(run({"nowhere": 1.0}), predict(unet))
    assert torch.equal(run({"mid_block": 0.0, "mid": 1.0}), predict(unet))
    assert not torch.equal(run({"up_blocks": 1.0}), run({"down_blocks": 1.0}))


def test_several_people_act_in_their_own_regions(tiny, predict):
    unet = tiny("world")
    adapter = make_adapter(unet)
    one, other = adapter.tokens(people(2)).split(1)
    left, right = torch.zeros(2, 8, 8)
    left[:, :4], right[:, 4:] = 1, 1
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    found = []
    linear = unet.get_submodule(f"{name}.to_out.0")
    hook = linear.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0].unflatten(1, (8, 8))))
    predict(unet)
    for handles in (
        [adapter.on(unet, one, region=left), adapter.on(unet, other, region=right)],
        [adapter.on(unet, one)],
        [adapter.on(unet, other)],
    ):
        with attached(unet, *handles):
            predict(unet)
    hook.remove()
    plain, both, first, second = found
    torch.testing.assert_close(both[:, :, :4], first[:, :, :4])
    torch.testing.assert_close(both[:, :, 4:], second[:, :, 4:])
    assert (both - plain).abs().min() > 0


def test_negative_tokens_go_to_the_first_half(tiny, predict):
    unet = tiny("world")
    adapter = make_adapter(unet)
    tokens = adapter.tokens(people(1))
    nobody = adapter.tokens(torch.zeros(1, 32))
    same = {
        "sample": torch.randn(1, 4, 8, 8).repeat(4, 1, 1, 1),
        "encoder_hidden_states": torch.randn(1, 6, 12).repeat(4, 1, 1),
    }
    with attached(unet, adapter.on(unet, tokens, negative=nobody)):
        out = predict(unet, **same)
    torch.testing.assert_close(out[0], out[1])
    torch.testing.assert_close(out[2], out[3])
    assert (out[0] - out[2]).abs().max() > 1e-4
    with attached(unet, adapter.on(unet, adapter.tokens(people(3)))), pytest.raises(IpseError, match="runs 4 rows"):
        predict(unet, **same)


def test_the_low_rank_part_equals_changed_weights(tiny, predict):
    unet = tiny("world")
    adapter = make_adapter(unet, rank=2)
    with attached(unet, adapter.on(unet, lora=0.5)):
        handled = predict(unet)
    with attached(unet, adapter.on(unet, lora=0.0)):
        assert torch.equal(predict(unet), predict(unet))
    merged = tiny("world")
    for layer in layers_of(merged):
        attn = merged.get_submodule(layer.name)
        linears = {"q": attn.to_q, "k": attn.to_k, "v": attn.to_v, "out": attn.to_out[0]}
        for part, low_rank in adapter.layers[str(layer.index)].lora.items():
            linears[part].weight += 0.5 * low_rank.up.weight @ low_rank.down.weight
    torch.testing.assert_close(handled, predict(merged), rtol=1e-4, atol=1e-5)
    assert (handled - predict(unet)).abs().max() > 1e-2


def test_a_query_of_its_own_asks_what_the_text_gave(tiny, predict):
    unet = tiny("world")
    adapter = make_adapter(unet, query=True)
    layer = adapter.layers["1"]
    layer.to_q.weight.zero_()
    where = Where(layers=(1,))
    found = []
    linear = unet.get_submodule(f"{layers_of(unet)[1].name}.to_out.0")
    hook = linear.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    tokens = adapter.tokens(people(2))
    predict(unet)
    with attached(unet, adapter.on(unet, tokens, where=where)):
        predict(unet)
    hook.remove()
    # A query of zeros looks at all tokens alike.
    mean = layer.to_v(tokens).mean(1, keepdim=True)
    torch.testing.assert_close(found[1] - found[0], mean.expand_as(found[0]), rtol=1e-3, atol=1e-5)


def test_adapters_and_attention_control_act_together(unet, adapter, predict):
    capture = Capture()
    with attached(unet, adapter.on(unet, adapter.tokens(people(2)))):
        alone = predict(unet)
        with attached(unet, capture):
            assert torch.equal(predict(unet), alone)
    assert capture.maps


def test_adapters_train_while_the_base_stands_still(tiny, predict):
    unet = tiny("world")
    adapter = make_adapter(unet, rank=2).requires_grad_(True)
    with attached(unet, adapter.on(unet, adapter.tokens(people(2)))):
        predict(unet, grad=True).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert all(p.grad is None for p in unet.parameters())


def test_wrong_bases_and_tokens_are_refused(tiny):
    sd15, sdxl, world = tiny("sd15"), tiny("sdxl"), tiny("world")
    adapter = make_adapter(sdxl)
    for other in (sd15, world):
        with pytest.raises(IpseError, match=r"made for a network with 70 layers of 32 channels; this one has \d+ of 1"):
            adapter.on(other, adapter.tokens(people()))
    with pytest.raises(IpseError, match="tokens of 12 channels do not fit an adapter of 32"):
        adapter.on(sdxl, torch.randn(1, 4, 12))
    with pytest.raises(IpseError, match="has no identity tokens"):
        Adapter({}).tokens(people())


def test_an_adapter_knows_its_encoder():
    adapter = Adapter({})

    class Stub:
        name, fingerprint = "face", "a" * 64

    adapter.check_encoder(Stub)
    adapter.encoder = ("face", "a" * 64)
    adapter.check_encoder(Stub)
    adapter.encoder = ("other", "b" * 64)
    with pytest.raises(FingerprintMismatch, match=r"other.*face"):
        adapter.check_encoder(Stub)


def test_stock_pipelines_run_with_an_adapter(tiny, tokenizer):
    from diffusers import AutoencoderKL, DDIMScheduler

    torch.manual_seed(0)
    unet = tiny("world")
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4),
        text_encoder=make_text_encoder(tokenizer, 12),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    adapter = make_adapter(unet)
    tokens, nobody = adapter.tokens(people()), adapter.tokens(torch.zeros(1, 32))

    def picture(**options):
        return pipe(
            "a man", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np", **options
        ).images

    plain = picture(num_images_per_prompt=2)
    with attached(unet, adapter.on(unet, tokens, negative=nobody)):
        assert np.abs(picture(num_images_per_prompt=2) - plain).max() > 1e-4
    with attached(unet, adapter.on(unet, tokens)):
        picture(guidance_scale=1.0)
    assert np.array_equal(picture(num_images_per_prompt=2), plain)


def make_text_encoder(tokenizer, width):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval().requires_grad_(False)


def test_fused_words_change_and_others_do_not():
    fuser = Fuser(8)
    prompt, identity = torch.randn(2, 6, 8), torch.randn(2, 3, 8)
    words = torch.zeros(2, 6, dtype=torch.bool)
    words[0, 2:5] = words[1, 1] = True
    out = fuser(prompt, identity, words)
    assert torch.equal(out[~words], prompt[~words]) and (out[words] - prompt[words]).abs().min() > 0
    # The single word of the second row is fused with the first of its vectors.
    alone = fuser(prompt[1:], identity[1:, :1], words[1:])
    torch.testing.assert_close(alone, out[1:])
    words[0, :5] = True
    with pytest.raises(IpseError, match="5 places for an identity of 3"):
        fuser(prompt, identity, words)


def test_photographs_are_fused_into_the_class_word():
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, patch_size=8, image_size=16,
        projection_dim=6,
    )  # fmt: skip
    prompt, photos = torch.randn(1, 5, 16), torch.randn(1, 2, 3, 16, 16)
    words = torch.tensor([[False, True, True, False, False]])
    one = PhotoFusion(CLIPVisionModelWithProjection(config), 10)
    out = one(prompt, words, photos)
    assert torch.equal(out[~words], prompt[~words]) and (out[:, 1] - out[:, 2]).abs().max() > 0
    qformer = FaceResampler(32, 16, 16, tokens=2, hidden=128, heads=2, shortcut=True)
    two = PhotoFusion(CLIPVisionModelWithProjection(config), 10, qformer)
    words[:, 1:5] = True
    assert two(prompt, words, photos, torch.randn(1, 2, 32)).shape == prompt.shape
    with pytest.raises(IpseError, match="needs the face vectors"):
        two(prompt, words, photos)
    facial = FacialFusion(Resampler(24, 8, 16, tokens=1, heads=2), 16)
    changed = facial(prompt, torch.tensor([[True, True, False, False, False]]), torch.randn(1, 2, 7, 24))
    assert torch.equal(changed[:, 2:], prompt[:, 2:]) and not torch.equal(changed[:, :2], prompt[:, :2])


def test_a_face_takes_the_place_of_a_word(tokenizer):
    torch.manual_seed(0)
    encoder = make_text_encoder(tokenizer, 40)
    faces = people(2)
    prompts = face_prompt(encoder, tokenizer, faces)
    assert prompts.shape == (2, 16, 40)
    place = places(tokenizer, "photo of a id person", "id")[0]
    # CLIP reads from left to right: what stands before the face is alike, the rest is not.
    torch.testing.assert_close(prompts[0, :place], prompts[1, :place])
    assert (prompts[0, place:] - prompts[1, place:]).abs().amax(1).min() > 1e-5
    assert not encoder.get_input_embeddings()._forward_hooks
    with pytest.raises(IpseError, match="do not fit a text encoder of width 40"):
        face_prompt(encoder, tokenizer, torch.randn(1, 512))
