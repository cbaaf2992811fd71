"""What comes between the person and the finished picture: things in front of the camera, and damage to the image."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ipse.world.shot import OCCLUDERS, Degrade, Occluder
from ipse.world.skin import smoothstep, to_linear

_STAMP = 160
"""Things are drawn once this large, then turned and scaled into each picture."""

_GOES_ON: dict[str, tuple[int, int]] = {"hand": (0, 1), "bar": (1, 1)}
"""Which things go on beyond their upper and lower end."""

_LINEAR = to_linear(np.arange(256, dtype=np.float32) / 255)

Points = list[tuple[float, float]]


@lru_cache(maxsize=24)
def occluder(spec: Occluder, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Something in front of the person, a little out of focus.

    A hand's arm goes on out of the picture, and so do a bar's ends; `spec.size` is the extent of what is drawn of them
    by itself.

    Returns:
        color (height, width, 3) float32, linear light, valid where alpha is above 0; and alpha (height, width)
        float32, 0..1. Arrays are shared between calls and must not be written to.
    """
    color = np.zeros((height, width, 3), np.float32)
    alpha = np.zeros((height, width), np.float32)
    side = max(spec.size * width, 2.0)
    up, down = _GOES_ON.get(spec.kind, (0, 0))
    a = np.radians(spec.angle)
    c, s = float(np.cos(a)), float(np.sin(a))
    # The part of the picture it may reach.
    far, reach = 1.5 * (width + height), 0.75 * side
    xs, ys = (-s * far * down, s * far * up, 0.0), (c * far * down, -c * far * up, 0.0)
    x0, x1 = (int(np.clip(spec.x * width + v, 0, width)) for v in (min(xs) - reach, max(xs) + reach + 1))
    y0, y1 = (int(np.clip(spec.y * height + v, 0, height)) for v in (min(ys) - reach, max(ys) + reach + 1))
    if x1 > x0 and y1 > y0:
        stamp = _stamp(spec.kind, spec.color.rgb)
        if 1.25 * side < _STAMP:
            stamp = stamp.resize((max(round(1.25 * side), 3),) * 2, Image.Resampling.BOX)
        scale = stamp.width / side
        # What goes on repeats its last row; the outline of the rest ends at the stamp's edge.
        pad = int(far * scale)
        source = stamp
        if up or down:
            source = Image.fromarray(np.pad(np.asarray(stamp), ((pad * up, pad * down), (0, 0), (0, 0)), "edge"))
        dx, dy, middle = x0 - spec.x * width, y0 - spec.y * height, stamp.width / 2
        k, q = c * scale, s * scale
        # Stamp pixels from picture pixels: about the middle, turned back.
        data = (k, q, k * dx + q * dy + middle, -q, k, -q * dx + k * dy + middle + pad * up)
        patch = source.transform((x1 - x0, y1 - y0), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
        # Near things are not in focus.
        values = np.asarray(patch.filter(ImageFilter.GaussianBlur(max(0.008 * side, 0.4))))
        color[y0:y1, x0:x1] = _LINEAR[values[..., :3]]
        alpha[y0:y1, x0:x1] = values[..., 3] / np.float32(255)
    color.flags.writeable = alpha.flags.writeable = False
    return color, alpha


@lru_cache(maxsize=128)
def _stamp(kind: str, rgb: tuple[float, float, float]) -> Image.Image:
    """A thing in RGBA, upright in the middle of a square of `_STAMP` pixels; its color goes on beyond its outline."""
    return _DRAW[kind](np.asarray(rgb, np.float32))


def _mask(draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    """(S, S) float32 in 0..1, anti-aliased; drawn in coordinates of -1..1 times 320."""
    image = Image.new("L", (2 * _STAMP, 2 * _STAMP))
    draw(ImageDraw.Draw(image))
    return np.asarray(image.reduce(2), np.float32) / 255


def _px(points: Points) -> Points:
    return [((x + 1) * _STAMP, (y + 1) * _STAMP) for x, y in points]


@lru_cache(maxsize=1)
def _xy() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-1 : 1 : _STAMP * 1j, -1 : 1 : _STAMP * 1j].astype(np.float32)
    return x, y


def _soft(mask: np.ndarray, sigma: float) -> np.ndarray:
    image = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(image, np.float32) / 255


def _finish(color: np.ndarray, mask: np.ndarray) -> Image.Image:
    rng = np.random.default_rng(3)
    color = color * (1 + 0.02 * rng.standard_normal(mask.shape)[..., None])
    both = np.concatenate([color, mask[..., None]], 2)
    return Image.fromarray((255 * np.clip(both, 0, 1) + 0.5).astype(np.uint8))


def _round(mask: np.ndarray, depth: float) -> np.ndarray:
    """Light over a rounded thing, about 1: brighter toward the upper left, darker at the outline."""
    inside = _soft(mask, depth)
    gy, gx = np.gradient(inside)
    slope = (-gx - 1.4 * gy) * depth
    return 0.62 + 0.42 * np.clip(2 * inside - 1, 0, 1) - 0.55 * slope


def _hand(color: np.ndarray) -> Image.Image:
    """A hand seen from its back, fingers up, in a sleeve of the color."""
    fingers = (
        ((-0.40, 0.14), (-0.49, -0.34), 0.100),
        ((-0.19, 0.02), (-0.23, -0.60), 0.112),
        ((0.03, 0.0), (0.04, -0.70), 0.116),
        ((0.25, 0.06), (0.31, -0.56), 0.112),
        ((0.33, 0.44), (0.68, 0.0), 0.125),
    )

    def capsule(pen: ImageDraw.ImageDraw, a: tuple[float, float], b: tuple[float, float], r: float, end: float) -> None:
        n = 14
        for k in range(n + 1):
            t = k / n
            x, y, q = a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, r * (1 + (end - 1) * t)
            (x0, y0), (x1, y1) = _px([(x - q, y - q), (x + q, y + q)])
            pen.ellipse((x0, y0, x1, y1), fill=255)

    def palm(pen: ImageDraw.ImageDraw) -> None:
        outline = [(-0.50, 0.05), (-0.2, -0.06), (0.1, -0.06), (0.34, 0.1), (0.37, 0.5), (0.2, 1.0), (-0.3, 1.0)]
        pen.polygon(_px(outline), fill=255)
        capsule(pen, (-0.36, 0.15), (-0.14, 0.75), 0.17, 1.0)
        capsule(pen, (0.18, 0.15), (0.06, 0.75), 0.2, 1.0)

    whole = _mask(palm)
    shade = _round(whole, 9.0)
    for a, b, r in fingers:
        finger = _mask(lambda pen, a=a, b=b, r=r: capsule(pen, a, b, r, 0.8))
        light = _round(finger, 5.0)
        # Fingers lie over the palm and each other with a thin shadow.
        edge = _soft(finger, 2.5) * (1 - finger)
        shade = (shade * (1 - 0.35 * edge)) * (1 - finger) + light * finger
        whole = np.maximum(whole, finger)
    x, y = _xy()
    for a, b, _ in fingers:
        for t in (0.48, 0.74):
            kx, ky = a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
            shade *= 1 - 0.12 * np.exp(-(((x - kx) / 0.07) ** 2) - ((y - ky) / 0.018) ** 2)
    skin = np.array([0.78, 0.58, 0.47], np.float32)
    # A person's skin may be any; a hand in front of the camera takes its tone from the color's lightness.
    skin = skin * (0.45 + 0.62 * float(color.mean()) ** 0.6)
    warm = np.stack([shade**0.8, shade, shade**1.1], -1)
    paint = skin * warm
    cuff = smoothstep(0.74, 0.78, y + 0.03 * np.cos(4 * x))[..., None]
    cloth = color * (0.66 + 0.36 * np.cos(2.4 * x + 0.5) + 0.05 * np.sin(26 * x + 9 * y))[..., None]
    paint = paint * (1 - cuff) + cloth * cuff
    sleeve = _mask(lambda pen: pen.polygon(_px([(-0.42, 0.76), (0.36, 0.76), (0.46, 1.0), (-0.52, 1.0)]), 255))
    return _finish(paint, np.maximum(whole, sleeve))


def _cup(color: np.ndarray) -> Image.Image:
    """A mug with its handle at the right."""
    x, y = _xy()
    body = _mask(lambda pen: pen.rounded_rectangle(_corners(-0.62, -0.72, 0.42, 0.82), radius=34, fill=255))
    rim = ((x + 0.10) / 0.52) ** 2 + ((y + 0.70) / 0.14) ** 2
    body = np.maximum(body * (y > -0.70), smoothstep(1.04, 0.98, rim))
    ring = np.hypot((x - 0.46) / 0.36, (y - 0.02) / 0.46)
    handle = smoothstep(1.03, 0.99, ring) * smoothstep(0.62, 0.66, ring) * smoothstep(0.36, 0.40, x)
    across = np.clip((x + 0.10) / 0.52, -1, 1)
    shade = 0.45 + 0.6 * np.sqrt(1 - across**2) * (1 - 0.35 * across) + 0.45 * np.exp(-(((across + 0.55) / 0.10) ** 2))
    shade *= 1 - 0.12 * smoothstep(0.3, 0.9, y)
    hshade = 0.55 + 0.5 * np.exp(-(((ring - 0.84) / 0.10) ** 2)) * (1 - 0.4 * y)
    paint = color * np.where(body > handle, shade, hshade)[..., None]
    inside = smoothstep(0.90, 0.84, rim)[..., None]
    drink = np.array([0.20, 0.11, 0.06]) * (0.8 + 0.5 * (x + 0.4))[..., None]
    lip = smoothstep(1.02, 0.98, rim)[..., None]
    paint = paint * (1 - lip) + np.minimum(color * 1.25 + 0.06, 1) * lip
    paint = paint * (1 - inside) + drink * inside
    gloss = 0.30 * np.exp(-(((across + 0.55) / 0.06) ** 2)) * smoothstep(-0.6, -0.4, y) * smoothstep(0.7, 0.4, y)
    return _finish(paint + gloss[..., None], np.maximum(body, handle))


def _phone(color: np.ndarray) -> Image.Image:
    """A phone from behind, with its cameras."""
    x, y = _xy()
    mask = _mask(lambda pen: pen.rounded_rectangle(_corners(-0.47, -0.97, 0.47, 0.97), radius=26, fill=255))
    sheen = 0.85 + 0.28 * smoothstep(0.5, -0.7, y + 0.6 * x) + 0.25 * np.exp(-(((y + 0.9 * x + 0.1) / 0.16) ** 2))
    paint = color * sheen[..., None] + 0.05 * sheen[..., None]
    edge = mask * (1 - np.clip(2 * _soft(mask, 3.0) - 1, 0, 1)) ** 3
    paint = paint + 0.35 * edge[..., None] * (y < 0.2)[..., None]
    module = _mask(lambda pen: pen.rounded_rectangle(_corners(-0.40, -0.90, 0.02, -0.46), radius=16, fill=255))
    paint = paint * (1 - 0.25 * module[..., None])
    for cx, cy in ((-0.29, -0.79), (-0.29, -0.57), (-0.09, -0.68)):
        r = np.hypot(x - cx, y - cy)
        ring, glass = smoothstep(0.098, 0.088, r)[..., None], smoothstep(0.075, 0.068, r)[..., None]
        paint = paint * (1 - ring) + 0.42 * ring
        paint = paint * (1 - glass) + np.array([0.03, 0.03, 0.05]) * glass
        paint = paint + 0.6 * np.exp(-((np.hypot(x - cx + 0.025, y - cy + 0.025) / 0.014) ** 2))[..., None]
    return _finish(paint, mask)


def _bar(color: np.ndarray) -> Image.Image:
    """A round bar from edge to edge of the stamp."""
    x, y = _xy()
    across = np.clip(x / 0.16, -1, 1)
    mask = smoothstep(0.165, 0.155, np.abs(x))
    shade = 0.28 + 0.75 * np.sqrt(1 - across**2) * (1 - 0.45 * across)
    shine = 0.4 * np.exp(-(((across + 0.45) / 0.16) ** 2))
    paint = color * (shade * (1 + 0.08 * np.sin(3 * y)))[..., None] + shine[..., None]
    return _finish(paint, mask)


def _leaf(color: np.ndarray) -> Image.Image:
    """A leaf with its veins, between green and the color."""
    x, y = _xy()
    t = np.clip((y + 0.95) / 1.75, 0, 1)
    half = 0.50 * np.clip(np.sin(np.pi * t**0.8), 0, 1) ** 0.85 * (1 + 0.025 * np.cos(46 * t))
    bend = 0.10 * np.sin(2.2 * y)
    blade = smoothstep(0.012, -0.012, np.abs(x - bend) - half) * (t > 0) * (t < 1)
    stem = smoothstep(0.032, 0.018, np.abs(x - bend)) * (y > 0.5)
    rise = (y + 0.75 * np.abs(x - bend)) * 15
    veins = np.exp(-((((rise % 2) - 1) / 0.16) ** 2)) * 0.5
    veins = np.maximum(veins, np.exp(-(((x - bend) / 0.022) ** 2)))
    green = 0.75 * np.array([0.22, 0.42, 0.14], np.float32) + 0.25 * color
    shade = 0.72 + 0.32 * np.sin(rise * np.pi) * 0.25 + 0.30 * np.sign(bend - x) * 0.5 - 0.25 * y
    paint = green * shade[..., None] + 0.10 * veins[..., None] * np.array([0.9, 1.0, 0.5])
    return _finish(paint, np.maximum(blade, stem))


def _blob(color: np.ndarray) -> Image.Image:
    """Something too near to be told: a soft shape."""
    x, y = _xy()
    angle = np.arctan2(y, x)
    edge = 0.74 + 0.07 * np.sin(2 * angle + 0.6) + 0.05 * np.sin(3 * angle + 2) + 0.02 * np.sin(5 * angle)
    mask = smoothstep(0.15, -0.18, np.hypot(x, y) - edge)
    shade = 0.75 - 0.22 * x - 0.30 * y + 0.1 * np.sin(5 * x + 3 * y)
    return _finish(color * shade[..., None], mask)


def _corners(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    (a, b), (c, d) = _px([(x0, y0), (x1, y1)])
    return a, b, c, d


_DRAW: dict[str, Callable[[np.ndarray], Image.Image]] = dict(
    zip(OCCLUDERS, (_hand, _cup, _phone, _bar, _leaf, _blob), strict=True)
)

_CLEAN = Degrade()


def degrade(image: np.ndarray, spec: Degrade, seed: int = 0) -> np.ndarray:
    """Spoil a picture the way `Degrade` says, in the order of its documentation.

    Args:
        image: (H, W, 3) uint8, sRGB.
        spec: what to do; the default leaves the picture as it is.
        seed: of the noise.

    Returns:
        (H, W, 3) uint8: `image` itself where there is nothing to do.
    """
    if spec == _CLEAN:
        return image
    if spec.exposure or spec.contrast != 1:
        image = _tone_table(spec.exposure, spec.contrast)[image]
    if spec.saturation != 1:
        gray = image @ np.array([0.299, 0.587, 0.114], np.float32)
        image = np.clip(gray[..., None] + spec.saturation * (image - gray[..., None]) + 0.5, 0, 255).astype(np.uint8)
    if spec.blur_px or spec.low_res < 1 or spec.jpeg < 100 or spec.noise:
        image = _spoil(image, spec, seed)
    return image


@lru_cache(maxsize=64)
def _tone_table(exposure: float, contrast: float) -> np.ndarray:
    """(256,) uint8: exposure in linear light, contrast about middle gray in sRGB."""
    linear = to_linear(np.arange(256, dtype=np.float32) / 255) * 2.0**exposure
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055)
    if exposure > 0:
        # Highlights roll off instead of clipping hard.
        knee = 0.85
        over = np.maximum(srgb - knee, 0)
        srgb = np.minimum(srgb, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee)))
    return np.clip(255 * (0.5 + contrast * (srgb - 0.5)) + 0.5, 0, 255).astype(np.uint8)


def _spoil(image: np.ndarray, spec: Degrade, seed: int) -> np.ndarray:
    picture = Image.fromarray(image)
    if spec.blur_px:
        picture = picture.filter(ImageFilter.GaussianBlur(spec.blur_px))
    if spec.low_res < 1:
        size = picture.size
        small = tuple(max(round(n * spec.low_res), 4) for n in size)
        picture = picture.resize(small, Image.Resampling.BOX).resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    if spec.noise:
        picture = Image.fromarray(_noisy(np.asarray(picture), spec.noise, seed))
    if spec.jpeg < 100:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=spec.jpeg)
        picture = Image.open(buffer)
    return np.asarray(picture)


@lru_cache(maxsize=1)
def _normal_bank() -> np.ndarray:
    """(2^21,) float32 normal numbers: drawing fresh ones would cost more than all other damage."""
    return np.random.default_rng(77).standard_normal(1 << 21, dtype=np.float32)


def _normals(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers from a random place of the bank; the largest pictures repeat it."""
    bank, count = _normal_bank(), int(np.prod(shape))
    start = int(rng.integers(len(bank)))
    if start + count <= len(bank):
        return bank[start : start + count].reshape(shape)
    return np.resize(np.roll(bank, -start), shape)


def _noisy(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Sensor noise: mostly brightness, some color; less in the light, as after a camera's tone curve."""
    rng = np.random.default_rng([seed, 77])
    # Three quarters of the variance are common to the channels.
    noise = 0.866 * _normals(rng, image.shape[:2])[..., None] + 0.5 * _normals(rng, image.shape)
    value = image.astype(np.float32)
    noise *= 1.15 * 255 * deviation - 0.3 * deviation * value
    value += noise
    value += 0.5
    return np.clip(value, 0, 255, out=value).astype(np.uint8)
