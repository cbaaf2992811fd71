"""Images as arrays: reading anything, cutting, resizing, color, contact sheets, writing with provenance.

Everywhere in ipse an image is a NumPy array of shape (height, width, 3), `uint8`, RGB, sRGB-encoded, upright; pixel
coordinates are (x, y) with the origin at the outer corner of the top-left pixel; boxes are (left, top, right, bottom).
"""

from __future__ import annotations

import errno
import functools
import io
import json
import math
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, JpegImagePlugin, PngImagePlugin

from ipse._files import atomic_write
from ipse.errors import ImageError

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray
"""What `read_image` takes: a path, encoded bytes, a Pillow image or an array."""

MAX_PIXELS = 64_000_000
"""Images of more pixels than this are decoded smaller where the format allows it, and refused otherwise."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm"}
)
"""File name endings, lower case, that `image_files` takes for images."""

# Raster formats only: Pillow also opens EPS (which starts Ghostscript) and metafiles, unwise for strangers' files.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


def read_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = (255, 255, 255)
) -> npt.NDArray[np.uint8]:
    """Read an image from wherever it is into the one form that ipse works on.

    The EXIF orientation is applied, transparency is laid over `background`, 16-bit and floating-point values are
    scaled to 8 bits, of an animation the first frame is taken. Color profiles are not applied.

    Parameters
    ----------
    source
        A path, the bytes of an image file, a Pillow image, or an array of shape (H, W), (H, W, 1), (H, W, 2: gray and
        alpha), (H, W, 3) or (H, W, 4) holding `bool`, `uint8`, `uint16`, or floats between 0 and 1.
    max_pixels
        The most pixels to hold. A larger JPEG is decoded at a half, a quarter or an eighth of its size, so that
        coordinates are those of the array returned, not of the file; a larger image of another kind is refused.
    background
        RGB, 0–255, behind transparent pixels.

    Returns
    -------
    numpy.ndarray
        (H, W, 3) `uint8`, contiguous. An array given in just this form is returned as it is, not copied.

    Raises
    ------
    ImageError
        With its `reason` saying what is wrong; no other exception is raised for any content of a file.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels, background)
    if isinstance(source, Image.Image):
        name = "the image"
        _check_size(source.size, max_pixels, name)
        with _decoding(name):
            return _to_rgb(source, background)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), "the image given as bytes", max_pixels, background)
    path = Path(source)
    with _open(path) as file:
        return _decode(file, str(path), max_pixels, background)


def image_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Walk over the images below a folder, in the same order on every machine.

    Files of a folder come first, sorted by name, then its subfolders, sorted by name. Hidden files and folders are
    passed over, links to folders are not followed. Names decide (`IMAGE_SUFFIXES`); no file is opened.

    Raises
    ------
    ImageError
        If `folder` is missing or not a folder (at the first step, not at the call).
    """
    root = Path(folder)
    if not root.is_dir():
        reason = "unreadable" if root.exists() else "missing"
        raise ImageError(f"{root} is not a folder.", "Name a folder that holds images.", reason=reason)
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def crop(
    image: npt.NDArray[Any], box: Sequence[float] | npt.NDArray[Any], pad: float = 0.0, *, fill: int = 0
) -> npt.NDArray[Any]:
    """Cut a box out of an image or a map.

    Parameters
    ----------
    image
        (H, W) or (H, W, C), any type.
    box
        (left, top, right, bottom) in pixels; edges are rounded to whole pixels and may lie outside the image.
    pad
        What to add on each side, as a fraction of the box's width (left and right) and height (top and bottom).
    fill
        The value of pixels outside the image.

    Returns
    -------
    numpy.ndarray
        A new array of the box's size.

    Raises
    ------
    ImageError
        ``bad-box`` if the box is empty, not finite, or does not touch the image.
    """
    height, width = image.shape[:2]
    try:
        edges = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _bad_box(box, "is not four numbers") from error
    if edges.shape != (4,) or not np.isfinite(edges).all():
        raise _bad_box(box, "is not four finite numbers")
    margin = pad * (edges[2:] - edges[:2])
    left, top, right, bottom = np.rint(np.concatenate([edges[:2] - margin, edges[2:] + margin])).tolist()
    if right <= left or bottom <= top:
        raise _bad_box(box, "has no area")
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise _bad_box(box, f"lies outside the image of {width}×{height} pixels")
    if (right - left) * (bottom - top) > max(MAX_PIXELS, height * width):
        raise _bad_box(box, "is far larger than the image")
    x0, y0, x1, y1 = int(left), int(top), int(right), int(bottom)
    out = np.full((y1 - y0, x1 - x0, *image.shape[2:]), fill, dtype=image.dtype)
    inside = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    top_gap, left_gap = max(-y0, 0), max(-x0, 0)
    out[top_gap : top_gap + inside.shape[0], left_gap : left_gap + inside.shape[1]] = inside
    return out


def resize(image: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    """Resize an image: the mean over each pixel's area when it shrinks both ways, bicubic otherwise.

    Parameters
    ----------
    image
        (H, W) or (H, W, C); `uint8` or floating point.
    width, height
        The new size in pixels, at least 1.

    Returns
    -------
    numpy.ndarray
        (height, width) or (height, width, C); `uint8` for `uint8`, `float32` for floats (not clipped: bicubic can
        overshoot).

    Raises
    ------
    ImageError
        ``no-pixels`` for an empty image or size, ``bad-array`` for another type.
    """
    if min(width, height) < 1 or image.size == 0:
        raise ImageError(
            f"Cannot resize {image.shape[1]}×{image.shape[0]} to {width}×{height}: a side is empty.",
            "Sides must be at least 1 pixel.",
            reason="no-pixels",
        )
    shrinks = width <= image.shape[1] and height <= image.shape[0]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 3):
        return np.array(Image.fromarray(image).resize((width, height), method))
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ImageError(
            f"Cannot resize an array of {image.dtype}.",
            "Convert it to uint8 or float32; pick labels by index instead.",
            reason="bad-array",
        )
    planes = image[..., None] if image.ndim == 2 else image
    kind = np.uint8 if image.dtype == np.uint8 else np.float32
    out = np.empty((height, width, planes.shape[2]), dtype=kind)
    for channel in range(planes.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(planes[..., channel], dtype=kind))
        out[..., channel] = np.asarray(plane.resize((width, height), method))
    return out[..., 0] if image.ndim == 2 else out


def to_float(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scale `uint8` 0–255 to `float32` 0–1, same shape."""
    return image.astype(np.float32) / np.float32(255)


def from_float(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Scale floats 0–1 to `uint8` 0–255, same shape, rounded; values outside are clipped."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def srgb_to_linear(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Decode sRGB (floats 0–1, any shape) to linear light (`float32` 0–1, same shape)."""
    c = np.asarray(image, dtype=np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((np.maximum(c, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Encode linear light (floats 0–1, any shape) as sRGB (`float32` 0–1, same shape)."""
    c = np.asarray(image, dtype=np.float32)
    return np.where(c <= 0.0031308, c * 12.92, 1.055 * np.maximum(c, 0) ** (1 / 2.4) - 0.055).astype(np.float32)


_XYZ_OF_RGB = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]],
    dtype=np.float32,
)
# Scaled by the white point that the matrix itself gives (D65), so that gray has exactly a = b = 0.
_XYZ_OF_RGB /= _XYZ_OF_RGB.sum(axis=1, keepdims=True)


def rgb_to_lab(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Convert sRGB to CIELAB (D65).

    Parameters
    ----------
    image
        (..., 3); `uint8` 0–255 or floats 0–1.

    Returns
    -------
    numpy.ndarray
        (..., 3) `float32`: L 0–100, a and b about −128–127.
    """
    rgb = to_float(image) if image.dtype == np.uint8 else image
    xyz = srgb_to_linear(rgb) @ _XYZ_OF_RGB.T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def contact_sheet(
    images: Sequence[ImageSource],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    *,
    title: str = "",
    cell: tuple[int, int] | None = None,
    gap: int = 8,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Lay images out on one sheet, row by row, each with a label below it.

    Parameters
    ----------
    images
        At least one; anything `read_image` takes; sizes may differ.
    columns
        Images per row; by default the sheet is about square.
    labels
        One text per image; a text too long for its cell is shortened with an ellipsis; line breaks are kept.
    title
        A line above the sheet.
    cell
        (width, height) in pixels that every image is fitted into, keeping its shape; by default the largest width
        and height among the images, so that none is resized.
    gap
        Pixels between cells and around the sheet.
    background
        RGB, 0–255. Text is black or white, whichever reads better on it.

    Raises
    ------
    ImageError
        ``no-pixels`` if there are no images, ``bad-array`` if labels and images differ in number.
    """
    pictures = [read_image(image) for image in images]
    if not pictures:
        raise ImageError("A contact sheet needs at least one image.", "The list is empty.", reason="no-pixels")
    if labels is not None and len(labels) != len(pictures):
        raise ImageError(
            f"{len(labels)} labels for {len(pictures)} images.", "Give one label per image.", reason="bad-array"
        )
    wide, high = cell or (max(p.shape[1] for p in pictures), max(p.shape[0] for p in pictures))
    per_row = columns or math.ceil(math.sqrt(len(pictures) * high / wide))
    per_row = max(1, min(per_row, len(pictures)))
    rows = math.ceil(len(pictures) / per_row)
    size = min(20, max(10, wide // 12))
    font = ImageFont.load_default(size)
    line = round(size * 1.35)
    under = line * max(label.count("\n") + 1 for label in labels) + 2 if labels else 0
    above = round(line * 1.6) if title else 0

    sheet = Image.new(
        "RGB", (per_row * (wide + gap) + gap, rows * (high + under + gap) + gap + above), tuple(background)
    )
    draw = ImageDraw.Draw(sheet)
    ink = (20, 20, 20) if sum(background) > 382 else (235, 235, 235)
    if title:
        shown = _shorten(title, draw, ImageFont.load_default(round(size * 1.2)), sheet.width - 2 * gap)
        draw.text((gap, gap), shown, fill=ink, font=ImageFont.load_default(round(size * 1.2)))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, per_row)
        left, top = gap + column * (wide + gap), gap + above + row * (high + under + gap)
        h, w = picture.shape[:2]
        scale = min(wide / w, high / h)
        # Without `cell` nothing is resized, so that a pixel of the sheet is a pixel of the image.
        if cell and scale != 1:
            picture = resize(picture, max(1, round(w * scale)), max(1, round(h * scale)))
            h, w = picture.shape[:2]
        sheet.paste(Image.fromarray(picture), (left + (wide - w) // 2, top + (high - h) // 2))
        for number, text in enumerate(labels[index].split("\n") if labels else ()):
            shown = _shorten(text, draw, font, wide)
            x = left + (wide - draw.textlength(shown, font=font)) / 2
            draw.text((x, top + high + 2 + number * line), shown, fill=ink, font=font)
    return sheet


def save_png(
    image: npt.NDArray[np.uint8] | Image.Image,
    path: str | os.PathLike[str],
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Write a PNG that carries its provenance; the file appears whole or not at all.

    Parameters
    ----------
    image
        An array that `read_image` takes, or a Pillow image.
    path
        Where to write; missing parent folders are made, an existing file is replaced.
    metadata
        Text entries of the PNG, by keyword (1–79 characters of Latin-1); values that are not text are written as
        JSON.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    ImageError
        ``unwritable`` if the file cannot be written there.
    ValueError
        If a keyword is not one.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(read_image(image))
    info = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        if not 1 <= len(key.encode("latin-1")) <= 79:
            raise ValueError(f"A PNG keyword has 1 to 79 characters, not {len(key)}: {key[:80]!r}.")
        info.add_text(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))
    try:
        with atomic_write(path) as file:
            picture.save(file, format="PNG", pnginfo=info)
    except OSError as error:
        raise ImageError(
            f"Cannot write {os.fspath(path)}: {error.strerror or error}.",
            "Choose a folder that you may write to, with space left.",
            reason="unwritable",
        ) from error
    return Path(path)


def _open(path: Path) -> BinaryIO:
    """Open a regular file for reading, or say why it cannot be one."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise ImageError(
                f"{path} is a folder, not an image.", "Use image_files() to list the images in it.", reason="directory"
            )
        if not stat.S_ISREG(kind):
            # Opening a pipe would wait for a writer that may never come.
            raise ImageError(f"{path} is not a regular file.", "Name an image file.", reason="unreadable")
        return path.open("rb")
    except ValueError as error:
        raise ImageError(f"{str(path)!r} is not a path.", "Name an image file.", reason="missing") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise ImageError(f"{path} does not exist.", "Check the path.", reason="missing") from error
        raise ImageError(
            f"{path} cannot be read: {error.strerror}.", "Check the file's permissions.", reason="unreadable"
        ) from error


def _decode(file: BinaryIO, name: str, max_pixels: int, background: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Decode an image file; `name` is what errors call it."""
    head = file.read(32)
    if not head:
        raise ImageError(f"{name} is empty.", "Copy or download it again.", reason="empty")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # Sizes are checked below, against the limit that the caller chose; damaged metadata hurt nobody.
            warnings.simplefilter("ignore")
            # Image.open refuses large JPEGs before they can be decoded small, and splits phones' two-picture files.
            if head.startswith(b"\xff\xd8"):
                image: Image.Image = JpegImagePlugin.JpegImageFile(file)
            else:
                image = Image.open(file, formats=_formats())
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise _too_large(name, f"{int(pixels[0]):,} pixels" if pixels else str(error), max_pixels) from error
    except Exception as error:
        raise _not_an_image(head, name) from error
    if image.format == "JPEG":
        _shrink_jpeg(image, max_pixels)
    _check_size(image.size, max_pixels, name)
    with image, _decoding(name):
        image.load()
        return _to_rgb(image, background)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError`; Pillow's decoders raise almost every built-in exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            f"{name} does not fit into memory.", "Read a smaller copy of it.", reason="too-large"
        ) from error
    except Exception as error:
        if isinstance(error, EOFError) or any(word in str(error).lower() for word in ("truncated", "not enough")):
            raise ImageError(
                f"{name} is cut short: the file ends before the image does.",
                "Copy or download it again.",
                reason="truncated",
            ) from error
        raise ImageError(f"{name} is damaged: {error}.", "Copy or download it again.", reason="corrupt") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with, of those we read."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _shrink_jpeg(image: Image.Image, max_pixels: int) -> None:
    """Set a JPEG to decode at the largest of 1, 1/2, 1/4, 1/8 of its size that fits, if any does."""
    width, height = image.size
    for divisor in (1, 2, 4, 8):
        # The decoder rounds sides up.
        if math.ceil(width / divisor) * math.ceil(height / divisor) <= max_pixels:
            # A second draft() on one image is ignored, so this asks once, for the final size.
            image.draft(None, (max(1, width // divisor), max(1, height // divisor)))
            return


def _check_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    width, height = size
    if min(width, height) < 1:
        raise _empty_image(size, name)
    if width * height > max_pixels:
        raise _too_large(name, f"{width}×{height} pixels", max_pixels)


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Bring a decoded Pillow image to upright 8-bit RGB."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        # Damaged metadata is no reason to lose the picture.
        turn = None
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith(("I", "F")):
        return _gray(_wide_to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        over = Image.new("RGBA", image.size, (*background, 255))
        over.alpha_composite(image.convert("RGBA"))
        image = over
    return np.array(image.convert("RGB"))


def _wide_to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale gray values wider than 8 bits by the range that their type or their maximum implies."""
    if values.dtype.itemsize == 2:
        return _uint16_to_uint8(values)
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max(initial=0.0))
    if np.issubdtype(values.dtype, np.floating):
        full = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0 if top <= 65535 else top
    else:
        full = 255.0 if top <= 255 else 65535.0 if top <= 65535 else top
    return from_float(finite / full)


def _uint16_to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    # 65535 = 255 · 257, so this rounds exactly.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _gray(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(values[..., None], 3, axis=2)


def _from_array(array: npt.NDArray[Any], max_pixels: int, background: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Bring an array of any accepted shape and type to (H, W, 3) uint8."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise ImageError(
            f"An array of shape {array.shape} is not an image.",
            "Give (height, width) or (height, width, 1 to 4 channels); move channels last and pass images one by one.",
            reason="bad-array",
        )
    _check_size((array.shape[1], array.shape[0]), max_pixels, "the array")
    if array.dtype == np.uint8:
        values = array
    elif array.dtype == np.bool_:
        values = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        values = _uint16_to_uint8(array)
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        # Written so that NaN fails too; a hair outside 0–1 is rounding.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ImageError(
                f"Floating-point images go from 0 to 1; this array goes from {low:g} to {high:g}.",
                "Divide by 255, or convert it to uint8.",
                reason="bad-array",
            )
        values = from_float(array)
    else:
        raise ImageError(
            f"An array of {array.dtype} is not an image.",
            "Convert it to uint8 (0–255) or to float (0–1).",
            reason="bad-array",
        )
    if values.ndim == 2:
        return _gray(values)
    if values.shape[2] in (2, 4):
        alpha = values[..., -1:].astype(np.float32) / 255
        color = values[..., :-1].astype(np.float32)
        over = color * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)
        return np.rint(over).astype(np.uint8)
    if values.shape[2] == 1:
        return _gray(values[..., 0])
    return np.ascontiguousarray(values)


def _not_an_image(head: bytes, name: str) -> ImageError:
    # Pillow does not take these for images at all.
    sizes = {b"\x89PNG": struct.Struct(">16xII"), b"BM": struct.Struct("<18xii")}
    for magic, size in sizes.items():
        if head.startswith(magic) and len(head) >= size.size and 0 in size.unpack_from(head):
            return _empty_image(size.unpack_from(head), name)
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return ImageError(
            f"{name} is a HEIC image, which is not supported.", "Save it as JPEG or PNG.", reason="unsupported"
        )
    if head.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")):
        return ImageError(f"{name} is damaged at its start.", "Copy or download it again.", reason="corrupt")
    return ImageError(
        f"{name} is not an image of a kind that can be read.",
        "Use JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP or JPEG 2000.",
        reason="not-an-image",
    )


def _empty_image(size: tuple[int, ...], name: str) -> ImageError:
    return ImageError(f"{name} has no pixels: {size[0]}×{size[1]}.", "Use another image.", reason="no-pixels")


def _too_large(name: str, detail: str, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name} is too large: {detail}, over the limit of {max_pixels:,} pixels.",
        "Read a smaller copy, or raise max_pixels if the image can be trusted.",
        reason="too-large",
    )


def _bad_box(box: object, problem: str) -> ImageError:
    return ImageError(f"The box {box} {problem}.", "Give (left, top, right, bottom) in pixels.", reason="bad-box")


def _shorten(text: str, draw: ImageDraw.ImageDraw, font: Any, width: float) -> str:
    """Cut a text to the width given, marking the cut with an ellipsis."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
