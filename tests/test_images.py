import errno
import hashlib
import io
import resource
import struct
import sys
import urllib.request
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from resolute import images
from resolute.errors import BrokenImageError, ImageError, ImageNote, ImageWarning, OutputError
from resolute.folders import SUFFIXES, find_images
from resolute.images import (
    MAX_PIXELS,
    SAMPLE_NAMES,
    from_uint8,
    image_sha256,
    read_image,
    reads_avif,
    sample_image,
    to_uint8,
    write_png,
)
from resolute.studies.datasets import find_photos

ORIENTATION = 0x0112

# Said of every transparent image and animation; what is said has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore::resolute.errors.ImageNote")


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def levels(path, top=255):
    """Return the (h, w, 3) levels of a file, and check that they are exact in float32."""
    x = read_image(path)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    rounded = np.rint(x.permute(1, 2, 0).numpy().astype(np.float64) * top)
    assert np.array_equal(x.permute(1, 2, 0).numpy(), rounded.astype(np.float32) / np.float32(top))
    return rounded


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, colour_type, *, depth=16, size=None, extra=b""):
    """Return a PNG of big-endian samples, of kinds that Pillow does not write."""
    height, width = size or pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def on_white(colours, alpha, top):
    return np.rint((colours * (alpha / top) + top * (1 - alpha / top)).astype(np.float64))


class TestEightBits:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
    @pytest.mark.parametrize("size", [(6, 9), (1, 1)])
    def test_rgb(self, tmp_path, suffix, size):
        pixels = noise(*size, 3)
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)
        assert np.array_equal(levels(tmp_path / f"a{suffix}"), pixels)

    def test_jpeg_as_pillow_decodes_it(self, tmp_path):
        Image.fromarray(noise(16, 24, 3)).save(tmp_path / "a.jpg")
        assert np.array_equal(levels(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))

    def test_a_path_may_be_text(self, tmp_path):
        Image.fromarray(noise(2, 3, 3)).save(tmp_path / "a.png")
        assert read_image(str(tmp_path / "a.png")).shape == (3, 2, 3)

    def test_the_suffix_does_not_matter(self, tmp_path):
        Image.fromarray(noise(2, 3, 3)).save(tmp_path / "a.dat", format="PNG")
        assert read_image(tmp_path / "a.dat").shape == (3, 2, 3)

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
    def test_grey_is_repeated(self, tmp_path, suffix):
        pixels = noise(5, 4)
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
        assert np.array_equal(levels(tmp_path / f"a{suffix}"), np.stack([pixels] * 3, axis=-1))

    def test_one_bit(self, tmp_path):
        Image.fromarray(noise(5, 4) < 128).save(tmp_path / "a.png")
        assert set(np.unique(levels(tmp_path / "a.png"))) == {0, 255}

    def test_palette(self, tmp_path):
        palette, index = noise(16, 3), noise(5, 4) % 16
        image = Image.fromarray(index)
        image.putpalette(palette.tobytes())
        assert image.mode == "P"
        image.save(tmp_path / "a.png")
        assert np.array_equal(levels(tmp_path / "a.png"), palette[index])

    def test_transparent_palette_lies_on_white(self, tmp_path):
        palette, index = noise(16, 3), noise(5, 4) % 16
        image = Image.fromarray(index)
        image.putpalette(palette.tobytes())
        image.save(tmp_path / "a.png", transparency=3)
        palette[3] = 255
        assert np.array_equal(levels(tmp_path / "a.png"), palette[index])

    @pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
    def test_alpha_lies_on_white_and_stays_on_the_grid(self, tmp_path, suffix):
        pixels = noise(6, 9, 4)
        Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True, exact=True)
        expected = on_white(pixels[..., :3], pixels[..., 3:], 255)
        assert np.abs(levels(tmp_path / f"a{suffix}") - expected).max() <= 1
        assert np.mean(levels(tmp_path / f"a{suffix}") != expected) < 0.02

    def test_opaque_alpha_changes_nothing_and_full_transparency_is_white(self, tmp_path):
        pixels = noise(6, 9, 4)
        pixels[..., 3] = 255
        pixels[0, :, 3] = 0
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(levels(tmp_path / "a.png")[1:], pixels[1:, :, :3])
        assert (levels(tmp_path / "a.png")[0] == 255).all()

    def test_grey_with_alpha(self, tmp_path):
        Image.merge("LA", [Image.new("L", (2, 1), 100), Image.new("L", (2, 1), 51)]).save(tmp_path / "a.png")
        assert (levels(tmp_path / "a.png") == 100 * 0.2 + 255 * 0.8).all()

    @pytest.mark.parametrize("suffix", [".jpg", ".tif"])
    def test_cmyk(self, tmp_path, suffix):
        # Pillow writes JPEGs as Adobe does, inverted: read naively, this green would come out as magenta.
        Image.new("CMYK", (16, 16), (255, 0, 255, 0)).save(tmp_path / f"a{suffix}", quality=100)
        assert np.abs(levels(tmp_path / f"a{suffix}") - [0, 255, 0]).max() <= 2

    def test_animation_counts_its_first_frame(self, tmp_path):
        frames = [Image.fromarray(noise(4, 4, 3, seed=seed)) for seed in (0, 1)]
        frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
        assert np.array_equal(levels(tmp_path / "a.webp"), np.asarray(frames[0]))
        with pytest.warns(ImageNote, match=r"a\.webp: it has 2 frames, of which the first"):
            read_image(tmp_path / "a.webp")

    def test_what_lies_on_white_is_said_and_what_is_opaque_is_not(self, tmp_path):
        pixels = noise(4, 4, 4)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        with pytest.warns(ImageNote, match=r"a\.png: it is transparent in places, and lies on white"):
            read_image(tmp_path / "a.png")
        pixels[..., 3] = 255
        Image.fromarray(pixels).save(tmp_path / "b.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_image(tmp_path / "b.png")

    def test_planar_tiff(self, tmp_path):
        pixels = noise(5, 4, 3)
        tifffile.imwrite(tmp_path / "a.tif", pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
        assert np.array_equal(levels(tmp_path / "a.tif"), pixels)


class TestOrientation:
    # The corners of the upright image, read row by row, as each orientation stores them.
    STORED = ("ABCD", "BADC", "DCBA", "CDAB", "ACBD", "BDAC", "DBCA", "CADB")

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
    def test_is_applied(self, tmp_path, suffix, orientation):
        level = dict(zip("ABCD", (0, 80, 160, 240), strict=True))
        corners = np.array([level[c] for c in self.STORED[orientation - 1]], dtype=np.uint8).reshape(2, 2)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        block = np.kron(corners, np.ones((8, 8), dtype=np.uint8))
        Image.fromarray(block).convert("RGB").save(tmp_path / f"a{suffix}", exif=exif, quality=95)
        upright = levels(tmp_path / f"a{suffix}")[4::8, 4::8, 0]
        assert np.abs(upright - [[0, 80], [160, 240]]).max() <= 4

    @pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
    def test_of_a_tiff_that_is_not_square(self, tmp_path, dtype):
        pixels = (noise(4, 6, 3) % 2).astype(dtype)
        tag = (ORIENTATION, "H", 1, 6, True)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[tag])
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        assert np.array_equal(levels(tmp_path / "a.tif", top), np.rot90(pixels, -1))

    def test_of_a_16_bit_png(self, tmp_path):
        exif = Image.Exif()
        exif[ORIENTATION] = 8
        block = chunk(b"eXIf", exif.tobytes()[6:])
        (tmp_path / "a.png").write_bytes(png(noise(4, 6, 3, dtype=np.uint16), 2, extra=block))
        expected = np.rot90(noise(4, 6, 3, dtype=np.uint16))
        assert np.array_equal(levels(tmp_path / "a.png", 65535), expected)

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
    def test_garbled_exif_means_upright(self, tmp_path, suffix):
        Image.fromarray(noise(8, 16, 3)).save(tmp_path / f"a{suffix}", exif=b"Exif\0\0garbage beyond repair")
        assert read_image(tmp_path / f"a{suffix}").shape == (3, 8, 16)


class TestSixteenBits:
    @pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2)])
    def test_png_keeps_both_bytes(self, tmp_path, channels, colour_type):
        pixels = noise(7, 5, channels, dtype=np.uint16)
        (tmp_path / "a.png").write_bytes(png(pixels, colour_type))
        assert np.array_equal(levels(tmp_path / "a.png", 65535), np.broadcast_to(pixels, (7, 5, 3)))

    @pytest.mark.parametrize(("channels", "colour_type"), [(2, 4), (4, 6)])
    def test_png_with_alpha(self, tmp_path, channels, colour_type):
        pixels = noise(7, 5, channels, dtype=np.uint16)
        pixels[0, :, -1] = 65535
        (tmp_path / "a.png").write_bytes(png(pixels, colour_type))
        expected = np.broadcast_to(on_white(pixels[..., :-1], pixels[..., -1:], 65535), (7, 5, 3))
        assert np.abs(levels(tmp_path / "a.png", 65535) - expected).max() <= 1
        assert np.array_equal(levels(tmp_path / "a.png", 65535)[0], expected[0])

    @pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (3, 2)])
    def test_png_with_a_transparent_colour(self, tmp_path, channels, colour_type):
        pixels = noise(7, 5, channels, dtype=np.uint16)
        key = chunk(b"tRNS", pixels[2, 3].astype(">u2").tobytes())
        (tmp_path / "a.png").write_bytes(png(pixels, colour_type, extra=key))
        pixels[2, 3] = 65535
        assert np.array_equal(levels(tmp_path / "a.png", 65535), np.broadcast_to(pixels, (7, 5, 3)))

    def test_pillows_own_grey_png(self, tmp_path):
        pixels = noise(7, 5, dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(levels(tmp_path / "a.png", 65535)[..., 0], pixels)

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("planar", [False, True])
    @pytest.mark.parametrize("channels", [3, 4])
    def test_colour_tiff(self, tmp_path, byteorder, compression, planar, channels):
        pixels = noise(33, 17, channels, dtype=np.uint16)
        pixels[..., 3:] = 65535
        tifffile.imwrite(
            tmp_path / "a.tif",
            pixels.transpose(2, 0, 1) if planar else pixels,
            photometric="rgb",
            planarconfig="separate" if planar else "contig",
            byteorder=byteorder,
            compression=compression,
        )
        assert np.array_equal(levels(tmp_path / "a.tif", 65535), pixels[..., :3])

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_grey_tiff(self, tmp_path, byteorder, compression):
        pixels = noise(33, 17, dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=byteorder, compression=compression)
        assert np.array_equal(levels(tmp_path / "a.tif", 65535), np.stack([pixels] * 3, axis=-1))

    def test_agrees_with_8_bits_where_both_can_say_it(self, tmp_path):
        pixels = noise(7, 5, 3)
        (tmp_path / "a.png").write_bytes(png(pixels.astype(np.uint16) * 257, 2))
        assert torch.equal(read_image(tmp_path / "a.png"), from_uint8(pixels))


class TestFloatTiff:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4)])
    def test_is_taken_as_it_is(self, tmp_path, dtype, shape):
        pixels = np.random.default_rng(0).random(shape).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if len(shape) == 3 else "minisblack")
        expected = pixels.astype(np.float32) if len(shape) == 3 else np.stack([pixels] * 3, -1).astype(np.float32)
        assert np.array_equal(read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy(), expected)

    def test_alpha_lies_on_white(self, tmp_path):
        pixels = np.array([[[0.5, 0.0, 1.0, 0.5]]], dtype=np.float32)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
        assert read_image(tmp_path / "a.tif").flatten().tolist() == [0.75, 0.5, 1.0]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01, 255.0])
    def test_nan_and_other_ranges_are_refused(self, tmp_path, value):
        pixels = np.full((4, 4, 3), 0.5, dtype=np.float32)
        pixels[1, 2, 0] = value
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
        refuses(tmp_path / "a.tif", "NaN or outside [0, 1]")


def refuses(path, reason):
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read {path}: ")
    assert reason in message
    assert ";" in message, "the message must say what to do"
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


class TestRefusals:
    def test_missing(self, tmp_path):
        refuses(tmp_path / "a.png", "there is no such file")

    def test_dangling_link(self, tmp_path):
        (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
        refuses(tmp_path / "a.png", "there is no such file")

    def test_folder(self, tmp_path):
        refuses(tmp_path, "it is a folder")

    def test_empty(self, tmp_path):
        (tmp_path / "a.png").touch()
        refuses(tmp_path / "a.png", "the file is empty")

    def test_name_too_long(self, tmp_path):
        refuses(tmp_path / ("a" * 300), "File name too long")

    def test_unreadable(self, tmp_path, monkeypatch):
        Image.new("RGB", (2, 2)).save(tmp_path / "a.png")

        def denied(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        # By hand, since root, who runs the tests in many containers, may read everything.
        monkeypatch.setattr(type(tmp_path), "open", denied)
        refuses(tmp_path / "a.png", "Permission denied")

    def test_no_image(self, tmp_path):
        (tmp_path / "a.png").write_text("not an image")
        refuses(tmp_path / "a.png", "it is no image of a known kind")

    def test_format_outside_the_list(self, tmp_path):
        Image.new("RGB", (2, 2)).save(tmp_path / "a.ico")
        refuses(tmp_path / "a.ico", "it is no image of a known kind")

    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
    @pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
    def test_truncated(self, tmp_path, suffix, share):
        whole = io.BytesIO()
        Image.fromarray(noise(40, 40, 3)).save(whole, format=Image.registered_extensions()[suffix])
        (tmp_path / f"a{suffix}").write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
        refuses(tmp_path / f"a{suffix}", "it is ")

    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_truncated_float_tiff(self, tmp_path, compression):
        tifffile.imwrite(
            tmp_path / "a.tif", np.full((40, 40, 3), 0.1, "f4"), photometric="rgb", compression=compression
        )
        whole = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(whole[:-20])
        refuses(tmp_path / "a.tif", "damaged or cut short")

    @pytest.mark.parametrize(
        "size", [(MAX_PIXELS // 10_000 + 1, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1), (1, MAX_PIXELS + 1)]
    )
    def test_decompression_bomb(self, tmp_path, size):
        (tmp_path / "a.png").write_bytes(png(noise(1, 1, 3), 2, depth=8, size=size))
        refuses(tmp_path / "a.png", "larger than 100 megapixels")

    def test_decompression_bomb_in_a_float_tiff(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), "f4"), photometric="rgb")
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            file.pages.first.tags["ImageWidth"].overwrite(60_000)
            file.pages.first.tags["ImageLength"].overwrite(60_000)
        refuses(tmp_path / "a.tif", "larger than 100 megapixels")

    def test_image_at_the_limit_is_read(self, tmp_path, monkeypatch):
        Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
        monkeypatch.setattr(images, "MAX_PIXELS", 100)
        assert read_image(tmp_path / "a.png").shape == (3, 10, 10)

    @pytest.mark.parametrize("kind", [np.uint8, np.float32])
    def test_no_pixels(self, tmp_path, kind):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), kind), photometric="rgb")
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            file.pages.first.tags["ImageLength"].overwrite(0)
        refuses(tmp_path / "a.tif", "it has no pixels")

    def test_stack_of_pages(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", noise(5, 8, 8), photometric="minisblack")
        refuses(tmp_path / "a.tif", "one of a stack")

    def test_preview_page(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", noise(8, 8, 3), photometric="rgb", subfiletype=1)
        refuses(tmp_path / "a.tif", "preview")

    @pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.complex64])
    def test_odd_samples(self, tmp_path, dtype):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), dtype))
        refuses(tmp_path / "a.tif", "neither grey, RGB nor RGBA")

    @pytest.mark.parametrize("photometric", ["miniswhite", "separated"])
    def test_odd_colours_of_16_bits(self, tmp_path, photometric):
        shape = (4, 4, 4) if photometric == "separated" else (4, 4)
        tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint16), photometric=photometric)
        refuses(tmp_path / "a.tif", "neither grey, RGB nor RGBA")

    def test_premultiplied_alpha_of_16_bits(self, tmp_path):
        pixels = np.zeros((4, 4, 4), np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["assocalpha"])
        refuses(tmp_path / "a.tif", "are not RGB")

    def test_second_channel_of_no_known_meaning(self, tmp_path):
        pixels = np.zeros((4, 4, 2), np.float32)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig", extrasamples=[0])
        refuses(tmp_path / "a.tif", "neither grey, RGB nor RGBA")

    @given(st.sampled_from(("PNG", "JPEG", "WEBP", "TIFF", "BMP")), st.data())
    @settings(max_examples=100, deadline=None)
    def test_damage_gives_an_image_or_an_image_error(self, tmp_path_factory, kind, data):
        file = io.BytesIO()
        Image.fromarray(noise(9, 11, 3)).save(file, format=kind)
        damaged = bytearray(file.getvalue())
        for _ in range(3):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / "damaged"
        path.write_bytes(damaged)
        try:
            x = read_image(path)
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert x.shape[0] == 3
            assert 0 <= float(x.min()) <= float(x.max()) <= 1

    def test_damage_is_not_printed(self, tmp_path, capfd):
        tifffile.imwrite(tmp_path / "a.tif", np.full((40, 40, 3), 0.1, "f4"), photometric="rgb", software="x" * 50)
        (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:300])
        with pytest.raises(ImageError):
            read_image(tmp_path / "a.tif")
        assert capfd.readouterr() == ("", "")


class TestFindImages:
    def test_folder_is_sorted_and_filtered(self, tmp_path):
        for name in ("b.png", "a.JPG", "c.tiff", "notes.txt", ".hidden.png", "d.webp"):
            (tmp_path / name).touch()
        (tmp_path / "deeper.png").mkdir()
        (tmp_path / "deeper.png" / "e.png").touch()
        assert [path.name for path in find_images([tmp_path])] == ["a.JPG", "b.png", "c.tiff", "d.webp"]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_suffix(self, tmp_path, suffix):
        (tmp_path / f"a{suffix}").touch()
        assert find_images([tmp_path]) == [tmp_path / f"a{suffix}"]

    def test_files_come_back_as_given_and_in_order(self, tmp_path):
        (tmp_path / "z.dat").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a.png").touch()
        found = find_images([str(tmp_path / "z.dat"), tmp_path / "folder"])
        assert found == [tmp_path / "z.dat", tmp_path / "folder" / "a.png"]

    def test_a_file_that_is_named_twice_counts_once(self, tmp_path):
        (tmp_path / "a.png").touch()
        assert find_images([tmp_path / "a.png", tmp_path, tmp_path / ".." / tmp_path.name]) == [tmp_path / "a.png"]
        write_png(tmp_path / "a.png", torch.zeros(3, 8, 8))
        assert [photo.name for photo in find_photos([str(tmp_path / "a.png"), str(tmp_path)])] == ["a"]

    def test_nothing_gives_nothing(self):
        assert find_images([]) == []

    def test_missing(self, tmp_path):
        with pytest.raises(ImageError, match=r"/gone: "):
            find_images([tmp_path / "gone"])

    def test_folder_without_images(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(ImageError, match=r"no image.*\(\.png "):
            find_images([tmp_path])

    def test_folder_that_may_not_be_listed(self, tmp_path, monkeypatch):
        def denied(_):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(type(tmp_path), "iterdir", denied)
        with pytest.raises(ImageError, match=r": Permission denied"):
            find_images([tmp_path])


class TestEightBitConversion:
    @given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3))))
    def test_round_trip_is_exact(self, array):
        x = from_uint8(array)
        assert x.shape == (3, *array.shape[:2])
        assert np.array_equal(to_uint8(x), array)

    def test_every_level(self):
        array = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
        assert torch.equal(from_uint8(array)[0].flatten(), torch.arange(256) / 255)

    def test_views_and_read_only_arrays(self):
        array = noise(6, 8, 3)
        array.setflags(write=False)
        x = from_uint8(array[::-1, ::2])
        assert x.is_contiguous()
        assert np.array_equal(to_uint8(x), array[::-1, ::2])

    @given(st.floats(-0.5, 255.5))
    def test_rounds_to_the_nearest_level_and_clamps(self, level):
        rounded = int(to_uint8(torch.full((3, 1, 1), level / 255))[0, 0, 0])
        assert abs(rounded - min(max(level, 0), 255)) <= 0.5 + 1e-4

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_refuses_what_is_not_finite(self, value):
        x = torch.zeros(3, 2, 2)
        x[1, 0, 1] = value
        with pytest.raises(ImageError, match="NaN"):
            to_uint8(x)

    def test_takes_any_float_and_a_graph(self):
        x = torch.full((3, 2, 2), 0.5, dtype=torch.float64, requires_grad=True)
        assert (to_uint8(x) == 128).all()
        assert (to_uint8(x.detach().bfloat16()) == 128).all()


class TestWritePng:
    @given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3))))
    @settings(deadline=None)
    def test_round_trip_is_exact(self, tmp_path_factory, array):
        path = tmp_path_factory.getbasetemp() / "trip.png"
        write_png(path, from_uint8(array))
        assert torch.equal(read_image(path), from_uint8(array))

    def test_makes_the_folder_and_is_a_png_whatever_its_name(self, tmp_path):
        path = tmp_path / "deep" / "a.jpg"
        write_png(str(path), torch.rand(3, 4, 5))
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (5, 4))

    def test_refuses_nan_and_names_the_file(self, tmp_path):
        with pytest.raises(ImageError, match=r"a\.png: .*NaN"):
            write_png(tmp_path / "a.png", torch.full((3, 2, 2), float("nan")))
        assert list(tmp_path.iterdir()) == []

    def test_full_disk_keeps_the_old_file(self, tmp_path, monkeypatch):
        # Half of a compiled module would be taken for a whole one ever after.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        path = tmp_path / "a.png"
        write_png(path, torch.zeros(3, 8, 8))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(OutputError) as caught:
                write_png(path, from_uint8(noise(64, 64, 3)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(caught.value).startswith(f"cannot write {path}: ")
        assert torch.equal(read_image(path), torch.zeros(3, 8, 8))
        assert list(tmp_path.iterdir()) == [path]

    def test_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"file"):
            write_png(tmp_path / "file" / "a.png", torch.zeros(3, 2, 2))


class TestSha256:
    def test_is_that_of_shape_and_pixels(self):
        array = noise(4, 5, 3)
        expected = hashlib.sha256(b"(4, 5, 3)" + array.tobytes()).hexdigest()
        assert image_sha256(from_uint8(array)) == expected

    def test_sees_pixels_not_files(self, tmp_path):
        image = Image.fromarray(noise(4, 5, 3))
        image.save(tmp_path / "a.png")
        image.save(tmp_path / "b.bmp")
        assert image_sha256(read_image(tmp_path / "a.png")) == image_sha256(read_image(tmp_path / "b.bmp"))

    def test_sees_one_level_in_one_pixel(self):
        array = noise(4, 5, 3)
        before = image_sha256(from_uint8(array))
        array[1, 2, 0] ^= 1
        assert image_sha256(from_uint8(array)) != before


class TestSamples:
    @pytest.mark.parametrize("name", SAMPLE_NAMES)
    def test_is_a_colour_photograph(self, name):
        x = sample_image(name)
        assert min(x.shape[1:]) >= 300
        assert float((x[0] - x[2]).abs().mean()) > 0.01
        assert torch.equal(from_uint8(to_uint8(x)), x)

    def test_needs_no_network(self, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("no network, please")

        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        monkeypatch.setattr("socket.socket", refuse)
        for name in SAMPLE_NAMES:
            sample_image(name)

    def test_unknown_name(self):
        with pytest.raises(ImageError, match=r"\bcamera\b.* astronaut, chelsea"):
            sample_image("camera")


class TestDamage:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP"])
    @pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
    def test_no_pixel_that_is_missing_is_made_up(self, kind, share, tmp_path, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as packages of models leave it
        Image.fromarray(to_uint8(sample_image("coffee")[:, :64, :64])).save(tmp_path / "whole", format=kind)
        whole = (tmp_path / "whole").read_bytes()
        (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
        assert read_image(tmp_path / "whole").shape == (3, 64, 64)
        with pytest.raises(BrokenImageError, match="cut"):
            read_image(tmp_path / "cut")
        assert ImageFile.LOAD_TRUNCATED_IMAGES

    def test_the_checksum_of_pixels_counts(self, tmp_path):
        # Stored blocks without compression, so that a changed level is valid for the decoder.
        header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
        data = zlib.compress(bytes([0, 9, 9, 9, 9, 9, 9] * 2), 0)
        body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(body)
        assert read_image(tmp_path / "a.png").shape == (3, 2, 2)
        (tmp_path / "a.png").write_bytes(body.replace(bytes([9, 9, 9]), bytes([9, 8, 9]), 1))
        with pytest.raises(BrokenImageError, match=r"a\.png.*checksum.*IDAT"):
            read_image(tmp_path / "a.png")


class TestAvif:
    @pytest.mark.skipif(not reads_avif(), reason="the installed Pillow reads no AVIF")
    def test_is_read(self, tmp_path):
        Image.fromarray(to_uint8(sample_image("coffee")[:, :32, :32])).save(tmp_path / "a.avif", quality=95)
        assert (read_image(tmp_path / "a.avif") - sample_image("coffee")[:, :32, :32]).abs().mean() < 0.02
        assert find_images([tmp_path]) == [tmp_path / "a.avif"]

    def test_a_pillow_without_it_is_told(self, tmp_path, monkeypatch):
        monkeypatch.setattr(images, "reads_avif", lambda: False)
        (tmp_path / "a.avif").write_bytes(b"\0\0\0 ftypavif" + bytes(50))
        with pytest.raises(BrokenImageError, match=r"a\.avif.*AVIF.*pillow>=11\.3"):
            read_image(tmp_path / "a.avif")


def test_images_of_kinds_that_are_not_read_are_counted(tmp_path):
    for name in ("a.png", "b.heic", "c.HEIC", "d.jxl", "e.gif", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.warns(ImageWarning, match=r"4 files \(1 \.gif, 2 \.heic, 1 \.jxl\)"):
        assert find_images([tmp_path]) == [tmp_path / "a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"4 files.*convert"):
        find_images([tmp_path])


def test_a_folder_without_images_says_in_which_they_lie(tmp_path):
    (tmp_path / "Set" / "HR").mkdir(parents=True)
    (tmp_path / "Set" / "HR" / "a.png").touch()
    with pytest.raises(ImageError, match=r"Set/HR; name such a folder"):
        find_images([tmp_path / "Set"])
