"""Pictures of every kind, read as they look; and every one that cannot be read, with the sentence that says so."""

import gc
import io
import os
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from hf_mambalrp.calls import pictures
from hf_mambalrp.calls.pictures import MAX_ASPECT, MAX_PIXELS, read_pictures
from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.evaluation.scenes import load_scenes

HEIGHT, WIDTH = 5, 7


def pixels(channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)


def read(images):
    """The pictures as arrays, checked to be RGB in 8 bits."""
    found = read_pictures("explain", images)
    assert len(found.sources) == len(found.images)
    assert {image.mode for image in found.images} == {"RGB"}
    return [np.asarray(image) for image in found.images]


def one(images):
    (found,) = read(images)
    return found


def over_white(color, alpha):
    """Blended in floats, by the definition of alpha."""
    share = alpha.astype(float)[..., None] / 255
    return color.astype(float) * share + 255 * (1 - share)


def close(found, expected, tolerance=1.0):
    return np.abs(found.astype(float) - expected).max() <= tolerance


# What an image holds


def test_rgb_of_every_source_is_the_same_pixels(tmp_path):
    values = pixels()
    image = Image.fromarray(values)
    image.save(tmp_path / "a.png")
    floats = values.astype(np.float32) / 255
    channels_first = np.ascontiguousarray(values.transpose(2, 0, 1))
    forms = [
        image,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.open(tmp_path / "a.png"),
        values,
        channels_first,
        values[:, ::-1][:, ::-1],  # negative strides
        np.asfortranarray(values),
        floats,
        floats.astype(np.float64),
        floats.astype(">f4"),
        torch.from_numpy(values.copy()),
        torch.from_numpy(channels_first),
        torch.from_numpy(floats).permute(2, 0, 1),
        torch.from_numpy(floats).double().requires_grad_(),
        torch.from_numpy(channels_first)[None],
        values[None],
    ]
    for form in forms:
        assert np.array_equal(one(form), values), form
    found = read(forms)
    assert len(found) == len(forms), "and all of them in one list"
    assert all(np.array_equal(picture, values) for picture in found)


def test_half_precision_is_as_exact_as_its_floats_are():
    values = pixels()
    for dtype, tolerance in ((torch.float16, 0), (torch.bfloat16, 1)):
        assert close(one((torch.from_numpy(values.copy()) / 255).to(dtype)), values, tolerance)


def test_a_batch_is_as_many_pictures():
    values = np.stack([pixels(seed=0), pixels(seed=1)])
    for batch in (values, values.transpose(0, 3, 1, 2), torch.from_numpy(values), list(values), tuple(values)):
        assert np.array_equal(np.stack(read(batch)), values)
    grey = values[..., :1]
    for batch in (grey, grey.transpose(0, 3, 1, 2)):
        assert np.array_equal(np.stack(read(batch)), np.repeat(grey, 3, -1))


def test_grey_arrays_and_arrays_with_alpha():
    grey, four = pixels(1), pixels(4)
    for height in (1, 3, 4):
        low = grey[:height, :, 0]
        assert np.array_equal(one(low), np.repeat(low[..., None], 3, -1)), "two sides are height and width"
    for array in (grey, grey[..., 0], grey.transpose(2, 0, 1), torch.from_numpy(grey)):
        assert np.array_equal(one(array), np.repeat(grey, 3, -1))
    for array in (four, four.transpose(2, 0, 1)):
        assert close(one(array), over_white(four[..., :3], four[..., 3]))


def test_one_pixel_is_a_picture(tmp_path):
    for form in (np.full((1, 1), 9, np.uint8), np.full((1, 1, 1), 9, np.uint8), np.full((3, 1, 1), 9, np.uint8)):
        assert one(form).tolist() == [[[9, 9, 9]]]
    color = np.array([[[1, 2, 3]]], np.uint8)
    Image.fromarray(color).save(tmp_path / "dot.png")
    for form in (color, tmp_path / "dot.png", Image.fromarray(color)):
        assert np.array_equal(one(form), color)


def test_colours_count_before_grey_where_a_side_is_one_pixel():
    row = pixels()[:1]
    assert np.array_equal(one(row), row)
    assert np.array_equal(one(row.transpose(2, 0, 1)), row)


# Modes of Pillow, in memory and from the files that have them


def test_grey_and_black_and_white():
    grey = pixels(1)[..., 0]
    assert np.array_equal(one(Image.fromarray(grey)), np.repeat(grey[..., None], 3, -1))
    black = Image.fromarray(grey > 127)
    assert black.mode == "1"
    assert np.array_equal(one(black)[..., 0], np.where(grey > 127, 255, 0))


def test_alpha_is_over_white():
    four, two = pixels(4), pixels(2)
    assert close(one(Image.fromarray(four, "RGBA")), over_white(four[..., :3], four[..., 3]))
    expected = over_white(np.repeat(two[..., :1], 3, -1), two[..., 1])
    assert close(one(Image.fromarray(two, "LA")), expected)
    assert close(one(Image.fromarray(four, "RGBA").convert("RGBa")), over_white(four[..., :3], four[..., 3]), 2)
    premultiplied = Image.fromarray(two, "LA").convert("La")
    assert close(one(premultiplied), expected, 2)
    hidden = Image.new("RGBA", (3, 2), (255, 0, 0, 0))
    assert (one(hidden) == 255).all(), "a colour that nobody sees is not explained"


def test_a_palette_with_and_without_transparency(tmp_path):
    colors = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
    index = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3
    image = Image.fromarray(index.astype(np.uint8), "P")
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "plain.gif")
    image.save(tmp_path / "index.png", transparency=1)
    image.save(tmp_path / "index.gif", transparency=1)
    image.save(tmp_path / "shares.png", transparency=bytes([255, 0, 51]))
    for name in ("plain.png", "plain.gif"):
        assert np.array_equal(one(tmp_path / name), colors[index]), name
    clear = colors.copy()
    clear[1] = 255
    for name in ("index.png", "index.gif"):
        assert np.array_equal(one(tmp_path / name), clear[index]), name
    alpha = np.array([255, 0, 51], np.uint8)[index]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert close(one(tmp_path / "shares.png"), over_white(colors[index], alpha))


def test_a_transparent_colour_of_a_png(tmp_path):
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 8, 7))
    image.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert one(tmp_path / "rgb.png").tolist() == [[[255, 255, 255], [9, 8, 7]]]
    grey = Image.fromarray(np.array([[5, 200]], np.uint8))
    grey.save(tmp_path / "grey.png", transparency=5)
    assert one(tmp_path / "grey.png")[..., 0].tolist() == [[255, 200]]
    black = Image.fromarray(np.array([[True, False]]))
    black.save(tmp_path / "bits.png", transparency=0)
    assert one(tmp_path / "bits.png")[..., 0].tolist() == [[255, 255]]


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, ending):
    values = np.array([[0, 128, 257, 256 * 7, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    expected = [[[round(int(v) * 255 / 65535)] * 3 for v in row] for row in values]
    assert one(tmp_path / f"a.{ending}").tolist() == expected
    assert one(Image.open(tmp_path / f"a.{ending}")).tolist() == expected
    assert one(Image.fromarray(values)).tolist() == expected


def test_sixteen_bits_with_a_transparent_value(tmp_path):
    """Pillow writes no such file: the chunk is put into one."""
    buffer = io.BytesIO()
    Image.fromarray(np.array([[1000, 40000]], np.uint16)).save(buffer, "PNG")
    data = buffer.getvalue()
    body = b"tRNS" + struct.pack(">H", 1000)
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    at = data.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + chunk + data[at:])
    assert one(tmp_path / "a.png")[0, :, 0].tolist() == [255, round(40000 / 257)]


def test_cmyk_of_a_jpeg(tmp_path):
    """Black and the three inks, by their definition: R = (1 - C) (1 - K). JPEG's loss is a few values."""
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 255, 0, 0): (255, 0, 255)}
    inks |= {(0, 0, 255, 0): (255, 255, 0), (0, 0, 0, 255): (0, 0, 0), (0, 0, 0, 128): (127, 127, 127)}
    for number, (ink, color) in enumerate(inks.items()):
        image = Image.new("CMYK", (16, 16), ink)
        image.save(tmp_path / f"{number}.jpg", quality=100)
        assert Image.open(tmp_path / f"{number}.jpg").mode == "CMYK"
        for form in (image, tmp_path / f"{number}.jpg"):
            assert close(one(form), np.broadcast_to(color, (16, 16, 3)), 3), (ink, form)


def test_other_colour_spaces():
    color = Image.new("RGB", (3, 2), (200, 30, 60))
    for mode in ("YCbCr", "HSV"):
        assert close(one(color.convert(mode)), np.asarray(color), 3), mode
    # sRGB's red in CIE L*a*b* of D50 is (54.29, 80.81, 69.89).
    red = Image.new("LAB", (1, 1), (round(54.29 * 2.55), 128 + 81, 128 + 70))
    assert close(one(red), [[[255, 0, 0]]], 6)


def test_floats_of_pillow_are_from_0_to_1(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "a.tiff")
    assert one(tmp_path / "a.tiff")[0, :, 0].tolist() == [0, 128, 255]


# How a file says that its picture lies on its side


def corners(image):
    """The four colours in the corners, from the upper left clockwise."""
    return [image.getpixel(at) for at in ((0, 0), (image.width - 1, 0), (image.width - 1, -1 + image.height))] + [
        image.getpixel((0, image.height - 1))
    ]


STORED = {1: "abcd", 2: "badc", 3: "cdab", 4: "dcba", 5: "adcb", 6: "bcda", 7: "cbad", 8: "dabc"}
"""By the EXIF standard: the corners as they are stored, from the upper left clockwise, of a picture that shows abcd."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied_once(tmp_path, orientation, ending):
    shown = dict(zip("abcd", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], strict=True))
    image = Image.new("RGB", (64, 32) if orientation < 5 else (32, 64))
    w, h = image.width // 2, image.height // 2
    for name, at in zip(STORED[orientation], ((0, 0), (w, 0), (w, h), (0, h)), strict=True):
        image.paste(shown[name], (*at, at[0] + w, at[1] + h))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    image.save(path, exif=exif, **({} if ending in ("png", "tiff") else {"quality": 95}))
    for form in (path, Image.open(path), *([Image.open(path).convert("RGB")] if ending != "tiff" else [])):
        found = read_pictures("explain", form).images[0]
        assert found.size == (64, 32)
        for seen, expected in zip(corners(found), shown.values(), strict=True):
            assert np.abs(np.subtract(seen, expected)).max() < 60, (orientation, form)


def test_sixteen_bits_on_their_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "a.png", exif=exif)
    assert one(tmp_path / "a.png")[..., 0].tolist() == [[0], [255]]


def test_damaged_exif_says_nothing(tmp_path):
    Image.new("RGB", (4, 2), "red").save(tmp_path / "a.png", exif=b"Exif\0\0 this is none")
    assert one(tmp_path / "a.png").shape == (2, 4, 3)


# Frames


def frames(path, count, **options):
    first, *more = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(count)]
    first.save(path, save_all=True, append_images=more, **options)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff", "avif"])
def test_several_frames_are_refused_and_one_can_be_taken(tmp_path, ending):
    if ending == "avif" and "AVIF" not in _formats():
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"a.{ending}"
    frames(path, 3)
    for form in (path, Image.open(path)):
        with pytest.raises(InputError, match=r"several frames or pages.*seek\(0\).*copy\(\)"):
            read(form)
    with Image.open(path) as image:
        image.seek(2)
        assert close(one(image.copy()), np.broadcast_to((120, 0, 0), (4, 4, 3)), 8)
    frames(path, 1)
    assert close(one(path), np.zeros((4, 4, 3)), 8), "one frame is a picture"


def test_a_second_view_of_a_camera_is_no_frame(tmp_path):
    frames(tmp_path / "a.jpg", 2, format="MPO")
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    assert close(one(tmp_path / "a.jpg"), np.zeros((4, 4, 3)), 8)


def _formats():
    Image.init()
    return Image.OPEN


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tiff", "gif", "ppm", "jp2", "avif"])
def test_every_format_that_is_promised(tmp_path, ending):
    if ending == "avif" and "AVIF" not in _formats():
        pytest.skip("this Pillow has no AVIF")
    Image.new("RGB", (32, 16), (200, 100, 50)).save(tmp_path / f"a.{ending}")
    (tmp_path / f"a.{ending}").rename(tmp_path / "name without an ending")
    assert close(one(tmp_path / "name without an ending"), np.broadcast_to((200, 100, 50), (16, 32, 3)), 4)


# Sources


def test_sources_are_the_names_of_files(tmp_path):
    folder = tmp_path / "of somebody"
    folder.mkdir()
    Image.new("RGB", (2, 2)).save(folder / "cat.png")
    os.link(folder / "cat.png", os.fsencode(folder) + b"/caf\xe9.png")
    odd = os.fsdecode(b"caf\xe9.png")
    forms = [folder / "cat.png", Image.open(folder / "cat.png"), str(folder / odd), Image.new("L", (1, 1)), pixels()]
    found = read_pictures("explain", forms)
    assert found.sources == ["cat.png", "cat.png", "caf?.png", None, None]
    assert read_pictures("explain", np.stack([pixels()] * 2)).sources == [None, None]


# What cannot be read

SVG = '<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"></svg>'
FILES = {
    "empty.png": b"",
    "text.jpg": b"no picture at all",
    "page.jpg": b"<!DOCTYPE html><html><svg></svg>404</html>",
    "a.svg": SVG.encode(),
    "bare.png": b"\xef\xbb\xbf<svg/>",
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "a.pdf": b"%PDF-1.7\n",
    "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "zeros.png": bytes(100),
    "magic.png": b"\x89PNG\r\n\x1a\n",
    "magic.gif": b"GIF89a",
    "magic.jpg": b"\xff\xd8\xff\xe0",
    "magic.webp": b"RIFF\x04\0\0\0WEBP",
    "magic.tiff": b"II*\0",
    "magic.bmp": b"BM",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in FILES.items():
        Path(name).write_bytes(data)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    return tmp_path


PLAIN = np.zeros((5, 6, 3), np.uint8)
BAD = {
    "nothing": (None, ["explain() got NoneType None", "PIL image"]),
    "number": (3, ["explain() got int 3"]),
    "empty list": ([], ["explain() got an empty list", "at least one"]),
    "bytes": (b"\x89PNG", ["bytes b'\\x89PNG'", "BytesIO"]),
    "open file": (io.BytesIO(b"a"), ["BytesIO", "Image.open(file)"]),
    "column": (pd.Series(["a.png"]), ["Series", ".tolist()"]),
    "row of a dataset": ({"bytes": b"", "path": "a.png"}, ["dict", 'row["image"]']),
    "gap": ([None], ["Image 0 is NoneType None"]),
    "nested numbers": ([PLAIN, [[0, 1], [1, 0]]], ["Image 1 is list [[0, 1], [1, 0]]", "an array"]),
    "missing": ("no/cat.png", ["Image 0 ('no/cat.png')", "no such file"]),
    "second missing": ([PLAIN, Path("cat.png")], ["Image 1 ('cat.png')", "no such file"]),
    "empty name": ("", ["Image 0 ('')", "no such file"]),
    "null character": ("a\0b", ["'a\\x00b'", "no such file"]),
    "endless name": ("a" * 5000, ["aaa...", "no such file"]),
    "folder": ("folder", ["'folder'", "is a folder", "glob"]),
    "pipe": ("pipe", ["'pipe'", "no file that can be read"]),
    "address": ("https://example.org/cat.png", ["'https://example.org/cat.png'", "Download it first"]),
    "address as a path": (Path("https://example.org/cat.png"), ["'https:/example.org/cat.png'", "Download it first"]),
    "data in an address": ("data:image/png;base64,AAAA", ["data:image", "nothing is fetched"]),
    **{
        f"file {name}": (name, [f"'{name}'", word])
        for name, word in {
            "empty.png": "is an empty file",
            "text.jpg": "is of no format that is read, or damaged",
            "page.jpg": "is of no format that is read, or damaged",
            "a.svg": "is SVG, a format that is not read. Render it",
            "bare.png": "is SVG",
            "a.heic": "is HEIC, a format that is not read. Save it as JPEG or PNG",
            "a.pdf": "is PDF",
            "a.eps": "is of no format that is read, or damaged",
            "zeros.png": "is of no format",
            "magic.png": "is of no format",
            "magic.gif": "is of no format",
            "magic.jpg": "is of no format",
            "magic.webp": "is of no format",
            "magic.tiff": "is of no format",
            "magic.bmp": "is of no format",
        }.items()
    },
    "empty picture": (Image.new("RGB", (0, 4)), ["PIL, RGB, 0 x 4 pixels", "is empty"]),
    "strip": (Image.new("RGB", (MAX_ASPECT + 1, 1)), ["101 x 1 pixels", "at most 100 times", "Crop"]),
    "strip of an array": (np.zeros((1, 101, 3), np.uint8), ["(1, 101, 3)", "at most 100 times"]),
    "32-bit integers": (Image.fromarray(np.full((2, 2), 70000, np.int32)), ["PIL, I, 2 x 2", "uint8", "0 to 1"]),
    "floats of Pillow": (Image.fromarray(np.full((2, 2), 7.5, np.float32)), ["PIL, F", "7.5", "from 0 to 1"]),
    "no dimension": (np.zeros((), np.uint8), ["uint8 of shape ()", "(H, W, C)"]),
    "row of numbers": (np.zeros(4, np.uint8), ["(4,)", "(H, W)"]),
    "video": (torch.zeros(1, 2, 3, 4, 4), ["float32 of shape (1, 2, 3, 4, 4)", "(B, C, H, W)"]),
    "side of 0": (np.zeros((0, 4, 3), np.uint8), ["(0, 4, 3)", "no side is 0"]),
    "batch of none": (np.zeros((0, 4, 4, 3), np.uint8), ["(0, 4, 4, 3)", "no side is 0"]),
    "no pixels of floats": (np.zeros((0, 0)), ["float64 of shape (0, 0)", "no side is 0"]),
    "two channels": (np.zeros((5, 6, 2), np.uint8), ["(5, 6, 2)", "1, 3 or 4 channels"]),
    "grey batch": (np.zeros((8, 9, 10), np.uint8), ["(8, 9, 10)", "(B, H, W, 1)"]),
    "either order": (np.zeros((3, 5, 3), np.uint8), ["(3, 5, 3)", "first or last", "Image.fromarray"]),
    "either order of grey": (np.zeros((1, 5, 1), np.uint8), ["(1, 5, 1)", "first or last"]),
    "NaN": (np.full((2, 2), np.nan), ["float64 of shape (2, 2)", "NaN"]),
    "infinite": (torch.full((2, 2), float("inf")), ["infinite"]),
    "0 to 255 as floats": (PLAIN.astype(np.float32) + 255, ["255", "from 0 to 1", "astype('uint8')"]),
    "normalised": (torch.full((3, 8, 8), -1.5), ["-1.5", "from 0 to 1", "pixel_values="]),
    "16-bit array": (PLAIN.astype(np.uint16), ["uint16", "array / 65535"]),
    "integers": (torch.zeros(3, 4, 4, dtype=torch.int64), ["int64", "uint8"]),
    "mask": (PLAIN.astype(bool), ["bool", "astype(float)"]),
    "complex": (PLAIN.astype(complex), ["complex128", "uint8"]),
    "names in an array": (np.array(["a.png", "b.png"]), ["<U5", "list of str"]),
    "objects": (np.array([None, None]), ["object", "uint8"]),
    "no data": (torch.zeros(3, 4, 4, device="meta"), ["cannot be read", "plain tensor"]),
    "sparse": (torch.zeros(4, 4).to_sparse(), ["cannot be read", "plain tensor"]),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.usefixtures("files")
def test_bad_input(case):
    given, words = BAD[case]
    with pytest.raises(InputError) as raised:
        read_pictures("explain", given)
    for word in words:
        assert word in str(raised.value), str(raised.value)
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


def test_a_file_that_is_locked(tmp_path, monkeypatch):
    def refused(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.setattr("builtins.open", refused)  # root may read every file
    with pytest.raises(InputError, match=r"a.png'\) cannot be read: Permission denied\. Give"):
        read_pictures("explain", tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged headers
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tiff", "gif", "jp2", "avif"])
def test_cut_short_or_damaged_at_any_byte_is_a_sentence_or_a_picture(tmp_path, ending):
    """A decoder may read over damage that it does not see; what it raises is an InputError."""
    if ending == "avif" and "AVIF" not in _formats():
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    generator = np.random.default_rng(1)
    refused = []
    for number in range(60):
        if number < 30:
            broken = bytearray(data[: len(data) * number // 30])
        else:
            broken = bytearray(data)
            for at in generator.integers(0, min(len(data), 200 if number % 2 else len(data)), 5):
                broken[at] = generator.integers(256)
        path.write_bytes(broken)
        try:
            found = read_pictures("explain", path)
        except InputError as error:
            refused.append(str(error))
        else:
            assert found.images[0].mode == "RGB"
    assert len(refused) >= 20, "what is cut short is refused"
    assert max(map(len, refused)) < 500
    assert not any("\n" in said for said in refused)


def test_a_picture_that_ends_early_names_the_damage(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a.jpg'\) is damaged, incomplete or closed \(.*truncated"):
        read_pictures("explain", tmp_path / "a.jpg")


def test_a_closed_image_is_said(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(InputError, match=r"Image 0 \(PNG, RGB, 2 x 2 pixels\) is damaged, incomplete or closed"):
        read_pictures("explain", image)


# Bombs


def bomb(path, width, height):
    """A PNG of a few bytes that says it has so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("side", [8001, 10_000, 20_000, 2**31 - 1])
@pytest.mark.parametrize("strict", [False, True])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch, side, strict):
    """Beyond our limit, beyond that from which Pillow warns, beyond that at which it raises, and absurd."""
    bomb(tmp_path / "a.png", side, side)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("the picture was decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore", Image.DecompressionBombWarning)
        with pytest.raises(InputError, match=r"a.png'\) has more than 64 million pixels.*smaller first"):
            read_pictures("explain", tmp_path / "a.png")
    if side < 10_000:
        with pytest.raises(InputError, match="more than 64 million pixels"):
            read_pictures("explain", Image.open(tmp_path / "a.png"))


def test_the_limit_is_below_the_one_of_pillow():
    assert MAX_PIXELS < 178956970 // 2, "as it is shipped; from there on it warns"


def test_a_picture_at_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 35)
    assert one(pixels()).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 34)
    for form in (pixels(), Image.fromarray(pixels())):
        with pytest.raises(InputError, match="million pixels"):
            read_pictures("explain", form)


def test_text_that_grows_without_end_inside_a_png(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "a" * 50_000_000, zip=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=info)
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"a.png'\) is"):
        read_pictures("explain", tmp_path / "a.png")


# What a call leaves behind


def test_no_file_is_left_open(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20), "red").save("a.png")
    frames(tmp_path / "b.gif", 3)
    data = Path("a.png").read_bytes()
    Path("c.png").write_bytes(data[:50])
    Path("d.png").write_bytes(b"nothing")
    frames(tmp_path / "e.jpg", 2, format="MPO")
    frames(tmp_path / "f.tiff", 1)
    bomb(tmp_path / "g.png", 9000, 9000)
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        unraisable = []
        monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
        for name in ("a.png", "b.gif", "c.png", "d.png", "e.jpg", "f.tiff", "g.png"):
            try:
                read_pictures("explain", name)
            except InputError:
                continue
        gc.collect()
    assert unraisable == []
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_was_given_is_as_it_was():
    values = pixels(4)
    image, array, tensor = Image.fromarray(values, "RGBA"), values.copy(), torch.from_numpy(values.copy())
    exif = image.getexif()
    exif[0x0112] = 6
    read([image, array, tensor])
    assert image.mode == "RGBA"
    assert image.getexif()[0x0112] == 6
    for kept in (np.asarray(image), array, tensor.numpy()):
        assert np.array_equal(kept, values)


def test_what_is_read_is_a_copy():
    values = pixels()
    image = Image.fromarray(values)
    found = [read_pictures("explain", form).images[0] for form in (image, values)]
    image.paste((0, 0, 0), (0, 0, WIDTH, HEIGHT))
    values[:] = 0
    assert all(np.asarray(picture).any() for picture in found)


def test_threads_read_at_the_same_time(tmp_path):
    for number in range(4):
        Image.new("RGB", (50, 50), (number, 0, 0)).save(tmp_path / f"{number}.png")
    found = {}

    def work(number):
        found[number] = [one(tmp_path / f"{number}.png")[0, 0, 0] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number] * 20 for number in range(4)}


def test_without_pillow_the_error_is_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    for read in (lambda: read_pictures("explain", "a.png"), lambda: load_scenes(1)):
        with pytest.raises(MissingExtraError, match=r'pip install "hf_mambalrp\[vision\]"'):
            read()
