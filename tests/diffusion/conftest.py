"""Real diffusers networks at really small size, in the shapes of Stable Diffusion 1.5, SDXL and the world's base."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizer

CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SHAPES = {
    # 16 cross-attention layers in the places of Stable Diffusion 1.5.
    "sd15": {
        "block_out_channels": (8, 16, 24, 24),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", CROSS_UP, CROSS_UP, CROSS_UP),
        "layers_per_block": 2,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
    },
    # 70 in the places of SDXL, which also takes a pooled text and the sizes of the picture.
    "sdxl": {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D", CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (2, 4, 4),
        "cross_attention_dim": 32,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 * 6 + 12,
    },
    "world": {
        "block_out_channels": (8, 16),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, CROSS_UP),
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "cross_attention_dim": 12,
    },
}


def make_unet(shape, seed=0):
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, norm_num_groups=4, **SHAPES[shape])
    return unet.eval().requires_grad_(False)


def inputs(unet, rows=2, tokens=6, size=8, seed=1):
    """Keyword arguments of one call of the network."""
    maker = torch.Generator().manual_seed(seed)
    given = {
        "sample": torch.randn(rows, 4, size, size, generator=maker),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(rows, tokens, unet.config.cross_attention_dim, generator=maker),
    }
    if unet.config.addition_embed_type == "text_time":
        pooled = torch.randn(rows, 12, generator=maker)
        given["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.ones(rows, 6)}
    return given


@pytest.fixture(params=SHAPES)
def unet(request):
    return make_unet(request.param)


@pytest.fixture(scope="session")
def predict():
    """What a network says of given noise: `predict(unet, **changes)`."""

    def run(unet, grad=False, **changes):
        given = inputs(unet, **{k: changes.pop(k) for k in ("rows", "tokens", "size", "seed") if k in changes})
        with torch.set_grad_enabled(grad):
            return unet(**(given | changes)).sample

    return run


@pytest.fixture(scope="session")
def tiny():
    """`tiny("sdxl")` makes a network of that shape."""
    return make_unet


@pytest.fixture(scope="session")
def tokenizer():
    """CLIP's tokenizer with letters and a few words; other words fall into letters."""
    words = ["man", "woman", "cat", "hat", "red", "with", "photo"]
    vocabulary = ["<|startoftext|>", "<|endoftext|>"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
    vocabulary += [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            if (merge := (pieces[-2], pieces[-1])) not in merges:
                merges.append(merge)
            pieces[-2:] = ["".join(merge)]
            if pieces[-1] not in vocabulary:
                vocabulary.append(pieces[-1])
    return CLIPTokenizer({token: i for i, token in enumerate(vocabulary)}, merges, model_max_length=16)
