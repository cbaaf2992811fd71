"""Published adapters, tiny and synthetic, in pipelines of the shapes of Stable Diffusion 1.5 and SDXL."""

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel  # noqa: E402
from transformers import (  # noqa: E402
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ipse.diffusion import Base, layouts  # noqa: E402
from ipse.diffusion.adapters import (  # noqa: E402
    Adapter,
    FaceResampler,
    FacialFusion,
    LinearProjection,
    MlpProjection,
    Resampler,
)
from ipse.diffusion.components import make_scheduler, make_tokenizer, make_vae  # noqa: E402
from ipse.diffusion.spatial import control_for  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402
from ipse.personalize import open_method  # noqa: E402

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SIDE, DIM = 64, 256
PROMPT = "A portrait of {a woman}."


def text_encoder(kind, width):
    size = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"vocab_size": len(make_tokenizer()), "eos_token_id": make_tokenizer().eos_token_id, "projection_dim": 12}
    return kind(CLIPTextConfig(**size, **ends)).eval()


def parts(unet):
    return {
        "vae": make_vae(channels=(8, 8, 8, 8)).eval(),
        "tokenizer": make_tokenizer(),
        "unet": UNet2DConditionModel(sample_size=SIDE // 8, norm_num_groups=4, **unet).eval(),
        "scheduler": make_scheduler(),
    }


@pytest.fixture(scope="module")
def sd15():
    """The 16 cross-attention layers of Stable Diffusion 1.5, and an image encoder."""
    torch.manual_seed(0)
    unet = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
        "attention_head_dim": 2,
        "cross_attention_dim": 256,
    }
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**size, image_size=64, patch_size=32, projection_dim=8)
    pipeline = StableDiffusionPipeline(
        **parts(unet),
        text_encoder=text_encoder(CLIPTextModel, 256),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return Base("tiny-sd15", "sd15", pipeline)


@pytest.fixture(scope="module")
def sdxl():
    """The 70 cross-attention layers of SDXL."""
    torch.manual_seed(0)
    unet = {
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (2, 2, 2),
        "cross_attention_dim": 32,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 * 6 + 12,
    }
    pipeline = StableDiffusionXLPipeline(
        **parts(unet),
        text_encoder=text_encoder(CLIPTextModel, 16),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, 16),
        tokenizer_2=make_tokenizer(),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return Base("tiny-sdxl", "sdxl", pipeline)


def check(method, photographs):
    """It makes a picture of a person that is not the base's, and the base's own at strength 0."""
    ada = method.fit(photographs[1][:1])
    (on,), (off,) = (ada.generate(PROMPT, 1, 3, strength) for strength in (1.0, 0.0))
    (plain,) = method.base.generate("A portrait of a woman.", 1, 3, 1)
    np.testing.assert_array_equal(off.image, plain.image)
    assert not np.array_equal(on.image, plain.image) and on.image.shape == (SIDE, SIDE, 3)


def louder(network):
    """Random weights say so little that rounding of pixels hides it."""
    for name, value in network.named_parameters():
        if name.endswith(("to_v.weight", "up.weight")):
            torch.nn.init.normal_(value, std=2.0)
    return network


def test_faceid(sd15, photographs, tmp_path):
    adapter = louder(Adapter.new(sd15.pipeline.unet, MlpProjection(DIM, 256, 4, 32), rank=4))
    layouts.save(adapter, tmp_path / "faceid.bin", sd15.pipeline.unet, layout="ip-adapter-faceid")
    check(open_method("face-adapter", sd15, adapter=tmp_path / "faceid.bin", steps=1), photographs)


@pytest.mark.parametrize("layout", ["ip-adapter", "ip-adapter-plus"])
def test_ip_adapter(sd15, photographs, tmp_path, layout):
    projection = LinearProjection(8, 256) if layout == "ip-adapter" else Resampler(16, 64, 256, 4, 1, 1)
    adapter = louder(Adapter.new(sd15.pipeline.unet, projection))
    layouts.save(adapter, tmp_path / "adapter.safetensors", sd15.pipeline.unet, layout=layout)
    check(open_method("image-adapter", sd15, adapter=tmp_path / "adapter.safetensors", steps=1), photographs)


def test_instantid(sdxl, photographs, tmp_path):
    unet = sdxl.pipeline.unet
    adapter = louder(Adapter.new(unet, Resampler(DIM, 64, 32, 4, 1, 1)))
    layouts.save(adapter, tmp_path / "ip-adapter.bin", unet, layout="instantid")
    with pytest.raises(WeightsError, match="ControlNetModel cannot be read"):
        open_method("instantid", sdxl, adapter=tmp_path, steps=1)
    control_for(unet).save_pretrained(tmp_path / "ControlNetModel")
    method = open_method("instantid", sdxl, adapter=tmp_path, steps=1)
    check(method, photographs)
    (tmp_path / "ControlNetModel" / "notes.txt").write_text("Another.")
    other = open_method("instantid", sdxl, adapter=tmp_path, steps=1)
    assert len(method.trained.sha256) == 64 and method.trained.sha256 != other.trained.sha256, "of the whole folder"


def test_consistentid(sd15, photographs, tmp_path):
    unet = sd15.pipeline.unet
    adapter = louder(Adapter.new(unet, FaceResampler(DIM, 16, 256, 4, 32, 1, 4, shortcut=False), rank=4))
    adapter.fusion = FacialFusion(Resampler(16, 64, 256, 1, 1, 1), 256)
    layouts.save(adapter, tmp_path / "consistentid.bin", unet, layout="consistentid")
    check(open_method("consistentid", sd15, adapter=tmp_path / "consistentid.bin", steps=1), photographs)


def test_arc2face(sd15, photographs, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(1)
    unet = UNet2DConditionModel.from_config(sd15.pipeline.unet.config)
    text = text_encoder(CLIPTextModel, 256)
    for part in ("arc2face", "encoder"):
        (tmp_path / part).mkdir()
    save_file(unet.state_dict(), tmp_path / "arc2face" / "diffusion_pytorch_model.safetensors")
    keys = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in text.state_dict().items()}
    torch.save(keys, tmp_path / "encoder" / "pytorch_model.bin")
    method = open_method("arc2face", sd15, adapter=tmp_path, steps=1)
    check(method, photographs)


def test_files_of_something_else(sd15, tmp_path):
    adapter = Adapter.new(sd15.pipeline.unet, LinearProjection(8, 256))
    layouts.save(adapter, tmp_path / "plain.safetensors", sd15.pipeline.unet, layout="ip-adapter")
    with pytest.raises(WeightsError, match="does not fit the layout ip-adapter-faceid"):
        open_method("face-adapter", sd15, adapter=tmp_path / "plain.safetensors")
