import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, PngImagePlugin

from ipse import images
from ipse.errors import ImageError


def picture(width=24, height=16):
    """A smooth picture in which every corner differs."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)], -1).astype(np.uint8)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(call, *arguments, **options):
    with pytest.raises(ImageError) as caught:
        call(*arguments, **options)
    assert caught.value.message and caught.value.hint
    return caught.value.reason


def test_reads_the_same_from_path_bytes_pillow_and_array(tmp_path):
    image = picture()
    path = tmp_path / "a.png"
    path.write_bytes(encode(image))
    for source in (path, str(path), path.read_bytes(), memoryview(path.read_bytes()), Image.open(path), image):
        read = images.read_image(source)
        assert read.dtype == np.uint8 and read.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = picture()
    # How a camera stores the upright picture under each orientation: the inverse of what a viewer must do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(images.read_image(data), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture():
    data = encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert images.read_image(data).shape == (16, 24, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    source = Image.fromarray(picture())
    if mode in ("PA", "RGBa"):
        source = source.convert("RGBA")
    read = images.read_image(source.convert(mode))
    assert read.shape == (16, 24, 3) and read.dtype == np.uint8
    if mode in ("RGB", "RGBA", "RGBa", "CMYK"):
        np.testing.assert_array_equal(read, picture())


def test_16_bit_gray_keeps_its_range():
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    for source in (encode(Image.fromarray(values)), encode(Image.fromarray(values), "TIFF"), values):
        read = images.read_image(source)
        np.testing.assert_array_equal(read[..., 0], np.rint(values / 257))
        np.testing.assert_array_equal(read[..., 0], read[..., 2])


def test_cmyk_jpeg_has_the_right_colors():
    read = images.read_image(encode(Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(read.mean(axis=(0, 1)), (200, 40, 90), atol=4)


def test_transparency_is_laid_over_the_background():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[:2, :, 3], rgba[2, :, 3] = 255, 255, 128
    for source in (rgba, encode(rgba)):
        read = images.read_image(source, background=(0, 0, 255))
        assert read[0, 0].tolist() == [255, 0, 0] and read[3, 0].tolist() == [0, 0, 255]
        np.testing.assert_allclose(read[2, 0], (128, 0, 127), atol=1)
    assert images.read_image(rgba)[3, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    read = images.read_image(encode(palette, transparency=0))
    assert read.tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.read_image(data)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((2, 3), True), 255),
        (np.full((2, 3, 1), 7, np.uint8), 7),
        (np.full((2, 3, 3), 65535, np.uint16), 255),
        (np.full((2, 3, 3), 0.5), 128),
        (np.full((2, 3), 1.0005, np.float32), 255),
    ],
)
def test_arrays_of_other_types_are_scaled(array, expected):
    np.testing.assert_array_equal(images.read_image(array), np.full((2, 3, 3), expected))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5),
        np.zeros((2, 3, 3, 3)),
        np.zeros((3, 8, 8)),
        np.zeros((4, 4), np.int64),
        np.full((4, 4, 3), 200.0),
        np.full((4, 4), np.nan),
        np.full((4, 4), -1.0),
        np.full((2, 2), "x"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array):
    assert reason(images.read_image, array) == "bad-array"


def test_each_kind_of_bad_file_has_its_own_reason(tmp_path):
    def file(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    png, jpeg = encode(picture(64, 64)), encode(picture(64, 64), "JPEG")
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(images.read_image, tmp_path / "none.png") == "missing"
    assert reason(images.read_image, tmp_path / ("x" * 300)) == "missing"
    assert reason(images.read_image, "a\0b.png") == "missing"
    assert reason(images.read_image, tmp_path) == "directory"
    assert reason(images.read_image, tmp_path / "pipe.png") == "unreadable"
    assert reason(images.read_image, file("empty.jpg", b"")) == "empty"
    assert reason(images.read_image, file("text.png", b"Dear sir or madam")) == "not-an-image"
    assert reason(images.read_image, file("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n")) == "not-an-image"
    assert reason(images.read_image, file("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0")) == "unsupported"
    assert reason(images.read_image, file("half.png", png[: len(png) // 2])) == "truncated"
    assert reason(images.read_image, file("half.jpg", jpeg[: len(jpeg) * 2 // 3])) == "truncated"
    assert reason(images.read_image, file("head.png", png[:12])) == "corrupt"
    broken = bytearray(png)
    broken[len(png) // 2] ^= 0xFF
    assert reason(images.read_image, file("flipped.png", bytes(broken))) == "corrupt"
    assert reason(images.read_image, np.zeros((0, 4, 3), np.uint8)) == "no-pixels"


def test_a_file_that_cannot_be_opened_is_unreadable(tmp_path):
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert reason(images.read_image, loop) == "unreadable"


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_bombs_are_refused_without_warning_or_decoding():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (9_000, 11_000, 60_000):
            assert reason(images.read_image, png_header(side, side)) == "too-large"
    assert reason(images.read_image, png_header(0, 10)) == "no-pixels"
    bitmap = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0)
    assert reason(images.read_image, bitmap) == "no-pixels"


def test_large_jpegs_are_decoded_smaller_and_others_refused():
    image = np.repeat(np.repeat(picture(), 20, 0), 20, 1)
    for max_pixels, divisor in ((480 * 320, 1), (480 * 320 - 1, 2), (240 * 160 - 1, 4), (60 * 40, 8)):
        read = images.read_image(encode(image, "JPEG"), max_pixels=max_pixels)
        assert read.shape == (320 // divisor, 480 // divisor, 3)
    np.testing.assert_allclose(read[-1, -1], picture()[-1, -1], atol=30)
    assert reason(images.read_image, encode(image, "JPEG"), max_pixels=60 * 40 - 1) == "too-large"
    assert reason(images.read_image, encode(image), max_pixels=480 * 320 - 1) == "too-large"
    assert reason(images.read_image, image, max_pixels=480 * 320 - 1) == "too-large"
    odd = encode(picture(33, 17), "JPEG")
    assert images.read_image(odd, max_pixels=17 * 9).shape == (9, 17, 3)


SEEDS = [
    encode(picture(32, 32)),
    encode(picture(32, 32), "JPEG"),
    encode(Image.fromarray(picture(32, 32)).quantize(16), "GIF"),
    encode(picture(32, 32), "TIFF", compression="tiff_lzw"),
    encode(picture(32, 32), "WEBP"),
    encode(picture(32, 32), "BMP"),
    encode(picture(32, 32), "TGA"),
]


@settings(max_examples=400)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_files_never_raise_anything_else(seed, data):
    mutant = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(mutant) - 1))
        mutant[place] = data.draw(st.integers(0, 255))
    mutant = mutant[: data.draw(st.integers(1, len(mutant)))] if data.draw(st.booleans()) else mutant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = images.read_image(bytes(mutant), max_pixels=1_000_000)
        except ImageError:
            return
    assert read.ndim == 3 and read.shape[2] == 3 and read.dtype == np.uint8


def test_reading_in_threads_gives_the_same(tmp_path):
    data, image = encode(picture()), picture()
    wrong = []

    def work():
        for _ in range(50):
            if not np.array_equal(images.read_image(data), image):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_image_files_walks_in_one_order(tmp_path):
    for name in (
        "b.JPG",
        "a.png",
        "note.txt",
        ".hidden.png",
        "sub/z.webp",
        "sub/c.jpeg",
        "another/x.bmp",
        ".git/y.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in images.image_files(tmp_path)]
    assert found == ["a.png", "b.JPG", "another/x.bmp", "sub/c.jpeg", "sub/z.webp"]
    assert reason(lambda: list(images.image_files(tmp_path / "none"))) == "missing"
    assert reason(lambda: list(images.image_files(tmp_path / "a.png"))) == "unreadable"


def test_crop_cuts_pads_and_fills():
    image = picture()
    np.testing.assert_array_equal(images.crop(image, (2, 3, 10, 8)), image[3:8, 2:10])
    np.testing.assert_array_equal(images.crop(image, (4, 4, 8, 8), pad=0.5), image[2:10, 2:10])
    outside = images.crop(image, (-2, -1, 4, 20), fill=9)
    assert outside.shape == (21, 6, 3)
    np.testing.assert_array_equal(outside[1:17, 2:], image[:, :4])
    assert (outside[0] == 9).all() and (outside[17:] == 9).all() and (outside[:, :2] == 9).all()
    depth = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(images.crop(depth, np.array([1.2, 0.9, 2.8, 2.1])), depth[1:2, 1:3])
    part = images.crop(image, (0, 0, 4, 4))
    part[:] = 0
    assert image[0, 3].any(), "a crop must not share memory with its image"


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (5, 5, 2, 9), (0, 0, np.nan, 4), (1, 2, 3), "abcd", (99, 0, 120, 9), (0, 0, 1e9, 1e9)]
)
def test_boxes_without_sense_are_refused(box):
    assert reason(images.crop, picture(), box) == "bad-box"


def test_resize_takes_the_mean_of_each_area():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 60, 3), np.uint8)
    means = image.reshape(4, 10, 6, 10, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(images.resize(image, 6, 4), means, atol=1)
    values = generator.random((40, 60)).astype(np.float32)
    np.testing.assert_allclose(images.resize(values, 6, 4), values.reshape(4, 10, 6, 10).mean(axis=(1, 3)), atol=1e-5)
    assert images.resize(image, 61, 43).shape == (43, 61, 3)
    assert images.resize(np.zeros((4, 4, 5)), 2, 2).dtype == np.float32
    assert images.resize(image[..., :1], 3, 2).shape == (2, 3, 1)
    np.testing.assert_array_equal(images.resize(image, 60, 40), image)


def test_resize_refuses_what_it_cannot_average():
    assert reason(images.resize, picture(), 0, 4) == "no-pixels"
    assert reason(images.resize, np.zeros((4, 4), np.int32), 2, 2) == "bad-array"


def test_float_and_back_is_exact():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(images.from_float(images.to_float(values)), values)
    assert images.to_float(values).dtype == np.float32
    assert images.from_float(np.array([-1.0, 2.0])).tolist() == [0, 255]


@given(hnp.arrays(np.float32, 20, elements=st.floats(0, 1, width=32)))
def test_linear_light_and_back(values):
    np.testing.assert_allclose(images.linear_to_srgb(images.srgb_to_linear(values)), values, atol=2e-6)


def test_linear_light_has_the_standard_value():
    assert images.srgb_to_linear(np.array([0.5]))[0] == pytest.approx(0.21404, abs=1e-5)


def test_lab_has_the_published_values():
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [128, 128, 128], [0, 0, 0]], np.uint8)
    # Bruce Lindbloom's calculator, sRGB, D65.
    lab = [
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [100, 0, 0],
        [53.59, 0, 0],
        [0, 0, 0],
    ]
    np.testing.assert_allclose(images.rgb_to_lab(colors), lab, atol=0.03)
    np.testing.assert_allclose(images.rgb_to_lab(images.to_float(colors)), images.rgb_to_lab(colors), atol=1e-4)


def test_contact_sheet_shows_every_image_untouched():
    pictures = [np.full((10, 20, 3), 10 * i, np.uint8) for i in range(1, 8)]
    sheet = np.asarray(images.contact_sheet(pictures, columns=3, gap=4))
    assert sheet.shape == (3 * 14 + 4, 3 * 24 + 4, 3)
    for index, one in enumerate(pictures):
        row, column = divmod(index, 3)
        top, left = 4 + 14 * row, 4 + 24 * column
        np.testing.assert_array_equal(sheet[top : top + 10, left : left + 20], one)


def test_contact_sheet_fits_labels_and_sizes():
    pictures = [picture(), picture(48, 48), Image.new("L", (10, 60))]
    plain = images.contact_sheet(pictures, columns=3)
    labeled = images.contact_sheet(pictures, 3, ["a", "a label far too long for its cell", "two\nlines"], title="Sheet")
    assert labeled.height > plain.height and labeled.width == plain.width
    assert images.contact_sheet(pictures, columns=3, cell=(16, 16)).size == (3 * 24 + 8, 32)
    below = np.asarray(images.contact_sheet([np.full((20, 60, 3), 255, np.uint8)], labels=["label"]))[28:]
    assert (below < 128).any(), "the label must be drawn"
    assert reason(images.contact_sheet, []) == "no-pixels"
    assert reason(images.contact_sheet, pictures, labels=["one"]) == "bad-array"


def test_save_png_carries_its_provenance(tmp_path):
    path = images.save_png(
        picture(), tmp_path / "new" / "a.png", {"Source": "ipse", "Seed": 7, "Title": "Zoë – 人", "shot": {"yaw": 0.5}}
    )
    with Image.open(path) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert image.text == {"Source": "ipse", "Seed": "7", "Title": "Zoë – 人", "shot": '{"yaw": 0.5}'}
    np.testing.assert_array_equal(images.read_image(path), picture())
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_save_png_that_fails_leaves_the_old_file(tmp_path):
    path = images.save_png(picture(), tmp_path / "a.png")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="keyword"):
        images.save_png(picture(), path, {"": "no keyword"})
    assert reason(images.save_png, picture(), path / "below" / "b.png") == "unwritable"
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
