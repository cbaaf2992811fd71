"""Showing the truth about a picture to people."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ipse.images import contact_sheet
from ipse.world.landmarks import DENSE_GROUPS
from ipse.world.parts import LABELS, shares
from ipse.world.render import Picture, Truth

PART_COLORS: dict[str, tuple[int, int, int]] = {
    "background": (28, 30, 36),
    "skin": (214, 150, 112),
    "face": (245, 196, 160),
    "ears": (200, 110, 90),
    "eyes": (250, 250, 250),
    "brows": (110, 70, 40),
    "lips": (206, 58, 84),
    "mouth": (120, 20, 40),
    "hair": (120, 84, 190),
    "beard": (86, 56, 130),
    "glasses": (0, 210, 220),
    "hat": (255, 140, 0),
    "mask": (150, 220, 255),
    "scarf": (255, 110, 180),
    "top": (46, 130, 220),
    "bottom": (30, 160, 110),
    "dress": (170, 200, 50),
    "coat": (20, 80, 140),
    "shoes": (250, 210, 60),
    "bag": (150, 100, 60),
    "occluder": (150, 150, 155),
}
"""sRGB 0..255 by class of the segmentation."""

_GROUP_COLORS = {
    "jaw": (80, 200, 255),
    "brows": (255, 180, 60),
    "nose": (120, 240, 120),
    "eyes": (255, 255, 90),
    "lips": (255, 110, 150),
    "pupils": (255, 255, 255),
}
# Pairs of COCO keypoints that a limb joins.
_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (5, 6), (5, 11), (6, 12), (11, 12)) + (
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
)
# Panels at least this high: smaller pictures are enlarged, so that points do not hide what they mark.
_PANEL = 288


def truth_sheet(picture: Picture, title: str = "") -> Image.Image:
    """A picture and its truth side by side: landmarks, body and boxes, segmentation with its key, depth, normals, UV.

    Filled points can be seen in the picture; hollow ones are hidden or outside.
    """
    truth = picture.truth
    zoom = max(1, math.ceil(_PANEL / truth.parts.shape[0]))
    image = Image.fromarray(picture.image)
    image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.BICUBIC)
    palette = np.array([PART_COLORS[name] for name in LABELS], np.uint8)
    parts = _enlarge(palette[truth.parts], zoom)
    panels = {
        "picture": image,
        "face landmarks": _landmarks(image, truth, zoom),
        "body keypoints and boxes": _skeleton(image, truth, zoom),
        "depth": Image.fromarray(_enlarge(_depth(truth.depth), zoom)),
        "parts": Image.blend(image, Image.fromarray(parts), 0.75),
        "key of the parts": _key(truth, image.size),
        "normals": Image.fromarray(_enlarge(_normals(truth.normals), zoom)),
        "UV of the skin": Image.fromarray(_enlarge(_uv(truth.uv), zoom)),
    }
    columns = 4 if image.width * 2 > image.height else 8
    return contact_sheet(list(panels.values()), columns, list(panels), title=title, background=(250, 250, 248))


def _enlarge(colors: np.ndarray, zoom: int) -> np.ndarray:
    return colors.repeat(zoom, 0).repeat(zoom, 1)


def _dot(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple[int, int, int], filled: bool
) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, fill=color if filled else None, outline=(0, 0, 0) if filled else color)


def _landmarks(image: Image.Image, truth: Truth, zoom: int) -> Image.Image:
    shown = image.copy()
    draw = ImageDraw.Draw(shown)
    # A face that fills little of the picture gets small points.
    wide = (truth.face_box[2] - truth.face_box[0]) * zoom
    radius = max(1.0, min(3.0, wide / 70))
    for name, rows in DENSE_GROUPS.items():
        for (x, y), seen in zip(truth.dense[rows] * zoom, truth.dense_visible[rows], strict=True):
            _dot(draw, x, y, radius, _GROUP_COLORS[name], bool(seen))
    for (x, y), seen in zip(truth.five * zoom, truth.five_visible, strict=True):
        _dot(draw, x, y, 1.6 * radius, (255, 40, 40), bool(seen))
    return shown


def _skeleton(image: Image.Image, truth: Truth, zoom: int) -> Image.Image:
    shown = image.copy()
    draw = ImageDraw.Draw(shown)
    points = truth.keypoints * zoom
    for a, b in _LIMBS:
        seen = truth.keypoints_visible[a] and truth.keypoints_visible[b]
        draw.line((*points[a], *points[b]), fill=(90, 220, 120) if seen else (120, 120, 120), width=2)
    for (x, y), seen in zip(points, truth.keypoints_visible, strict=True):
        _dot(draw, x, y, 4, (255, 235, 60), bool(seen))
    for box, color in ((truth.face_box, (255, 90, 90)), (truth.body_box, (90, 160, 255))):
        if box is not None:
            draw.rectangle([side * zoom for side in box], outline=color, width=2)
    return shown


def _key(truth: Truth, size: tuple[int, int]) -> Image.Image:
    """The names and colors of the parts in the picture, the largest first."""
    present = sorted(shares(truth.parts).items(), key=lambda entry: -entry[1])
    panel = Image.new("RGB", size, (250, 250, 248))
    draw = ImageDraw.Draw(panel)
    line = min(22, size[1] // (len(present) + 1))
    font = ImageFont.load_default(max(8, round(0.62 * line)))
    for row, (name, share) in enumerate(present):
        y = line // 2 + row * line
        draw.rectangle((8, y, 8 + line * 0.8, y + line * 0.75), fill=PART_COLORS[name], outline=(90, 90, 90))
        draw.text((16 + line, y), f"{name}  {share:.1%}", fill=(20, 20, 20), font=font)
    return panel


def _depth(depth: np.ndarray) -> np.ndarray:
    """Near is light, far is dark, the background is black."""
    shown = np.zeros((*depth.shape, 3), np.uint8)
    here = depth > 0
    if here.any():
        near, far = np.percentile(depth[here], [0.5, 99.5])
        light = 1 - np.clip((depth[here] - near) / max(far - near, 1e-6), 0, 1)
        stops = np.array([[40, 20, 90], [190, 60, 110], [255, 235, 160]], float)
        shown[here] = np.stack([np.interp(light, [0, 0.5, 1], stops[:, channel]) for channel in range(3)], -1)
    return shown


def _normals(normals: np.ndarray) -> np.ndarray:
    shown = np.rint(normals * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
    shown[(normals == 0).all(-1)] = 0
    return shown


def _uv(uv: np.ndarray) -> np.ndarray:
    """Red is u, green is v, with lines every twentieth."""
    shown = np.zeros((*uv.shape[:2], 3), np.uint8)
    here = (uv >= 0).all(-1)
    shown[here, :2] = np.rint(uv[here].clip(0, 1) * 255)
    shown[here, 2] = np.where((np.floor(uv[here] * 40) % 2).sum(-1) == 1, 150, 60)
    return shown
