"""Published identity adapters: one table of keys for each layout, one inspector, one reader and one writer.

A row of a table is a key as it is published and the key it has in an `Adapter` (or None for what is not needed, such
as the frozen base within a training checkpoint). Keys hold placeholders, which stand for the same on both sides:
``{n}`` and ``{i}`` numbers, ``{p}`` weight or bias, ``{x}`` a linear map of attention, ``{d}`` down or up, ``{layer}``
a layer's name there and its number here, ``{rest}`` anything. Reading takes any row; writing takes the first.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ipse._files import write_whole
from ipse.diffusion.adapters import (
    Adapter,
    AdapterLayer,
    CodeProjection,
    FaceResampler,
    FacialFusion,
    FinalResampler,
    LevelsProjection,
    LevelsResampler,
    LinearProjection,
    MlpProjection,
    PerceiverAttention,
    PhotoFusion,
    Resampler,
)
from ipse.diffusion.attention import Layer, layers_of
from ipse.diffusion.base import enough_memory
from ipse.errors import IpseError, WeightsError

Table = tuple[tuple[str, str | None], ...]
Shape = tuple[int, ...]

_PLACEHOLDERS = {
    "n": r"\d+",
    "i": r"\d+",
    "p": r"weight|bias",
    "x": r"q|k|v|out",
    "d": r"down|up",
    "layer": r"[\w.]+",
    "rest": r".+",
}


def _pattern(key: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", key)
    return re.compile("".join(f"(?P<{p}>{_PLACEHOLDERS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(parts)))


# --- Bases: which attention layers there are --------------------------------------------------------------------------


@dataclass(frozen=True)
class BaseLayers:
    """The attention layers of a base.

    Attributes
    ----------
    name
        ``"sd15"``, ``"sdxl"``, or a description of an unknown one.
    title
        As people call it.
    layers
        By position.
    config
        Of the network, where there is one.
    """

    name: str
    title: str
    layers: Mapping[int, Layer]
    config: Mapping[str, object] | None = None

    @cached_property
    def context(self) -> int:
        """Channels of the text."""
        return next((layer.context for layer in self.layers.values() if layer.cross), 0)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Position by name."""
        return {layer.name: index for index, layer in self.layers.items()}


def _stages(context: int, *stages: tuple[str, int, int, int]) -> dict[int, Layer]:
    """Layers of stages of (block, transformers, depth of each, width)."""
    layers: dict[int, Layer] = {}
    for block, transformers, depth, width in stages:
        for t in range(transformers):
            for d in range(depth):
                for attn, size in (("attn1", width), ("attn2", context)):
                    name = f"{block}.attentions.{t}.transformer_blocks.{d}.{attn}"
                    layers[len(layers)] = Layer(len(layers), name, attn == "attn2", width, size)
    return layers


BASES = {
    "sd15": BaseLayers(
        "sd15",
        "Stable Diffusion 1.5",
        _stages(
            768,
            ("down_blocks.0", 2, 1, 320),
            ("down_blocks.1", 2, 1, 640),
            ("down_blocks.2", 2, 1, 1280),
            ("up_blocks.1", 3, 1, 1280),
            ("up_blocks.2", 3, 1, 640),
            ("up_blocks.3", 3, 1, 320),
            ("mid_block", 1, 1, 1280),
        ),
    ),
    "sdxl": BaseLayers(
        "sdxl",
        "SDXL",
        _stages(
            2048,
            ("down_blocks.1", 2, 2, 640),
            ("down_blocks.2", 2, 10, 1280),
            ("up_blocks.0", 3, 10, 1280),
            ("up_blocks.1", 3, 2, 640),
            ("mid_block", 1, 10, 1280),
        ),
    ),
}
"""Bases that published adapters are made for."""


def base_of(unet: nn.Module) -> BaseLayers:
    """The attention layers of a network, by the name of the base that has the same or of its own."""
    layers = {layer.index: layer for layer in layers_of(unet)}
    known = next((base for base in BASES.values() if base.layers == layers), _unknown(layers))
    return replace(known, config=unet.config)


def _unknown(layers: Mapping[int, Layer]) -> BaseLayers:
    cross = [layer for layer in layers.values() if layer.cross]
    channels = cross[0].context if cross else 0
    title = f"an unknown base of {len(cross)} cross-attention layers and {channels} channels of text"
    return BaseLayers("unknown", title, layers)


# --- What a file says of the sizes within -----------------------------------------------------------------------------


class _Sizes:
    """Shapes by the keys that tensors have here, with the published size where a tensor is missing."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes

    def of(self, key: str, axis: int, published: int) -> int:
        shape = self.shapes.get(key, ())
        return shape[axis] if len(shape) > axis else published

    def count(self, prefix: str, published: int) -> int:
        """How many modules are numbered behind a prefix."""
        found = {int(m[1]) for key in self.shapes if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", key))}
        return max(found) + 1 if found else published

    def inner(self, prefix: str, published: int) -> int:
        """Channels of all heads of a perceiver's attention."""
        return self.of(f"{prefix}.to_q.weight", 0, published)


def _heads(inner: int, channels: int = 64) -> int:
    # Published perceivers have heads of 64 channels (128 in PhotoMaker v2 and for FLUX); smaller ones have one head.
    return max(1, inner // channels)


def _resampler_of(
    sizes: _Sizes, at: str, context: int, *, inputs: int, width: int, tokens: int, depth: int, kind: type = Resampler
) -> Resampler:
    width = sizes.of(f"{at}.proj_in.weight", 0, width)
    inner = sizes.inner(f"{at}.blocks.0.attend", width)
    return kind(
        sizes.of(f"{at}.proj_in.weight", 1, inputs),
        width,
        context,
        sizes.of(f"{at}.latents", 1, tokens),
        sizes.count(f"{at}.blocks", depth),
        _heads(inner),
        inner,
    )


def _face_resampler_of(
    sizes: _Sizes, at: str, context: int, *, features: int, tokens: int, hidden: int, channels: int, shortcut: bool
) -> FaceResampler:
    inner = sizes.inner(f"{at}.blocks.0.attend", context)
    return FaceResampler(
        sizes.of(f"{at}.vector.widen.weight", 1, 512),
        sizes.of(f"{at}.proj_in.weight", 1, features),
        context,
        sizes.of(f"{at}.vector.narrow.weight", 0, tokens * context) // context,
        sizes.of(f"{at}.vector.widen.weight", 0, hidden),
        sizes.count(f"{at}.blocks", 4),
        _heads(inner, channels),
        inner,
        shortcut=shortcut,
    )


def _layers_for(
    sizes: _Sizes, base: BaseLayers, *, tokens: bool = True, query: bool = False, low_rank: bool = False
) -> dict[int, AdapterLayer]:
    """What an adapter has for each layer of a base."""
    rank = 0
    if low_rank:
        ranks = [shape[0] for key, shape in sizes.shapes.items() if key.endswith(".down.weight") and len(shape) == 2]
        rank = ranks[0] if ranks else 128
    return {
        index: AdapterLayer(layer, tokens=tokens and layer.cross, query=query, rank=rank)
        for index, layer in base.layers.items()
        if low_rank or layer.cross
    }


def _build_base(sizes: _Sizes, base: BaseLayers) -> Adapter:
    context = base.context
    projection = LinearProjection(
        sizes.of("projection.linear.weight", 1, 1024),
        context,
        sizes.of("projection.linear.weight", 0, 4 * context) // context,
    )
    return Adapter(_layers_for(sizes, base), projection)


def _build_plus(sizes: _Sizes, base: BaseLayers) -> Adapter:
    width = 1280 if base.name == "sdxl" else base.context
    projection = _resampler_of(sizes, "projection", base.context, inputs=1280, width=width, tokens=16, depth=4)
    return Adapter(_layers_for(sizes, base), projection)


def _build_instantid(sizes: _Sizes, base: BaseLayers) -> Adapter:
    projection = _resampler_of(sizes, "projection", base.context, inputs=512, width=1280, tokens=16, depth=4)
    return Adapter(_layers_for(sizes, base), projection)


def _build_faceid(sizes: _Sizes, base: BaseLayers) -> Adapter:
    projection = MlpProjection(
        sizes.of("projection.widen.weight", 1, 512),
        base.context,
        sizes.of("projection.narrow.weight", 0, 4 * base.context) // base.context,
        sizes.of("projection.widen.weight", 0, 1024),
    )
    return Adapter(_layers_for(sizes, base, low_rank=True), projection)


def _face_plus(sizes: _Sizes, base: BaseLayers, shortcut: bool) -> FaceResampler:
    return _face_resampler_of(
        sizes, "projection", base.context, features=1280, tokens=4, hidden=1024, channels=64, shortcut=shortcut
    )


def _build_faceid_plus(sizes: _Sizes, base: BaseLayers) -> Adapter:
    return Adapter(_layers_for(sizes, base, low_rank=True), _face_plus(sizes, base, False))


def _build_faceid_plusv2(sizes: _Sizes, base: BaseLayers) -> Adapter:
    return Adapter(_layers_for(sizes, base, low_rank=True), _face_plus(sizes, base, True))


def _build_consistentid(sizes: _Sizes, base: BaseLayers) -> Adapter:
    facial = _resampler_of(sizes, "fusion.resampler", base.context, inputs=1280, width=1024, tokens=1, depth=8)
    return Adapter(
        _layers_for(sizes, base, low_rank=True), _face_plus(sizes, base, False), FacialFusion(facial, base.context)
    )


def _vision_of(sizes: _Sizes) -> nn.Module:
    """CLIP's image encoder of the sizes in a file; ViT-L/14 where it does not say."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    at = "fusion.vision.vision_model"
    width = sizes.of(f"{at}.embeddings.class_embedding", 0, 1024)
    patch = sizes.of(f"{at}.embeddings.patch_embedding.weight", 2, 14)
    patches = sizes.of(f"{at}.embeddings.position_embedding.weight", 0, 257) - 1
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=sizes.of(f"{at}.encoder.layers.0.mlp.fc1.weight", 0, 4096),
        num_hidden_layers=sizes.count(f"{at}.encoder.layers", 24),
        num_attention_heads=_heads(width),
        patch_size=patch,
        image_size=patch * round(patches**0.5),
        projection_dim=sizes.of("fusion.vision.visual_projection.weight", 0, 768),
    )
    return CLIPVisionModelWithProjection(config)


def _build_photomaker(sizes: _Sizes, base: BaseLayers) -> Adapter:
    fusion = PhotoFusion(_vision_of(sizes), sizes.of("fusion.second.weight", 0, 1280))
    return Adapter(_layers_for(sizes, base, tokens=False, low_rank=True), fusion=fusion)


def _build_photomaker_v2(sizes: _Sizes, base: BaseLayers) -> Adapter:
    vision = _vision_of(sizes)
    second = sizes.of("fusion.second.weight", 0, 1280)
    qformer = _face_resampler_of(
        sizes,
        "fusion.qformer",
        vision.config.projection_dim + second,
        features=1024,
        tokens=2,
        hidden=2048,
        channels=128,
        shortcut=True,
    )
    fusion = PhotoFusion(vision, second, qformer)
    return Adapter(_layers_for(sizes, base, tokens=False, low_rank=True), fusion=fusion)


def _build_pulid(sizes: _Sizes, base: BaseLayers) -> Adapter:
    features = sizes.of("projection.pooled.0.0.weight", 1, 1024)
    levels = sizes.count("projection.pooled", 5)
    tokens = sizes.of("projection.vector.6.weight", 0, 5 * base.context) // base.context
    inputs = sizes.of("projection.vector.0.weight", 1, 1280)
    return Adapter(_layers_for(sizes, base), LevelsProjection(inputs, features, base.context, tokens, levels))


def _idformer(sizes: _Sizes, context: int) -> LevelsResampler:
    width = sizes.of("projection.latents", 2, 1024)
    return LevelsResampler(
        sizes.of("projection.vector.0.weight", 1, 1280),
        sizes.of("projection.levels.0.0.weight", 1, 1024),
        width,
        context,
        sizes.of("projection.latents", 1, 32),
        sizes.of("projection.vector.6.weight", 0, 5 * width) // width,
        sizes.count("projection.blocks", 10),
        _heads(width),
        sizes.count("projection.levels", 5),
        sizes.of("projection.vector.0.weight", 0, 1024),
    )


def _build_pulid_v11(sizes: _Sizes, base: BaseLayers) -> Adapter:
    return Adapter(_layers_for(sizes, base), _idformer(sizes, base.context))


def _build_pulid_flux(sizes: _Sizes, base: BaseLayers) -> Adapter:
    context = sizes.of("projection.proj_out", 1, 2048)
    inner = sizes.inner("blocks.0", 2048)
    blocks = nn.ModuleList(
        PerceiverAttention(
            sizes.of("blocks.0.to_q.weight", 1, 3072), _heads(inner, 128), inner=inner, features=context, own=False
        )
        for _ in range(sizes.count("blocks", 20))
    )
    return Adapter({}, _idformer(sizes, context), blocks=blocks)


def _build_wplus(sizes: _Sizes, base: BaseLayers) -> Adapter:
    # The first token stands for four vectors of the code.
    inputs = sizes.of("projection.linear.0.weight", 1, 4 * 512) // 4
    return Adapter(_layers_for(sizes, base, query=True), CodeProjection(inputs, base.context))


def _build_masterweaver(sizes: _Sizes, base: BaseLayers) -> Adapter:
    projection = _resampler_of(
        sizes, "projection", base.context, inputs=1024, width=base.context, tokens=16, depth=1, kind=FinalResampler
    )
    return Adapter(_layers_for(sizes, base), projection)


def _build_unet(sizes: _Sizes, base: BaseLayers) -> nn.Module:
    from diffusers import UNet2DConditionModel

    if base.config is not None:
        return UNet2DConditionModel.from_config(base.config)
    # The other defaults are those of Stable Diffusion 1.5.
    return UNet2DConditionModel(cross_attention_dim=768)


def _build_text_encoder(sizes: _Sizes, base: BaseLayers) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    width = sizes.of("embeddings.token_embedding.weight", 1, 768)
    config = CLIPTextConfig(
        vocab_size=sizes.of("embeddings.token_embedding.weight", 0, 49408),
        hidden_size=width,
        intermediate_size=sizes.of("encoder.layers.0.mlp.fc1.weight", 0, 3072),
        num_hidden_layers=sizes.count("encoder.layers", 12),
        num_attention_heads=_heads(width),
        max_position_embeddings=sizes.of("embeddings.position_embedding.weight", 0, 77),
    )
    return CLIPTextModel(config)


# --- The tables -------------------------------------------------------------------------------------------------------


def _perceiver(theirs: str, ours: str) -> Table:
    """Rows of one attention of a perceiver."""
    return (
        (f"{theirs}.norm1.{{p}}", f"{ours}.norm_features.{{p}}"),
        (f"{theirs}.norm2.{{p}}", f"{ours}.norm_latents.{{p}}"),
        (f"{theirs}.to_q.weight", f"{ours}.to_q.weight"),
        (f"{theirs}.to_kv.weight", f"{ours}.to_kv.weight"),
        (f"{theirs}.to_out.weight", f"{ours}.to_out.weight"),
    )


def _blocks(theirs: str, ours: str) -> Table:
    """Rows of the blocks of a perceiver."""
    return (
        *_perceiver(f"{theirs}.layers.{{i}}.0", f"{ours}.blocks.{{i}}.attend"),
        (f"{theirs}.layers.{{i}}.1.{{n}}.{{p}}", f"{ours}.blocks.{{i}}.feed.{{n}}.{{p}}"),
    )


def _in_and_out(theirs: str, ours: str) -> Table:
    return tuple((f"{theirs}.{name}.{{p}}", f"{ours}.{name}.{{p}}") for name in ("proj_in", "proj_out", "norm_out"))


def _resampler(theirs: str, ours: str) -> Table:
    return (
        (f"{theirs}.latents", f"{ours}.latents"),
        *_in_and_out(theirs, ours),
        *_blocks(theirs, ours),
    )


def _mlp(proj: str, norm: str, ours: str) -> Table:
    return (
        (f"{proj}.0.{{p}}", f"{ours}.widen.{{p}}"),
        (f"{proj}.2.{{p}}", f"{ours}.narrow.{{p}}"),
        (f"{norm}.{{p}}", f"{ours}.norm.{{p}}"),
    )


def _face_resampler(theirs: str, proj: str, norm: str, ours: str) -> Table:
    return (
        *_mlp(f"{theirs}.{proj}", f"{theirs}.{norm}", f"{ours}.vector"),
        *_in_and_out(f"{theirs}.perceiver_resampler", ours),
        *_blocks(f"{theirs}.perceiver_resampler", ours),
    )


def _fuser(theirs: str) -> Table:
    rows = [
        (f"{theirs}.{mlp}.{name}.{{p}}", f"fusion.fuser.{ours}.{number}.{{p}}")
        for mlp, ours in (("mlp1", "first"), ("mlp2", "second"))
        for name, number in (("layernorm", 0), ("fc1", 1), ("fc2", 3))
    ]
    return (*rows, (f"{theirs}.layer_norm.{{p}}", "fusion.fuser.norm.{p}"))


def _keys_and_values(theirs: str) -> Table:
    """Rows of keys and values; `theirs` has a * for the k or v."""
    return tuple((theirs.replace("*", x), f"layers.{{n}}.to_{x}.weight") for x in "kv")


_LORA = ("to_{x}_lora.{d}.weight", "layers.{n}.lora.{x}.{d}.weight")


def _also(table: Table, *names: tuple[str, str]) -> Table:
    """The rows, and again with other names for the groups at their beginning."""
    again = tuple(
        (other + theirs.removeprefix(name), ours)
        for name, other in names
        for theirs, ours in table
        if theirs.startswith(name)
    )
    return table + again


# The scripts that train IP-Adapters save the frozen base along with the rest, under other names than are read.
_TRAINING = (("image_proj.", "image_proj_model."), ("ip_adapter.", "adapter_modules."))
_FROZEN: Table = (("unet.{rest}", None),)


def _ip_adapter(projection: Table, *, low_rank: bool = False) -> Table:
    rows = (*projection, *_keys_and_values("ip_adapter.{n}.to_*_ip.weight"))
    if low_rank:
        rows += ((f"ip_adapter.{{n}}.{_LORA[0]}", _LORA[1]),)
    return (*_also(rows, *_TRAINING), *_FROZEN)


_FACE_PLUS = _face_resampler("image_proj", "proj", "norm", "projection")
# Old versions of transformers kept the numbers of the positions among the weights.
_VISION: Table = (
    ("id_encoder.vision_model.embeddings.position_ids", None),
    ("id_encoder.vision_model.{rest}", "fusion.vision.vision_model.{rest}"),
    ("id_encoder.visual_projection.weight", "fusion.vision.visual_projection.weight"),
    ("id_encoder.visual_projection_2.weight", "fusion.second.weight"),
    *_fuser("id_encoder.fuse_module"),
    (f"lora_weights.unet.{{layer}}.processor.{_LORA[0]}", _LORA[1]),
)
_PULID_LAYERS = _keys_and_values("id_adapter_attn_layers.{n}.id_to_*.weight")


def _idformer_rows(theirs: str) -> Table:
    return (
        (f"{theirs}.latents", "projection.latents"),
        (f"{theirs}.proj_out", "projection.proj_out"),
        (f"{theirs}.mapping_{{i}}.{{rest}}", "projection.levels.{i}.{rest}"),
        (f"{theirs}.id_embedding_mapping.{{rest}}", "projection.vector.{rest}"),
        *_blocks(theirs, "projection"),
    )


@dataclass(frozen=True)
class Layout:
    """How a published project names the weights of an adapter.

    Attributes
    ----------
    name
        Short and stable.
    title
        The project.
    bases
        Those that it was published for.
    table
        Rows of (published key, key here or None); see the module.
    signs
        Published keys that tell it from others.
    build
        Makes the module for the sizes in a file and the layers of a base.
    encoder
        What it takes.
    face_vector
        A key whose tensor takes face vectors of 512 numbers; where another layout has the same keys, this tells them
        apart.
    """

    name: str
    title: str
    bases: tuple[str, ...]
    table: Table
    signs: tuple[str, ...]
    build: Callable[[_Sizes, BaseLayers], nn.Module] = field(repr=False)
    encoder: str
    face_vector: str | None = None

    @cached_property
    def _theirs(self) -> list[tuple[str, re.Pattern[str], str | None]]:
        # A key's beginning rules out most rows, and is much quicker to compare than a pattern.
        return [(theirs.split("{")[0], _pattern(theirs), ours) for theirs, ours in self.table]

    @cached_property
    def _ours(self) -> list[tuple[str, re.Pattern[str], str]]:
        return [(ours.split("{")[0], _pattern(ours), theirs) for theirs, ours in self.table if ours is not None]

    def here(self, key: str, numbers: Mapping[str, int]) -> str | None:
        """The key here of a published key; None where it is left out on purpose.

        Raises
        ------
        KeyError
            If no row matches.
        """
        for start, pattern, ours in self._theirs:
            if key.startswith(start) and (found := pattern.fullmatch(key)):
                if ours is None:
                    return None
                groups = found.groupdict()
                if "layer" in groups:
                    groups["n"] = str(numbers[groups["layer"]])
                return ours.format(**groups)
        raise KeyError(key)

    def published(self, key: str, names: Mapping[int, str]) -> str:
        """The published key of a key here.

        Raises
        ------
        KeyError
            If the layout has no place for it.
        """
        for start, pattern, theirs in self._ours:
            if key.startswith(start) and (found := pattern.fullmatch(key)):
                groups = found.groupdict()
                if "{layer}" in theirs:
                    groups["layer"] = names[int(groups["n"])]
                return theirs.format(**groups)
        raise KeyError(key)

    def layer_sizes(self, keys: Mapping[str, Shape]) -> dict[int | str, tuple[int, int]]:
        """Width and context of the attention layers in a file, by their numbers or names there."""
        widths: dict[int | str, int] = {}
        contexts: dict[int | str, int] = {}
        for key, shape in keys.items():
            for start, pattern, ours in self._theirs:
                if (
                    ours is None
                    or len(shape) != 2
                    or not key.startswith(start)
                    or not (found := pattern.fullmatch(key))
                ):
                    continue
                groups = found.groupdict()
                place = groups.get("layer") or int(groups.get("n") or 0)
                if ours.endswith("to_k.weight") and ours.startswith("layers"):
                    widths[place], contexts[place] = shape
                elif "layer" in groups and (groups["x"], groups["d"]) == ("k", "down"):
                    contexts[place] = shape[1]
                elif "layer" in groups and (groups["x"], groups["d"]) == ("k", "up"):
                    widths[place] = shape[0]
        return {place: (width, contexts[place]) for place, width in widths.items() if place in contexts}


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "ip-adapter",
            "IP-Adapter",
            ("sd15", "sdxl"),
            _ip_adapter(
                (("image_proj.proj.{p}", "projection.linear.{p}"), ("image_proj.norm.{p}", "projection.norm.{p}"))
            ),
            ("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"),
            _build_base,
            "CLIP ViT-H/14's pooled image (SDXL: ViT-bigG/14 or ViT-H/14)",
        ),
        Layout(
            "ip-adapter-plus",
            "IP-Adapter plus",
            ("sd15", "sdxl"),
            _ip_adapter(_resampler("image_proj", "projection")),
            ("image_proj.latents", "ip_adapter.1.to_k_ip.weight"),
            _build_plus,
            "CLIP ViT-H/14's second last hidden states",
        ),
        Layout(
            "instantid",
            "InstantID",
            ("sdxl",),
            _ip_adapter(_resampler("image_proj", "projection")),
            ("image_proj.latents", "ip_adapter.1.to_k_ip.weight"),
            _build_instantid,
            "ArcFace (antelopev2), not normalized; a separate ControlNet takes the five points",
            "image_proj.proj_in.weight",
        ),
        Layout(
            "ip-adapter-faceid",
            "IP-Adapter-FaceID",
            ("sd15", "sdxl"),
            _ip_adapter(_mlp("image_proj.proj", "image_proj.norm", "projection"), low_rank=True),
            ("image_proj.proj.0.weight", "ip_adapter.0.to_q_lora.down.weight"),
            _build_faceid,
            "ArcFace (buffalo_l), normalized",
        ),
        Layout(
            "ip-adapter-faceid-plus",
            "IP-Adapter-FaceID-plus",
            ("sd15",),
            _ip_adapter(_FACE_PLUS, low_rank=True),
            ("image_proj.perceiver_resampler.proj_in.weight", "ip_adapter.0.to_q_lora.down.weight"),
            _build_faceid_plus,
            "ArcFace (buffalo_l), normalized, and CLIP ViT-H/14's second last hidden states",
        ),
        Layout(
            "ip-adapter-faceid-plusv2",
            "IP-Adapter-FaceID-plus v2",
            ("sd15", "sdxl"),
            _ip_adapter(_FACE_PLUS, low_rank=True),
            ("image_proj.perceiver_resampler.proj_in.weight", "ip_adapter.0.to_q_lora.down.weight"),
            _build_faceid_plusv2,
            "ArcFace (buffalo_l), normalized, and CLIP ViT-H/14's second last hidden states",
        ),
        Layout(
            "consistentid",
            "ConsistentID",
            ("sd15", "sdxl"),
            (
                # What its scripts write has another name than what they read.
                *_also(_FACE_PLUS, ("image_proj.", "image_proj_model.")),
                *_keys_and_values("adapter_modules.{n}.to_*_ip.weight"),
                (f"adapter_modules.{{n}}.{_LORA[0]}", _LORA[1]),
                *_resampler("FacialEncoder.visual_projection", "fusion.resampler"),
                *_fuser("FacialEncoder.fuse_module"),
                *_FROZEN,
            ),
            ("FacialEncoder.fuse_module.mlp1.fc1.weight", "adapter_modules.0.to_q_lora.down.weight"),
            _build_consistentid,
            "ArcFace (buffalo_l), normalized, and CLIP ViT-H/14's second last hidden states of face and regions",
        ),
        Layout(
            "photomaker",
            "PhotoMaker",
            ("sdxl",),
            _VISION,
            ("id_encoder.fuse_module.mlp1.fc1.weight", "id_encoder.visual_projection_2.weight"),
            _build_photomaker,
            "its own CLIP ViT-L/14, in the file",
        ),
        Layout(
            "photomaker-v2",
            "PhotoMaker v2",
            ("sdxl",),
            (
                *_VISION,
                *_face_resampler("id_encoder.qformer_perceiver", "token_proj", "token_norm", "fusion.qformer"),
            ),
            ("id_encoder.fuse_module.mlp1.fc1.weight", "id_encoder.qformer_perceiver.token_norm.weight"),
            _build_photomaker_v2,
            "its own CLIP ViT-L/14, in the file, and ArcFace (antelopev2)",
        ),
        Layout(
            "pulid",
            "PuLID v1",
            ("sdxl",),
            (
                ("id_adapter.body.{rest}", "projection.vector.{rest}"),
                ("id_adapter.mapping_{i}.{rest}", "projection.pooled.{i}.{rest}"),
                ("id_adapter.mapping_patch_{i}.{rest}", "projection.patches.{i}.{rest}"),
                *_PULID_LAYERS,
            ),
            ("id_adapter.body.0.weight", "id_adapter_attn_layers.1.id_to_k.weight"),
            _build_pulid,
            "ArcFace (antelopev2) and EVA02-CLIP-L-14-336: pooled and five hidden states",
        ),
        Layout(
            "pulid-v1.1",
            "PuLID v1.1",
            ("sdxl",),
            (*_idformer_rows("id_adapter"), *_PULID_LAYERS),
            ("id_adapter.latents", "id_adapter_attn_layers.1.id_to_k.weight"),
            _build_pulid_v11,
            "ArcFace (antelopev2) and EVA02-CLIP-L-14-336: pooled and five hidden states",
        ),
        Layout(
            "pulid-flux",
            "PuLID for FLUX",
            ("flux",),
            (*_idformer_rows("pulid_encoder"), *_perceiver("pulid_ca.{n}", "blocks.{n}")),
            ("pulid_encoder.latents", "pulid_ca.0.to_q.weight"),
            _build_pulid_flux,
            "ArcFace (antelopev2) and EVA02-CLIP-L-14-336: pooled and five hidden states",
        ),
        Layout(
            "wplus",
            "W+ Adapter",
            ("sd15",),
            (
                ("w_proj.proj_{i}.weight", "projection.linear.{i}.weight"),
                ("w_proj.norm.{p}", "projection.norm.{p}"),
                *_keys_and_values("wplus_adapter.{n}.to_*_wplus.weight"),
                ("wplus_adapter.{n}.to_q_wplus.weight", "layers.{n}.to_q.weight"),
            ),
            ("w_proj.proj_0.weight", "wplus_adapter.1.to_q_wplus.weight"),
            _build_wplus,
            "e4e's W+ code, 18 vectors of 512",
        ),
        Layout(
            "masterweaver",
            "MasterWeaver",
            ("sd15",),
            (
                *_resampler("id_encoder", "projection"),
                *_perceiver("id_encoder.final_attn", "projection.final"),
                *_keys_and_values("adapter_modules.{n}.to_*_img.weight"),
            ),
            ("id_encoder.final_attn.to_q.weight", "adapter_modules.1.to_k_img.weight"),
            _build_masterweaver,
            "CLIP ViT-L/14's second last hidden states",
        ),
        Layout(
            "arc2face-unet",
            "Arc2Face's U-Net (or another whole one)",
            ("sd15",),
            (("{rest}", "{rest}"),),
            ("conv_in.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_out.weight"),
            _build_unet,
            "ArcFace trained on WebFace42M, normalized, through its text encoder",
        ),
        Layout(
            "arc2face-encoder",
            "Arc2Face's text encoder (or another of CLIP)",
            ("sd15",),
            (("text_model.embeddings.position_ids", None), ("text_model.{rest}", "{rest}")),
            ("text_model.embeddings.token_embedding.weight", "text_model.final_layer_norm.weight"),
            _build_text_encoder,
            "ArcFace trained on WebFace42M, normalized, see `ipse.diffusion.adapters.face_prompt`",
        ),
    )
}
"""The published layouts by name."""


# --- Reading, inspecting, writing -------------------------------------------------------------------------------------


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a published file; groups in groups become keys with dots. Nothing in it is executed.

    Parameters
    ----------
    path
        A safetensors file, or what ``torch.save`` wrote.

    Raises
    ------
    WeightsError
        If it is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no adapter file {path}.", "Give the path of an existing file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with enough_memory(), safe_open(path, framework="pt") as file:
                content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        else:
            with enough_memory():
                content, metadata = torch.load(path, map_location="cpu", weights_only=True), {}
    except IpseError:
        raise
    except Exception as error:  # each format has errors of its own
        raise WeightsError(
            f"{path} cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]:.200}).",
            "It is damaged, or no weights: download it again and compare its size and checksum.",
        ) from error
    tensors: dict[str, Tensor] = {}

    def flatten(prefix: str, value: object) -> None:
        if isinstance(value, Tensor):
            tensors[prefix] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else str(key), inner)

    flatten("", content)
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name.", "Save the adapter's state_dict.")
    return tensors, metadata


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file whole or not at all.

    Parameters
    ----------
    path
        The file; missing parent folders are made.
    tensors, metadata
        What is in it.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    from safetensors.torch import save

    # Safetensors has neither views nor two names of the same numbers.
    own = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    return write_whole(path, save(own, dict(metadata) if metadata else None))


@dataclass(frozen=True)
class Inspection:
    """What is in an adapter's file.

    Attributes
    ----------
    layout
        The format.
    base
        What it is made for.
    missing, extra
        Published keys that should be there, and keys that the layout does not have.
    shapes
        (key, shape found, shape expected) where they differ.
    left_out
        Keys that are known and not needed.
    used
        How many keys fit.
    encoder
        Name and fingerprint of the encoder, where the file records it.
    """

    layout: Layout
    base: BaseLayers
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    shapes: tuple[tuple[str, Shape, Shape], ...]
    left_out: tuple[str, ...]
    used: int
    encoder: tuple[str, str] | None

    @property
    def complete(self) -> bool:
        """Whether everything is there and nothing else."""
        return not (self.missing or self.extra or self.shapes)

    def problems(self) -> str:
        """What is wrong, in one line, with a few examples of each kind; empty if nothing is."""
        wrong = [f"{key} is {found} where {wanted} is expected" for key, found, wanted in self.shapes]
        kinds = (("missing", self.missing), ("extra", self.extra), ("of another shape", wrong))
        return "; ".join(
            f"{len(found)} {what}: {', '.join(found[:4])}{', …' if len(found) > 4 else ''}"
            for what, found in kinds
            if found
        )


def identify(keys: Mapping[str, Shape], name: str = "") -> Layout:
    """Tell the layout from keys and shapes.

    Parameters
    ----------
    keys
        Shape by published key.
    name
        Of the file: FaceID-plus v1 and v2 have the same keys, and only files called ``…plusv2…`` are taken for v2.

    Raises
    ------
    WeightsError
        If it is none of `LAYOUTS`.
    """
    best: tuple[tuple[int, bool, int], Layout] | None = None
    for layout in LAYOUTS.values():
        known = {here for key in keys if (here := _here(layout, key)) is not None}
        signed = all(_here(layout, sign) in known for sign in layout.signs)
        # A table that takes any key says nothing by taking it.
        count = 0 if layout.table[0][0] == "{rest}" else len(known)
        vector = _face_vector(layout, keys)
        if vector >= 0 and (signed or 2 * count >= len(keys)) and (best is None or (count, signed, vector) > best[0]):
            best = ((count, signed, vector), layout)
    if best is None:
        groups = sorted({key.split(".")[0] for key in keys})
        raise WeightsError(
            f"This is no adapter of a known layout; its keys begin with {', '.join(groups[:8])}.",
            f"Known are {', '.join(LAYOUTS)}.",
        )
    if best[1].name == "ip-adapter-faceid-plus" and re.search(r"plus-?_?v2", name.lower()):
        return LAYOUTS["ip-adapter-faceid-plusv2"]
    return best[1]


def _here(layout: Layout, key: str) -> str | None:
    """The key here for telling layouts apart, where layers by name need no number."""
    try:
        return layout.here(key, _AnyNumber())
    except KeyError:
        return None


class _AnyNumber(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 0


def _face_vector(layout: Layout, keys: Mapping[str, Shape]) -> int:
    """1 where the layout's face vector is in the file, -1 where there is something else in its place, 0 without."""
    if layout.face_vector is None:
        return 0
    shapes = [shape for key, shape in keys.items() if _here(layout, key) == _here(layout, layout.face_vector)]
    return 1 if shapes and shapes[0][1:] == (512,) else -1


def _agreement(sizes: Mapping[int | str, tuple[int, int]], base: BaseLayers) -> int:
    """How many of the layers in a file the base has, too."""
    theirs: dict[int | str, tuple[int, int]] = {}
    for index, layer in base.layers.items():
        theirs[index] = theirs[layer.name] = (layer.width, layer.context)
    return sum(theirs.get(place) == size for place, size in sizes.items())


def _base_in(layout: Layout, sizes: Mapping[int | str, tuple[int, int]]) -> BaseLayers:
    """The base that the attention layers in a file belong to."""
    if layout.bases == ("flux",):
        return BaseLayers("flux", "FLUX", {})
    best = max((BASES[name] for name in layout.bases), key=lambda base: _agreement(sizes, base))
    if 2 * _agreement(sizes, best) >= len(sizes):
        return best
    layers: dict[int, Layer] = {}
    if any(isinstance(place, str) for place in sizes):
        # Layers known by name, in the order of diffusers: down, up, middle.
        order = ("down_blocks", "up_blocks", "mid_block")
        named = sorted(
            (name for name in sizes if name.split(".")[0] in order),
            key=lambda name: (order.index(name.split(".")[0]), [int(n) for n in re.findall(r"\d+", name)]),
        )
        for index, name in enumerate(named):
            layers[index] = Layer(index, name, name.endswith("attn2"), *sizes[name])
    else:
        # Cross-attention has odd numbers; the layer before each is the picture's own.
        for index, (width, context) in sorted(sizes.items()):
            layers[index - 1] = Layer(index - 1, f"layer {index - 1}", False, width, width)
            layers[index] = Layer(index, f"layer {index}", True, width, context)
    return _unknown(layers)


def _describe(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], layout: Layout, base: BaseLayers | None
) -> tuple[Inspection, nn.Module, dict[str, Tensor]]:
    """Inspect, and hand over the module (without memory) and the tensors that fit, by key here."""
    if base is None:
        base = _base_in(layout, layout.layer_sizes({key: tuple(tensor.shape) for key, tensor in tensors.items()}))
    here: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    extra, left_out = [], []
    for key, tensor in tensors.items():
        try:
            ours = layout.here(key, base.numbers)
        except KeyError:
            extra.append(key)
            continue
        if ours is None:
            left_out.append(key)
        else:
            here[ours], origin[ours] = tensor, key
    # Without memory: whole bases are as quick to compare as adapters.
    with torch.device("meta"):
        module = layout.build(_Sizes({key: tuple(tensor.shape) for key, tensor in here.items()}), base)
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    numbers = {index: layer.name for index, layer in base.layers.items()}
    missing = [layout.published(key, numbers) for key in wanted if key not in here]
    extra += [origin[key] for key in here if key not in wanted]
    fitting = {key: tensor for key, tensor in here.items() if key in wanted}
    wrong = [(origin[k], tuple(t.shape), wanted[k]) for k, t in fitting.items() if tuple(t.shape) != wanted[k]]
    encoder = None
    if "ipse.encoder" in metadata and "ipse.fingerprint" in metadata:
        encoder = (metadata["ipse.encoder"], metadata["ipse.fingerprint"])
    inspection = Inspection(
        layout, base, tuple(missing), tuple(extra), tuple(wrong), tuple(left_out), len(fitting) - len(wrong), encoder
    )
    return inspection, module, fitting


def _layout_named(name: str) -> Layout:
    if name not in LAYOUTS:
        raise WeightsError(f"There is no adapter layout {name!r}.", f"There are {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def _open(path: str | Path, layout: str | None) -> tuple[dict[str, Tensor], dict[str, str], Layout]:
    tensors, metadata = read_tensors(path)
    tensors = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    layout = layout or metadata.get("ipse.layout")
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return tensors, metadata, _layout_named(layout) if layout else identify(shapes, Path(path).name)


def inspect(path: str | Path, unet: nn.Module | None = None, *, layout: str | None = None) -> Inspection:
    """Name the format and the base of an adapter's file, and what is missing, extra or of another shape.

    Parameters
    ----------
    path
        Of the file.
    unet
        The network to compare with; by default the base that the file fits best.
    layout
        One of `LAYOUTS`; by default the file's own.

    Raises
    ------
    WeightsError
        If the file cannot be read, or is of no known layout.
    """
    tensors, metadata, chosen = _open(path, layout)
    return _describe(tensors, metadata, chosen, base_of(unet) if unet is not None else None)[0]


def load(path: str | Path, unet: nn.Module | None = None, *, layout: str | None = None) -> nn.Module:
    """Read a published adapter; everything must fit.

    Parameters
    ----------
    path, unet, layout
        As in `inspect`. FaceID-plus v2 in a file that does not say so needs ``layout="ip-adapter-faceid-plusv2"``.

    Returns
    -------
    torch.nn.Module
        An `Adapter` in evaluation mode; for the layouts of Arc2Face a `UNet2DConditionModel` or a `CLIPTextModel`.

    Raises
    ------
    WeightsError
        If the adapter is for another base, or naming every key that is missing, extra or of another shape.
    """
    tensors, metadata, chosen = _open(path, layout)
    if unet is not None and not chosen.name.startswith("arc2face"):
        sizes, mine = chosen.layer_sizes({k: tuple(t.shape) for k, t in tensors.items()}), base_of(unet)
        if chosen.bases == ("flux",) or 2 * _agreement(sizes, mine) < len(sizes):
            raise WeightsError(
                f"{path} is {chosen.title} for {_base_in(chosen, sizes).title}, and this network is {mine.title}.",
                "Load the base that the adapter was made for, or its file for this base.",
            )
    inspection, module, fitting = _describe(tensors, metadata, chosen, base_of(unet) if unet is not None else None)
    _require_complete(path, inspection)
    with enough_memory():
        module = _with_memory(module, fitting)
    if isinstance(module, Adapter):
        module.layout = chosen.name
        module.encoder = inspection.encoder
    return module.eval()


def _require_complete(path: str | Path, inspection: Inspection) -> None:
    if not inspection.complete:
        raise WeightsError(
            f"{path} does not fit the layout {inspection.layout.name} on {inspection.base.title}; "
            f"{inspection.problems()}.",
            "Download it again, or choose another layout; `ipse adapter inspect` lists all that is in it.",
        )


def _with_memory(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A module that was built without memory, with weights in 32 bits; what is no weight is computed anew."""
    module.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                # CLIP's numbers of the positions, the only ones there are.
                part._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape)
    return module


def save(adapter: Adapter, path: str | Path, unet: nn.Module | None = None, *, layout: str | None = None) -> None:
    """Write an adapter in a published layout.

    Parameters
    ----------
    adapter
        Its `encoder`, if known, goes along in a safetensors file.
    path
        ``.safetensors``, or ``.bin`` and ``.pt`` as ``torch.save`` writes them, in groups as the projects read them.
    unet
        The network it is for; PhotoMaker's layouts, which name layers, need it unless it is SDXL.
    layout
        One of `LAYOUTS`; by default that of the adapter.

    Raises
    ------
    WeightsError
        If the layout has no place for a part of the adapter, or lacks a part that it needs.
    """
    path = Path(path)
    name = layout or adapter.layout
    if name is None:
        raise WeightsError("This adapter has no layout yet.", f"Name one: {', '.join(LAYOUTS)}.")
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in adapter.state_dict().items()}
    base = base_of(unet) if unet is not None else BASES["sdxl"]
    names = {index: layer.name for index, layer in base.layers.items()}
    _write(path, _named(state, _layout_named(name), names), name, adapter.encoder)


def _named(state: Mapping[str, Tensor], layout: Layout, names: Mapping[int, str]) -> dict[str, Tensor]:
    """Tensors by published key."""
    tensors, homeless = {}, []
    for key, tensor in state.items():
        try:
            tensors[layout.published(key, names)] = tensor
        except KeyError:
            homeless.append(key)
    missing = [sign for sign in layout.signs if sign not in tensors]
    if homeless or missing:
        what = f"has no place for {', '.join(homeless[:4])}" if homeless else f"needs {', '.join(missing)}"
        raise WeightsError(
            f"The layout {layout.name} {what}.", "Only adapters of the same parts can be written in it; choose another."
        )
    return tensors


_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def _write(path: Path, tensors: dict[str, Tensor], layout: str, encoder: tuple[str, str] | None) -> None:
    if path.suffix not in _ENDINGS:
        raise WeightsError(f"{path} has an ending that says nothing.", f"End it by one of {', '.join(_ENDINGS)}.")
    if path.suffix == ".safetensors":
        metadata = {"ipse.layout": layout}
        if encoder is not None:
            metadata |= {"ipse.encoder": encoder[0], "ipse.fingerprint": encoder[1]}
        write_tensors(path, tensors, metadata)
        return
    content = io.BytesIO()
    # Readers of PuLID, and of whole networks, take the keys as they are; the others expect groups.
    if layout.startswith(("pulid", "arc2face")):
        torch.save(tensors, content)
        write_whole(path, content.getvalue())
        return
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, _, rest = key.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    torch.save(groups, content)
    write_whole(path, content.getvalue())


def convert(source: str | Path, target: str | Path, *, layout: str | None = None, to: str | None = None) -> Inspection:
    """Write an adapter's file anew: in another container, from a training checkpoint, in another layout.

    Parameters
    ----------
    source, layout
        As in `load`.
    target
        The file to write; its ending says how.
    to
        The layout to write; by default that of the source.

    Returns
    -------
    Inspection
        Of what was written.

    Raises
    ------
    WeightsError
        As `load` and `save`, and if the ending of `target` says nothing.
    DataError
        If `target` cannot be written.
    """
    tensors, metadata, chosen = _open(source, layout)
    inspection, _, fitting = _describe(tensors, metadata, chosen, None)
    _require_complete(source, inspection)
    wanted = _layout_named(to) if to else chosen
    named = _named(fitting, wanted, {index: layer.name for index, layer in inspection.base.layers.items()})
    _write(Path(target), named, wanted.name, inspection.encoder)
    return inspect(target, layout=wanted.name)
