import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ipse.cli import main
from ipse.diffusion.adapters import Adapter, MlpProjection
from ipse.diffusion.attention import attached
from ipse.diffusion.layouts import BASES, LAYOUTS, _Sizes, base_of, convert, identify, inspect, load, save
from ipse.errors import WeightsError

# --- The keys and shapes that the projects publish, written down from their sources; sizes that a tiny base allows. ---


def attention_layers(unet):
    """(position, width, context or None, name) of every attention layer, as the projects work them out."""
    channels = unet.config.block_out_channels
    for position, name in enumerate(unet.attn_processors):
        if name.startswith("mid_block"):
            width = channels[-1]
        elif name.startswith("up_blocks"):
            width = channels[::-1][int(name[len("up_blocks.")])]
        else:
            width = channels[int(name[len("down_blocks.")])]
        cross = None if name.endswith("attn1.processor") else unet.config.cross_attention_dim
        yield position, width, cross, name


def cross_layers(unet, key, **extra):
    keys = {}
    for n, width, context, _ in attention_layers(unet):
        if context is not None:
            keys |= {key.format(n=n, x=x): (width, context) for x in "kv"}
            keys |= {other.format(n=n): (width, width) for other in extra.values()}
    return keys


def low_rank(unet, prefix, rank=3, named=False):
    keys = {}
    for n, width, context, name in attention_layers(unet):
        for x, inputs in (("q", width), ("k", context or width), ("v", context or width), ("out", width)):
            at = f"{prefix}.{name if named else n}.to_{x}_lora"
            keys |= {f"{at}.down.weight": (rank, inputs), f"{at}.up.weight": (width, rank)}
    return keys


def norm(key, size):
    return {f"{key}.weight": (size,), f"{key}.bias": (size,)}


def linear(key, inputs, outputs, bias=True):
    return {f"{key}.weight": (outputs, inputs)} | ({f"{key}.bias": (outputs,)} if bias else {})


def perceiver_attention(key, width, inner, features=None):
    features = features or width
    return (
        norm(f"{key}.norm1", features)
        | norm(f"{key}.norm2", width)
        | linear(f"{key}.to_q", width, inner, False)
        | linear(f"{key}.to_kv", features, 2 * inner, False)
        | linear(f"{key}.to_out", inner, width, False)
    )


def perceiver_layers(key, width, inner, depth):
    keys = {}
    for i in range(depth):
        keys |= perceiver_attention(f"{key}.layers.{i}.0", width, inner)
        keys |= norm(f"{key}.layers.{i}.1.0", width)
        keys |= linear(f"{key}.layers.{i}.1.1", width, 4 * width, False)
        keys |= linear(f"{key}.layers.{i}.1.3", 4 * width, width, False)
    return keys


def resampler(key, inputs, width, context, tokens, depth=4, inner=64):
    return (
        {f"{key}.latents": (1, tokens, width)}
        | linear(f"{key}.proj_in", inputs, width)
        | linear(f"{key}.proj_out", width, context)
        | norm(f"{key}.norm_out", context)
        | perceiver_layers(key, width, inner, depth)
    )


def face_plus(key, context, features=24, proj="proj", norm_name="norm", tokens=4, hidden=1024, inner=64):
    at = f"{key}.perceiver_resampler"
    return (
        linear(f"{key}.{proj}.0", 512, hidden)
        | linear(f"{key}.{proj}.2", hidden, tokens * context)
        | norm(f"{key}.{norm_name}", context)
        | linear(f"{at}.proj_in", features, context)
        | linear(f"{at}.proj_out", context, context)
        | norm(f"{at}.norm_out", context)
        | perceiver_layers(at, context, inner, 4)
    )


def fuse_module(key, width):
    keys = norm(f"{key}.layer_norm", width)
    for mlp, inputs in (("mlp1", 2 * width), ("mlp2", width)):
        keys |= norm(f"{key}.{mlp}.layernorm", inputs)
        keys |= linear(f"{key}.{mlp}.fc1", inputs, width) | linear(f"{key}.{mlp}.fc2", width, width)
    return keys


def leaky(key, inputs, first, second, outputs):
    keys = linear(f"{key}.0", inputs, first) | norm(f"{key}.1", first) | linear(f"{key}.3", first, second)
    return keys | norm(f"{key}.4", second) | linear(f"{key}.6", second, outputs)


def clip_vision(key, width=16, layers=2, projection=12):
    at = f"{key}.vision_model"
    keys = {
        f"{at}.embeddings.class_embedding": (width,),
        f"{at}.embeddings.patch_embedding.weight": (width, 3, 4, 4),
        f"{at}.embeddings.position_embedding.weight": (10, width),
    }
    keys |= norm(f"{at}.pre_layrnorm", width) | norm(f"{at}.post_layernorm", width)
    for i in range(layers):
        block = f"{at}.encoder.layers.{i}"
        keys |= norm(f"{block}.layer_norm1", width) | norm(f"{block}.layer_norm2", width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            keys |= linear(f"{block}.self_attn.{name}", width, width)
        keys |= linear(f"{block}.mlp.fc1", width, 20) | linear(f"{block}.mlp.fc2", 20, width)
    return keys | linear(f"{key}.visual_projection", width, projection, False)


def photomaker(unet):
    width = unet.config.cross_attention_dim
    return (
        clip_vision("id_encoder")
        | linear("id_encoder.visual_projection_2", 16, width - 12, False)
        | fuse_module("id_encoder.fuse_module", width)
        | low_rank(unet, "lora_weights.unet", named=True)
    )


def idformer(key, width=16, context=32):
    keys = {f"{key}.latents": (1, 6, width), f"{key}.proj_out": (width, context)}
    keys |= perceiver_layers(key, width, width, 10)
    for i in range(5):
        keys |= leaky(f"{key}.mapping_{i}", 20, 20, 20, width)
    return keys | leaky(f"{key}.id_embedding_mapping", 28, 24, 24, 5 * width)


def pulid(unet):
    context = unet.config.cross_attention_dim
    keys = leaky("id_adapter.body", 28, context * 5 // 4, context * 5 // 2, 5 * context)
    for i in range(5):
        keys |= leaky(f"id_adapter.mapping_{i}", 20, 20, 20, context)
        keys |= leaky(f"id_adapter.mapping_patch_{i}", 20, 20, 20, context)
    return keys | cross_layers(unet, "id_adapter_attn_layers.{n}.id_to_{x}.weight")


def pulid_flux(unet):
    keys = idformer("pulid_encoder")
    for i in range(20):
        keys |= perceiver_attention(f"pulid_ca.{i}", 24, 128, 32)
    return keys


IP = "ip_adapter.{n}.to_{x}_ip.weight"
PUBLISHED = {
    "ip-adapter": lambda u, c: linear("image_proj.proj", 20, 4 * c) | norm("image_proj.norm", c) | cross_layers(u, IP),
    "ip-adapter-plus": lambda u, c: resampler("image_proj", 24, 20, c, 16) | cross_layers(u, IP),
    "instantid": lambda u, c: resampler("image_proj", 512, 64, c, 16) | cross_layers(u, IP),
    "ip-adapter-faceid": lambda u, c: (
        linear("image_proj.proj.0", 512, 1024)
        | linear("image_proj.proj.2", 1024, 4 * c)
        | norm("image_proj.norm", c)
        | cross_layers(u, IP)
        | low_rank(u, "ip_adapter")
    ),
    "ip-adapter-faceid-plus": lambda u, c: face_plus("image_proj", c) | cross_layers(u, IP) | low_rank(u, "ip_adapter"),
    "ip-adapter-faceid-plusv2": lambda u, c: PUBLISHED["ip-adapter-faceid-plus"](u, c),
    "consistentid": lambda u, c: (
        face_plus("image_proj", c)
        | cross_layers(u, "adapter_modules.{n}.to_{x}_ip.weight")
        | low_rank(u, "adapter_modules")
        | resampler("FacialEncoder.visual_projection", 24, 12, c, 1, depth=8)
        | fuse_module("FacialEncoder.fuse_module", c)
    ),
    "photomaker": lambda u, c: photomaker(u),
    "photomaker-v2": lambda u, c: (
        photomaker(u)
        | face_plus(
            "id_encoder.qformer_perceiver", c, 16, proj="token_proj", norm_name="token_norm", tokens=2, hidden=2048,
            inner=128,
        )
    ),
    "pulid": lambda u, c: pulid(u),
    "pulid-v1.1": lambda u, c: (
        idformer("id_adapter", context=c) | cross_layers(u, "id_adapter_attn_layers.{n}.id_to_{x}.weight")
    ),
    "pulid-flux": lambda u, c: pulid_flux(u),
    "wplus": lambda u, c: (
        {f"w_proj.proj_{i}.weight": (c, vectors * 512) for i, vectors in enumerate((4, 4, 4, 6))}
        | norm("w_proj.norm", c)
        | cross_layers(u, "wplus_adapter.{n}.to_{x}_wplus.weight", query="wplus_adapter.{n}.to_q_wplus.weight")
    ),
    "masterweaver": lambda u, c: (
        resampler("id_encoder", 24, c, c, 16, depth=1)
        | perceiver_attention("id_encoder.final_attn", c, 64)
        | cross_layers(u, "adapter_modules.{n}.to_{x}_img.weight")
    ),
}  # fmt: skip
BOTH = ("ip-adapter", "ip-adapter-plus", "ip-adapter-faceid", "ip-adapter-faceid-plusv2", "consistentid")
SD15 = (*BOTH, "ip-adapter-faceid-plus", "wplus", "masterweaver")
SDXL = (*BOTH, "instantid", "photomaker", "photomaker-v2", "pulid", "pulid-v1.1")
FILES = [*(("sd15", name) for name in SD15), *(("sdxl", name) for name in SDXL)]


@pytest.fixture(scope="module")
def bases(tiny):
    return {name: tiny(name) for name in ("sd15", "sdxl", "world")}


@pytest.fixture(scope="module")
def plain(bases, predict):
    return {name: predict(unet) for name, unet in bases.items()}


def synthetic(layout, unet):
    maker = torch.Generator().manual_seed(0)
    keys = PUBLISHED[layout](unet, unet.config.cross_attention_dim)
    return {key: 0.1 * torch.randn(shape, generator=maker) for key, shape in keys.items()}


def file_name(layout):
    # Only the name tells version 2 of FaceID-plus from version 1.
    return {"ip-adapter-faceid-plusv2": "ip-adapter-faceid-plusv2_sd15"}.get(layout, "adapter")


def nested(tensors):
    groups = {}
    for key, tensor in tensors.items():
        group, _, rest = key.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    return groups


@pytest.mark.parametrize(("base", "layout"), FILES)
def test_published_layouts_load_with_every_key_and_are_written_back(base, layout, bases, plain, tmp_path, predict):
    unet = bases[base]
    tensors = synthetic(layout, unet)
    torch.save(nested(tensors), tmp_path / f"{file_name(layout)}.bin")
    adapter = load(tmp_path / f"{file_name(layout)}.bin", unet)
    assert adapter.layout == layout and len(adapter.state_dict()) == len(tensors)
    save(adapter, tmp_path / "again.safetensors", unet)
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys() and all(torch.equal(again[key], tensors[key]) for key in tensors)
    found = inspect(tmp_path / "again.safetensors")
    assert found.layout.name == layout and found.complete and found.used == len(tensors) and not found.left_out

    context = unet.config.cross_attention_dim
    tokens = None if layout.startswith("photomaker") else torch.randn(2, 4, context)
    with attached(unet, adapter.on(unet, tokens)):
        assert (predict(unet) - plain[base]).abs().max() > 1e-4
    takes_what_the_project_gives(adapter, context)


def takes_what_the_project_gives(adapter, context):
    layout, face, image = adapter.layout, torch.randn(2, 512), torch.randn(2, 7, 24)
    levels = [torch.randn(2, 9, 20) for _ in range(5)]
    given, tokens = {
        "ip-adapter": ((torch.randn(2, 20),), 4),
        "ip-adapter-plus": ((image,), 16),
        "instantid": ((face,), 16),
        "ip-adapter-faceid": ((face,), 4),
        "ip-adapter-faceid-plus": ((face, image), 4),
        "ip-adapter-faceid-plusv2": ((face, image), 4),
        "consistentid": ((face, image), 4),
        "pulid": ((torch.randn(2, 28), levels), 10),
        "pulid-v1.1": ((torch.randn(2, 28), levels), 6),
        "wplus": ((torch.randn(2, 18, 512),), 4),
        "masterweaver": ((image,), 16),
    }.get(layout, ((), 0))
    if tokens:
        assert adapter.tokens(*given).shape == (2, tokens, context)
    prompt, words = torch.randn(1, 6, context), torch.zeros(1, 6, dtype=torch.bool)
    words[0, 1:3] = True
    if layout == "consistentid":
        assert adapter.fusion(prompt, words, torch.randn(1, 2, 7, 24)).shape == prompt.shape
    if layout == "photomaker":
        assert adapter.fusion(prompt, words, torch.randn(1, 2, 3, 12, 12)).shape == prompt.shape
    if layout == "photomaker-v2":
        assert adapter.fusion(prompt, words, torch.randn(1, 1, 3, 12, 12), face[:1, None]).shape == prompt.shape
    if "faceid-plus" in layout:
        assert adapter.projection.shortcut == layout.endswith("v2")


def stock(kind, unet):
    """A stock pipeline around a network, for its `load_ip_adapter`."""
    shared = {"vae": None, "text_encoder": None, "tokenizer": None, "scheduler": None, "unet": unet}
    if kind is StableDiffusionXLPipeline:
        return kind(**shared, text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
    return kind(**shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


@pytest.mark.parametrize(
    ("base", "layout"), [("sdxl", "instantid"), ("sd15", "ip-adapter"), ("sdxl", "ip-adapter-plus")]
)
def test_stock_diffusers_gives_the_same(base, layout, tiny, tmp_path, predict):
    unet = tiny(base)
    tensors = synthetic(layout, unet)
    if layout == "ip-adapter-plus":  # diffusers counts heads of 64 channels, of which there must be one
        tensors |= {
            key: torch.randn(shape) * 0.1
            for key, shape in resampler("image_proj", 24, 64, unet.config.cross_attention_dim, 16).items()
        }
    save_file(tensors, tmp_path / "adapter.safetensors")
    adapter = load(tmp_path / "adapter.safetensors", unet)
    given = {"instantid": torch.randn(2, 1, 512), "ip-adapter": torch.randn(2, 20)}.get(layout, torch.randn(2, 7, 24))
    with attached(unet, adapter.on(unet, adapter.tokens(given), strength=0.8)):
        ours = predict(unet)

    pipe = stock(StableDiffusionXLPipeline if base == "sdxl" else StableDiffusionPipeline, unet)
    pipe.load_ip_adapter(nested(tensors), subfolder=None, weight_name=None, image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.8)
    embeds = [given[:, None]]
    pooled = torch.randn(2, 12, generator=torch.Generator().manual_seed(1))
    conditions = {"image_embeds": embeds}
    if base == "sdxl":
        maker = torch.Generator().manual_seed(1)
        torch.randn(2, 4, 8, 8, generator=maker), torch.randn(2, 6, 32, generator=maker)
        pooled = torch.randn(2, 12, generator=maker)
        conditions |= {"text_embeds": pooled, "time_ids": torch.ones(2, 6)}
    torch.testing.assert_close(predict(unet, added_cond_kwargs=conditions), ours, rtol=1e-4, atol=1e-5)


def test_bases_have_the_layers_of_the_published_files():
    for name, layers, context in (("sd15", 16, 768), ("sdxl", 70, 2048)):
        cross = {i: layer.width for i, layer in BASES[name].layers.items() if layer.cross}
        assert list(cross) == list(range(1, 2 * layers, 2)) and BASES[name].layers[1].context == context
    sd15 = {i: layer.width for i, layer in BASES["sd15"].layers.items()}
    assert [sd15[i] for i in (1, 5, 9, 13, 19, 25, 31)] == [320, 640, 1280, 1280, 640, 320, 1280]
    sdxl = {i: layer.width for i, layer in BASES["sdxl"].layers.items()}
    assert [sdxl[i] for i in (1, 7, 9, 47, 49, 107, 109, 119, 121, 139)] == [640] * 2 + [1280] * 4 + [640] * 2 + [
        1280
    ] * 2


def test_bases_name_their_layers_as_diffusers_does(bases):
    for name in ("sd15", "sdxl"):
        ours = [f"{layer.name}.processor" for layer in BASES[name].layers.values()]
        assert ours == list(bases[name].attn_processors)
        assert base_of(bases[name]).name == "unknown"


# Sizes of published files, where a file says nothing: (layout, base, key, shape).
FULL_SIZE = [
    ("ip-adapter", "sd15", "image_proj.proj.weight", (3072, 1024)),
    ("ip-adapter", "sdxl", "ip_adapter.139.to_k_ip.weight", (1280, 2048)),
    ("ip-adapter-plus", "sd15", "image_proj.layers.3.0.to_kv.weight", (1536, 768)),
    ("ip-adapter-plus", "sdxl", "image_proj.latents", (1, 16, 1280)),
    ("instantid", "sdxl", "image_proj.proj_in.weight", (1280, 512)),
    ("ip-adapter-faceid", "sd15", "image_proj.proj.0.weight", (1024, 512)),
    ("ip-adapter-faceid", "sd15", "ip_adapter.0.to_q_lora.down.weight", (128, 320)),
    ("ip-adapter-faceid-plusv2", "sdxl", "image_proj.perceiver_resampler.proj_in.weight", (2048, 1280)),
    ("consistentid", "sd15", "FacialEncoder.visual_projection.latents", (1, 1, 1024)),
    ("photomaker", "sdxl", "id_encoder.fuse_module.mlp1.fc1.weight", (2048, 4096)),
    ("photomaker", "sdxl", "id_encoder.vision_model.embeddings.position_embedding.weight", (257, 1024)),
    ("photomaker-v2", "sdxl", "id_encoder.qformer_perceiver.token_proj.2.weight", (4096, 2048)),
    ("pulid", "sdxl", "id_adapter.body.6.weight", (10240, 1024)),
    ("pulid-v1.1", "sdxl", "id_adapter.latents", (1, 32, 1024)),
    ("pulid-flux", "sdxl", "pulid_ca.19.to_kv.weight", (4096, 2048)),
    ("wplus", "sd15", "w_proj.proj_3.weight", (768, 3072)),
    ("masterweaver", "sd15", "id_encoder.final_attn.to_q.weight", (768, 768)),
]


@pytest.mark.parametrize(("layout", "base", "key", "shape"), FULL_SIZE)
def test_expected_sizes_are_the_published_ones(layout, base, key, shape):
    table, layers = LAYOUTS[layout], BASES[base]
    with torch.device("meta"):
        state = table.build(_Sizes({}), layers).state_dict()
    names = {index: layer.name for index, layer in layers.layers.items()}
    published = {table.published(ours, names): tuple(tensor.shape) for ours, tensor in state.items()}
    assert published[key] == shape


def test_flux_adapters_are_named_and_not_put_on_a_unet(bases, tmp_path):
    path = tmp_path / "pulid_flux.safetensors"
    save_file(synthetic("pulid-flux", bases["sdxl"]), path)
    found = inspect(path)
    assert (found.layout.name, found.base.title, found.complete) == ("pulid-flux", "FLUX", True)
    with pytest.raises(WeightsError, match="PuLID for FLUX for FLUX, and this network is an unknown base of 70"):
        load(path, bases["sdxl"])
    adapter = load(path)
    vector, levels = torch.randn(1, 28), [torch.randn(1, 9, 20) for _ in range(5)]
    assert adapter.blocks[19](adapter.tokens(vector, levels), torch.randn(1, 5, 24)).shape == (1, 5, 24)
    with pytest.raises(Exception, match="made for a FLUX transformer"):
        adapter.on(bases["sdxl"])


def test_arc2face_is_a_whole_unet_and_a_text_encoder(bases, tiny, tmp_path, predict):
    unet = tiny("sd15", seed=5)
    save_file(unet.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    loaded = load(tmp_path / "diffusion_pytorch_model.safetensors", bases["sd15"])
    assert torch.equal(predict(loaded), predict(unet)) and not torch.equal(predict(loaded), predict(bases["sd15"]))
    config = CLIPTextConfig(vocab_size=30, hidden_size=16, intermediate_size=20, num_hidden_layers=2,
                            num_attention_heads=1, max_position_embeddings=12)  # fmt: skip
    encoder = CLIPTextModel(config).eval()
    published = {f"text_model.{key}": tensor for key, tensor in encoder.state_dict().items()}
    torch.save(published | {"text_model.embeddings.position_ids": torch.arange(12)[None]}, tmp_path / "encoder.bin")
    found = inspect(tmp_path / "encoder.bin")
    assert found.layout.name == "arc2face-encoder" and found.complete
    assert found.left_out == ("text_model.embeddings.position_ids",)
    ids = torch.arange(12)[None]
    again = load(tmp_path / "encoder.bin")
    torch.testing.assert_close(again(ids).last_hidden_state, encoder(ids).last_hidden_state)


def test_missing_extra_and_misshapen_keys_are_named(bases, tmp_path):
    unet = bases["sd15"]
    tensors = synthetic("ip-adapter-faceid", unet)
    del tensors["ip_adapter.31.to_v_ip.weight"], tensors["image_proj.norm.bias"]
    tensors["ip_adapter.0.to_k_ip.weight"] = torch.zeros(8, 16)
    tensors["strange"] = torch.zeros(1)
    tensors["ip_adapter.1.to_k_ip.weight"] = torch.zeros(8, 17)
    save_file(tensors, tmp_path / "broken.safetensors")
    found = inspect(tmp_path / "broken.safetensors", unet)
    assert found.layout.name == "ip-adapter-faceid" and not found.complete
    assert sorted(found.missing) == ["image_proj.norm.bias", "ip_adapter.31.to_v_ip.weight"]
    assert sorted(found.extra) == ["ip_adapter.0.to_k_ip.weight", "strange"]
    assert found.shapes == (("ip_adapter.1.to_k_ip.weight", (8, 17), (8, 16)),)
    with pytest.raises(WeightsError) as error:
        load(tmp_path / "broken.safetensors", unet)
    shape = "ip_adapter.1.to_k_ip.weight is (8, 17) where (8, 16)"
    for part in ("2 missing: ", "image_proj.norm.bias", "2 extra: ", "strange", "1 of another shape: ", shape):
        assert part in str(error.value)


def test_a_missing_projection_is_missing_and_not_another_layout(bases, tmp_path):
    tensors = synthetic("ip-adapter-faceid-plus", bases["sd15"])
    gone = [key for key in tensors if key.startswith("image_proj.perceiver_resampler.proj_in")]
    for key in gone:
        del tensors[key]
    save_file(tensors, tmp_path / "adapter.safetensors")
    found = inspect(tmp_path / "adapter.safetensors", bases["sd15"])
    assert found.layout.name == "ip-adapter-faceid-plus" and sorted(found.missing) == sorted(gone)


def test_unreadable_files_and_wrong_bases_are_one_line(bases, tmp_path):
    good = tmp_path / "good.safetensors"
    save_file(synthetic("ip-adapter", bases["sdxl"]), good)
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(good.read_bytes()[:-100])
    empty = tmp_path / "empty.bin"
    torch.save({"epoch": 3}, empty)
    text = tmp_path / "text.bin"
    text.write_text("no weights")
    other = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(2)}, other)
    for path, message in (
        (tmp_path / "nothing.bin", "There is no adapter file"),
        (corrupt, "corrupt.safetensors cannot be read"),
        (text, "text.bin cannot be read"),
        (empty, "holds no tensors by name"),
        (other, "no adapter of a known layout; its keys begin with conv1, fc"),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            inspect(path)
        assert error.value.hint and "\n" not in str(error.value)
    with pytest.raises(
        WeightsError, match=r"IP-Adapter for an unknown base of 70 .* this network is an unknown base of 16"
    ):
        load(good, bases["sd15"])
    with pytest.raises(WeightsError, match="no adapter layout 'lora'"):
        load(good, layout="lora")
    with pytest.raises(WeightsError, match="has no layout yet"):
        save(Adapter({}), tmp_path / "a.bin")


def test_training_checkpoints_become_files_that_readers_know(bases, tmp_path):
    """Users of IP-Adapter cannot use what its training script saves (issues 166 and 436 there)."""
    unet = bases["sd15"]
    tensors = synthetic("ip-adapter-plus", unet)
    names = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}
    training = {
        ".".join((names[group], rest)): t for key, t in tensors.items() for group, _, rest in [key.partition(".")]
    }
    torch.save(training | {"unet.conv_in.weight": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    found = inspect(tmp_path / "pytorch_model.bin")
    assert found.layout.name == "ip-adapter-plus" and found.complete and found.left_out == ("unet.conv_in.weight",)
    convert(tmp_path / "pytorch_model.bin", tmp_path / "adapter.bin")
    written = torch.load(tmp_path / "adapter.bin")
    assert set(written) == {"image_proj", "ip_adapter"}
    assert torch.equal(written["ip_adapter"]["31.to_k_ip.weight"], tensors["ip_adapter.31.to_k_ip.weight"])
    # ConsistentID's writer and reader differ in a name, too.
    tensors = synthetic("consistentid", unet)
    torch.save(nested({key.replace("image_proj.", "image_proj_model."): t for key, t in tensors.items()}),
               tmp_path / "consistentid.bin")  # fmt: skip
    assert inspect(tmp_path / "consistentid.bin").complete


def test_adapters_change_layout_where_their_parts_agree(bases, tmp_path):
    unet = bases["sdxl"]
    save_file(synthetic("instantid", unet), tmp_path / "instantid.safetensors")
    written = convert(tmp_path / "instantid.safetensors", tmp_path / "plus.bin", to="ip-adapter-plus")
    assert written.layout.name == "ip-adapter-plus" and written.complete
    back = convert(tmp_path / "plus.bin", tmp_path / "back.safetensors", layout="ip-adapter-plus", to="instantid")
    assert back.complete
    before, after = load_file(tmp_path / "instantid.safetensors"), load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(after[key], before[key]) for key in before)
    with pytest.raises(WeightsError, match=r"layout wplus has no place for projection\.latents"):
        convert(tmp_path / "instantid.safetensors", tmp_path / "no.bin", to="wplus")
    with pytest.raises(WeightsError, match=r"no place for projection\.linear\.0\.weight"):
        save_file(synthetic("wplus", bases["sd15"]), tmp_path / "w.safetensors")
        convert(tmp_path / "w.safetensors", tmp_path / "no.bin", to="ip-adapter")


def test_the_encoder_travels_with_the_adapter(bases, tmp_path):
    unet = bases["world"]
    adapter = Adapter.new(unet, MlpProjection(512, 12), rank=2)
    adapter.encoder = ("face-world", "c" * 64)
    save(adapter, tmp_path / "mine.safetensors", unet, layout="ip-adapter-faceid")
    loaded = load(tmp_path / "mine.safetensors", unet)
    assert loaded.encoder == adapter.encoder and loaded.layout == "ip-adapter-faceid"
    assert loaded.state_dict().keys() == adapter.state_dict().keys()
    convert(tmp_path / "mine.safetensors", tmp_path / "again.safetensors")
    assert load(tmp_path / "again.safetensors", unet).encoder == adapter.encoder


def test_every_key_here_has_a_published_one():
    for layout in LAYOUTS.values():
        base = BASES[layout.bases[0]] if layout.bases[0] in BASES else BASES["sdxl"]
        names = {index: layer.name for index, layer in base.layers.items()}
        with torch.device("meta"):
            state = layout.build(_Sizes({}), base).state_dict()
        published = {layout.published(key, names): key for key in state}
        assert len(published) == len(state)
        numbers = {name: index for index, name in names.items()}
        assert all(layout.here(key, numbers) == ours for key, ours in published.items())
        assert identify({key: tuple(state[ours].shape) for key, ours in published.items()}).name == (
            layout.name.removesuffix("v2") if "plusv2" in layout.name else layout.name
        )


def test_the_command_inspects_and_converts(bases, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = synthetic("instantid", bases["sdxl"])
    torch.save(nested(tensors), "ip-adapter.bin")

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["adapter", *arguments])
        return stop.value.code, capsys.readouterr()

    code, printed = run("inspect", "ip-adapter.bin")
    assert code == 0 and "InstantID" in printed.out and "70 cross-attention layers" in printed.out
    assert f"all {len(tensors)} keys" in printed.out
    code, printed = run("inspect", "ip-adapter.bin", "--json")
    assert code == 0 and json.loads(printed.out)["layout"] == "instantid" and json.loads(printed.out)["complete"]
    code, _ = run("convert", "ip-adapter.bin", "adapter.safetensors")
    assert code == 0 and inspect("adapter.safetensors").complete
    tensors.pop("image_proj.latents")
    save_file(tensors | {"odd": torch.zeros(1)}, "broken.safetensors")
    code, printed = run("inspect", "broken.safetensors", "--layout", "instantid")
    assert code == 3 and "missing  image_proj.latents" in printed.out and "extra    odd" in printed.out
    code, printed = run("convert", "broken.safetensors", "no.bin", "--layout", "instantid")
    assert code == 2 and "does not fit the layout instantid" in printed.err and not (tmp_path / "no.bin").exists()
    code, _ = run("convert", "adapter.safetensors", "new/folder/adapter.bin")
    assert code == 0 and inspect("new/folder/adapter.bin").complete
    for wrong in ("adapter.safetensor", "new"):
        code, printed = run("convert", "adapter.safetensors", wrong)
        assert code == 2 and "has an ending that says nothing" in printed.err
    (tmp_path / "folder.bin").mkdir()
    code, printed = run("convert", "adapter.safetensors", "folder.bin")
    assert code == 2 and "Cannot write folder.bin" in printed.err
    # Views, and two names of the same numbers, are written as they read.
    torch.save(
        nested(
            {
                key: tensor.mT.contiguous().mT if tensor.ndim == 2 else tensor
                for key, tensor in synthetic("instantid", bases["sdxl"]).items()
            }
        ),
        "views.bin",
    )
    code, _ = run("convert", "views.bin", "views.safetensors")
    assert code == 0 and inspect("views.safetensors").complete
    save_file({}, "empty.safetensors")
    code, printed = run("inspect", "empty.safetensors")
    assert code == 2 and "holds no tensors by name" in printed.err
    code, printed = run("inspect", "nothing.bin")
    assert code == 2 and printed.err.startswith("ipse: There is no adapter file nothing.bin.")
