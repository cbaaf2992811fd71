"""Published weights into ipse's backbones: one table of keys for each layout, and nothing is left out silently.

A row of a table is a pattern for a published key and the key it has here (or None for what the embedding does not
need, such as classifiers). The first row that matches the whole key decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ipse.errors import WeightsError

Table = tuple[tuple[str, str | None], ...]

# Statistics of a norm and its affine part, the last word of many keys.
_N = r"(weight|bias|running_mean|running_var|num_batches_tracked)"


def _light(prefix: str, ours: str) -> Table:
    """Rows of one light convolution of OSNet."""
    return (
        (rf"{prefix}\.conv1\.weight", rf"{ours}.point.weight"),
        (rf"{prefix}\.conv2\.weight", rf"{ours}.depth.weight"),
        (rf"{prefix}\.bn\.{_N}", rf"{ours}.norm.\N"),
    )


def _rows(table: Table) -> Table:
    r"""Write ``\N`` as the number of the pattern's last group."""
    return tuple(
        (pattern, ours and ours.replace(r"\N", rf"\g<{re.compile(pattern).groups}>")) for pattern, ours in table
    )


# torchreid numbers stages from conv2; here they count from 0.
_STAGES = {"conv2": "0", "conv3": "1", "conv4": "2"}
_STREAMS = {"a": "0", "b": "1", "c": "2", "d": "3"}


def _osnet(prefix: str = "") -> Table:
    rows: list[tuple[str, str | None]] = [
        (rf"{prefix}conv1\.conv\.weight", r"stem.conv.weight"),
        (rf"{prefix}conv1\.bn\.{_N}", r"stem.norm.\N"),
        (rf"{prefix}conv5\.conv\.weight", r"tail.conv.weight"),
        (rf"{prefix}conv5\.bn\.{_N}", r"tail.norm.\N"),
    ]
    for theirs, stage in _STAGES.items():
        block = rf"{prefix}{theirs}\.([01])"
        ours = rf"stages.{stage}.\g<1>"
        for letter, stream in _STREAMS.items():
            inner = r"" if letter == "a" else r"\.(\d)"
            index = "0" if letter == "a" else r"\g<2>"
            rows += _light(rf"{block}\.conv2{letter}{inner}", rf"{ours}.streams.{stream}.{index}")
        rows += _light(rf"{block}\.conv2\.(\d)\.layers\.(\d)", rf"{ours}.streams.\g<2>.\g<3>")
        for name, here in (("conv1", "reduce"), ("conv3", "expand"), ("downsample", "shortcut")):
            rows += [
                (rf"{block}\.{name}\.conv\.weight", rf"{ours}.{here}.conv.weight"),
                (rf"{block}\.{name}\.bn\.{_N}", rf"{ours}.{here}.norm.\N"),
            ]
        rows += [
            (rf"{block}\.gate\.fc1\.(weight|bias)", rf"{ours}.gate.squeeze.\N"),
            (rf"{block}\.gate\.fc2\.(weight|bias)", rf"{ours}.gate.excite.\N"),
        ]
        if stage != "2":
            # OSNet keeps the transition behind the blocks, OSNet-AIN beside them.
            for transition in (rf"{theirs}\.2\.0", rf"pool{int(stage) + 2}\.0"):
                rows += [
                    (rf"{prefix}{transition}\.conv\.weight", rf"transitions.{stage}.conv.weight"),
                    (rf"{prefix}{transition}\.bn\.{_N}", rf"transitions.{stage}.norm.\N"),
                ]
    return tuple(rows)


# The norm called IN of an OSNet block stands within the residual in OSNet-AIN and behind the sum in OSNet-IBN.
def _osnet_instance(place: str, prefix: str = "") -> Table:
    return tuple(
        (rf"{prefix}{theirs}\.([01])\.IN\.(weight|bias)", rf"stages.{stage}.\g<1>.{place}.\N")
        for theirs, stage in _STAGES.items()
    )


_TORCHREID_HEAD: Table = (
    (r"fc\.0\.(weight|bias)", r"neck.linear.\N"),
    (rf"fc\.1\.{_N}", r"neck.norm.\N"),
    (r"classifier\.(weight|bias)", None),
)


def _resnet(prefix: str = "") -> Table:
    rows: list[tuple[str, str | None]] = [
        (rf"{prefix}conv1\.weight", r"stem.conv.weight"),
        (rf"{prefix}bn1\.{_N}", r"stem.norm.\N"),
    ]
    for stage in range(4):
        block = rf"{prefix}layer{stage + 1}\.(\d+)"
        ours = rf"stages.{stage}.\g<1>"
        for number, here in ((1, "first"), (2, "second"), (3, "third")):
            rows += [
                (rf"{block}\.conv{number}\.weight", rf"{ours}.{here}.conv.weight"),
                (rf"{block}\.bn{number}\.{_N}", rf"{ours}.{here}.norm.\N"),
            ]
        rows += [
            (rf"{block}\.bn1\.IN\.(weight|bias)", rf"{ours}.first.norm.instance.\N"),
            (rf"{block}\.bn1\.BN\.{_N}", rf"{ours}.first.norm.batch.\N"),
            (rf"{block}\.IN\.(weight|bias)", rf"{ours}.instance.\N"),
            (rf"{block}\.downsample\.0\.weight", rf"{ours}.shortcut.conv.weight"),
            (rf"{block}\.downsample\.1\.{_N}", rf"{ours}.shortcut.norm.\N"),
        ]
    return tuple(rows)


def _iresnet() -> Table:
    rows: list[tuple[str, str | None]] = [
        (r"conv1\.weight", r"stem.conv.weight"),
        (rf"bn1\.{_N}", r"stem.norm.\N"),
        (r"prelu\.weight", r"stem.act.weight"),
        (rf"bn2\.{_N}", r"norm.\N"),
        (r"fc\.(weight|bias)", r"neck.linear.\N"),
        (rf"features\.{_N}", r"neck.norm.\N"),
    ]
    for stage in range(4):
        block, ours = rf"layer{stage + 1}\.(\d+)", rf"stages.{stage}.\g<1>"
        rows += [
            (rf"{block}\.bn1\.{_N}", rf"{ours}.norm.\N"),
            (rf"{block}\.conv1\.weight", rf"{ours}.first.conv.weight"),
            (rf"{block}\.bn2\.{_N}", rf"{ours}.first.norm.\N"),
            (rf"{block}\.prelu\.weight", rf"{ours}.first.act.weight"),
            (rf"{block}\.conv2\.weight", rf"{ours}.second.conv.weight"),
            (rf"{block}\.bn3\.{_N}", rf"{ours}.second.norm.\N"),
            (rf"{block}\.downsample\.0\.weight", rf"{ours}.shortcut.conv.weight"),
            (rf"{block}\.downsample\.1\.{_N}", rf"{ours}.shortcut.norm.\N"),
        ]
    return tuple(rows)


def _conv_block(theirs: str, ours: str) -> Table:
    """Rows of one convolution with norm and activation of MobileFaceNet."""
    return (
        (rf"{theirs}\.layers\.0\.weight", rf"{ours}.conv.weight"),
        (rf"{theirs}\.layers\.1\.{_N}", rf"{ours}.norm.\N"),
        (rf"{theirs}\.layers\.2\.weight", rf"{ours}.act.weight"),
    )


def _mobilefacenet() -> Table:
    rows: list[tuple[str, str | None]] = [
        *_conv_block(r"layers\.0", "stem"),
        *_conv_block(r"layers\.1", "stages.0"),
        *_conv_block("conv_sep", "tail"),
        *_conv_block(r"features\.layers\.0", "pool"),
        (r"features\.layers\.2\.weight", "neck.linear.weight"),
        (rf"features\.layers\.3\.{_N}", r"neck.norm.\N"),
    ]
    # InsightFace numbers a stage's first bottleneck and its residuals as two layers.
    for i, part in enumerate(("widen", "filter", "narrow")):
        rows += _conv_block(rf"layers\.1\.layers\.(\d+)\.layers\.{i}", rf"stages.0.\g<1>.{part}")
        for stage in range(1, 4):
            rows += _conv_block(rf"layers\.{2 * stage}\.layers\.{i}", f"stages.{stage}.down.{part}")
            residual = rf"layers\.{2 * stage + 1}\.layers\.(\d+)\.layers\.{i}"
            rows += _conv_block(residual, rf"stages.{stage}.residuals.\g<1>.{part}")
    return tuple(rows)


def _vit(prefix: str = "") -> Table:
    block = rf"{prefix}blocks\.(\d+)"
    ours = r"layers.\g<1>"
    return (
        (rf"{prefix}patch_embed\.proj\.(weight|bias)", r"patches.\N"),
        (rf"{prefix}cls_token", "token"),
        (rf"{prefix}pos_embed", "positions"),
        (rf"{prefix}sie_embed", "side"),
        (rf"{block}\.norm([12])\.(weight|bias)", rf"{ours}.norm\g<2>.\N"),
        (rf"{block}\.attn\.qkv\.(weight|bias)", rf"{ours}.attention.qkv.\N"),
        (rf"{block}\.attn\.proj\.(weight|bias)", rf"{ours}.attention.out.\N"),
        (rf"{block}\.mlp\.fc1\.(weight|bias)", rf"{ours}.mlp.first.\N"),
        (rf"{block}\.mlp\.fc2\.(weight|bias)", rf"{ours}.mlp.second.\N"),
        (rf"{prefix}norm\.(weight|bias)", r"norm.\N"),
        (rf"{prefix}(fc|head)\.(weight|bias)", None),
    )


_FASTREID = r"backbone\."
# fast-reid's head may narrow the features by a 1 × 1 convolution before its norm.
_FASTREID_NECK: Table = (
    (rf"heads\.bottleneck\.0\.{_N}", r"neck.norm.\N"),
    (r"heads\.pool_layer\.p", "pool.p"),
    (r"heads\.weight", None),
    (r"heads\.classifier\.weight", None),
    (r"pixel_(mean|std)", None),
)
_FASTREID_NARROW: Table = (
    (r"heads\.bottleneck\.0\.weight", "neck.linear.weight"),
    (rf"heads\.bottleneck\.1\.{_N}", r"neck.norm.\N"),
    *_FASTREID_NECK[1:],
)


@dataclass(frozen=True)
class Layout:
    """How a published project names the weights of one family of networks.

    Attributes
    ----------
    name
        ``project/family``.
    family
        Backbones that it fits, by the beginning of their names.
    table
        Rows of (pattern, key here or None); see the module.
    """

    name: str
    family: str
    table: Table

    def key(self, theirs: str) -> str | None:
        """The key here of a published key; None where it is left out on purpose.

        Raises
        ------
        KeyError
            If no row matches.
        """
        for pattern, ours in self.table:
            if found := re.fullmatch(pattern, theirs):
                return found.expand(ours) if ours is not None else None
        raise KeyError(theirs)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("torchreid/osnet", "osnet", _rows(_osnet() + _TORCHREID_HEAD)),
        Layout("torchreid/osnet_ibn", "osnet_ibn", _rows(_osnet() + _osnet_instance("instance") + _TORCHREID_HEAD)),
        Layout("torchreid/osnet_ain", "osnet_ain", _rows(_osnet() + _osnet_instance("expand.norm") + _TORCHREID_HEAD)),
        Layout("torchreid/resnet", "resnet", _rows(_resnet() + _TORCHREID_HEAD)),
        Layout("arcface_torch/iresnet", "iresnet", _rows(_iresnet())),
        Layout("arcface_torch/mobilefacenet", "mobilefacenet", _rows(_mobilefacenet())),
        Layout("fast-reid/osnet", "osnet", _rows(_osnet(_FASTREID) + _FASTREID_NECK)),
        Layout("fast-reid/resnet", "resnet", _rows(_resnet(_FASTREID) + _FASTREID_NECK)),
        Layout("fast-reid/resnet_narrow", "resnet", _rows(_resnet(_FASTREID) + _FASTREID_NARROW)),
        Layout("fast-reid/vit", "vit", _rows(_vit(_FASTREID) + _FASTREID_NECK)),
        Layout(
            "transreid/vit",
            "vit",
            _rows(_vit(r"base\.") + ((rf"bottleneck\.{_N}", r"neck.norm.\N"), (r"classifier\.weight", None))),
        ),
    )
}
"""The published layouts by name."""


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a published file: safetensors, or what `torch.save` wrote; nothing in it is executed.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}.", "Give the path of an existing file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        hint = "Save its state_dict alone: torch.save(model.state_dict(), path)."
        raise WeightsError(f"{path} cannot be read as weights ({str(error).splitlines()[0]:.200}).", hint) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise WeightsError(
            f"{path} holds no tensors by name.", "Save its state_dict: torch.save(model.state_dict(), f)."
        )
    return tensors


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor] | str | Path, layout: str) -> list[str]:
    """Load published weights into a backbone; all must fit.

    Parameters
    ----------
    network
        A backbone of the layout's family. Its blocks of attention, which no published file has, keep their weights.
    weights
        Tensors by published key, or the file that holds them. A leading ``module.`` is taken off.
    layout
        One of `LAYOUTS`.

    Returns
    -------
    list
        The published keys that were left out on purpose, such as those of classifiers.

    Raises
    ------
    WeightsError
        For an unknown layout, or naming every key that is missing, unknown or of another shape; then the network is
        as before.
    """
    if layout not in LAYOUTS:
        raise WeightsError(f"There is no weight layout {layout!r}.", f"There are {', '.join(LAYOUTS)}.")
    tensors = read_checkpoint(weights) if isinstance(weights, str | Path) else weights
    own = network.state_dict()
    fitted: dict[str, torch.Tensor] = {}
    left_out, extra, shapes = [], [], []
    for theirs, tensor in tensors.items():
        try:
            ours = LAYOUTS[layout].key(theirs.removeprefix("module."))
        except KeyError:
            extra.append(theirs)
            continue
        if ours is None:
            left_out.append(theirs)
        elif ours not in own:
            extra.append(theirs)
        elif [side for side in tensor.shape if side > 1] != [side for side in own[ours].shape if side > 1]:
            shapes.append(f"{theirs} is {tuple(tensor.shape)} where {ours} is {tuple(own[ours].shape)}")
        else:
            # The same numbers may be written as a 1 × 1 convolution there and as a matrix here.
            fitted[ours] = tensor.reshape(own[ours].shape)
    missing = [
        key
        for key in own
        # Old files have no such counters; nothing depends on them.
        if key not in fitted and not key.startswith("attention.") and not key.endswith("num_batches_tracked")
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found)}"
        for what, found in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise WeightsError(
            f"The weights do not fit {type(network).__name__} by the layout {layout}; {'; '.join(problems)}.",
            "Build the network with the options that the weights were trained with, or choose another layout.",
        )
    network.load_state_dict(fitted, strict=False)
    return left_out
