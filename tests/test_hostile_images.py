"""Image files that anyone may have made: the pixels that other readers see, or one line, and little memory."""

import io
import os
import resource
import warnings

import numpy as np
import pytest
import tifffile
from odd import damaged, one_line, tried
from PIL import Image, ImageFile
from test_cli import run
from test_images import chunk, noise, png

from resolute.errors import ImageError
from resolute.folders import find_images
from resolute.images import image_size, read_image

pytestmark = pytest.mark.filterwarnings("ignore::resolute.errors.ImageNote")

# In kB.
ROOM = 1_000_000

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA", "L"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "PPM": ("1", "L", "RGB"),
    "ICO": ("RGBA",),
    "TGA": ("L", "P", "RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
}
LOSSLESS = ("PNG", "TIFF", "BMP")
OPTIONS = (
    {}, {"quality": 1}, {"progressive": True}, {"optimize": True}, {"exif": b"Exif\0\0garbage"},
    {"icc_profile": b"x" * 99},
    {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "packbits"}, {"interlace": 1},
    {"transparency": 0}, {"lossless": True}, {"dpi": (0, 0)},
)  # fmt: skip
BOMBS = ((1, 99_000_000), (99_000_000, 1), (30_000, 30_000), (2**31 - 1, 2**31 - 1), (0, 5), (1, 2**20), (0, 0))


def picture(rng):
    """The bytes of a file, and the RGB levels in it where every reader must agree on them."""
    kind = rng.choice(sorted(MODES))
    mode = rng.choice(MODES[kind])
    pixels = noise(rng.choice((1, 2, 9, 33)), rng.choice((1, 3, 8, 40)), 3, seed=rng.randrange(99))
    image = Image.fromarray(pixels)
    image = Image.fromarray(noise(*pixels.shape[:2], dtype=np.uint16)) if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **rng.choice(OPTIONS))
    return buffer.getvalue(), pixels if kind in LOSSLESS and mode == "RGB" else None


def tiff(rng):
    buffer = io.BytesIO()
    dtype = rng.choice(("u1", "u2", "i1", "i2", "u4", "f2", "f4", "f8", "c8", "?"))
    shape = rng.choice(((6, 7), (6, 7, 3), (6, 7, 4), (3, 6, 7), (2, 6, 7, 3), (6, 7, 2), (6, 7, 5), (1, 1, 1, 1)))
    kind = rng.choice(("minisblack", "rgb", "miniswhite", "cfa", "separated", None))
    tifffile.imwrite(buffer, np.ones(shape, dtype), photometric=kind, bigtiff=rng.random() < 0.3)
    return buffer.getvalue(), None


def bomb(rng):
    height, width = rng.choice(BOMBS)
    kind = rng.choice((0, 2, 3, 4, 6))
    extra = chunk(b"iCCP", b"x\0\0" + bytes(40)) if rng.random() < 0.3 else b""
    return png(noise(2, 2), kind, depth=rng.choice((8, 16)), size=(height, width), extra=extra), None


def made(rng):
    while True:
        try:
            return rng.choice((picture, picture, picture, tiff, bomb))(rng)
        except (ValueError, OSError, KeyError, TypeError, SystemError, SyntaxError, OverflowError):
            # The writer itself does not know such files.
            continue


@pytest.mark.filterwarnings("ignore")
@tried(60, 1000)
def test_images_are_read_right_or_refused_in_one_line(rng, tmp_path):
    content, pixels = made(rng)
    if rng.random() < 0.6:
        content, pixels = damaged(rng, content), None
    name = rng.choice(
        (b"a.png", b"a.tif", b"a", b"a.jpg", b"\xff\xfe.png", "é\u202e.png".encode(), b"-x.webp", b"a b\n.bmp")
    )
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(content)
    before, truncated = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, ImageFile.LOAD_TRUNCATED_IMAGES
    image_size(path)
    try:
        x, told = read_image(path), None
    except ImageError as error:
        x, told = None, error
    if x is None:
        assert pixels is None, told
        one_line(told, "")
    else:
        assert x.shape[0] == 3
        assert 0 <= float(x.min()) <= float(x.max()) <= 1
        assert pixels is None or np.array_equal((x.permute(1, 2, 0) * 255).round().numpy(), pixels)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM
    assert truncated == ImageFile.LOAD_TRUNCATED_IMAGES


def fifo(path):
    os.mkfifo(path)


THINGS = {
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a folder": lambda path: path.symlink_to("/proc"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a tape": lambda path: path.symlink_to("/dev/random"),
    "folder": lambda path: path.mkdir(),
    "pipe": fifo,
    "empty": lambda path: path.touch(),
    "page": lambda path: path.write_text("<html>404</html>"),
    "no permission": lambda path: (path.write_bytes(png(noise(4, 4, 3), 2, depth=8)), path.chmod(0)),
    "sound": lambda path: path.write_bytes(png(noise(20, 20, 3), 2, depth=8)),
}


@tried(6, 120)
def test_folders_of_odd_things_are_attacked_or_refused_in_one_line(rng, tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(rng.choice((b"photos", b"caf\xe9", b"a b", b"-x", b"x" * 250)))
    folder.mkdir()
    for number in range(rng.choice((1, 2, 4))):
        THINGS[rng.choice(sorted(THINGS))](
            folder / os.fsdecode(rng.choice((b"%d.png", b"\xff%d.png", b"%d.tif")) % number)
        )
    monkeypatch.chdir(tmp_path)
    given = rng.choice((folder, folder / "0.png", "x" * 300, folder / "0.png" / "deeper", *folder.iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = ["--skip-broken"] if rng.random() < 0.5 else []
        code, _, stderr = run("attack", "bicubic", given, "--steps", "1", "--out", "out", *flags)
    assert code in (0, 1, 3, 5, 7), stderr
    assert "Traceback" not in stderr
    written = list((tmp_path / "out").rglob("*.png"))
    assert all(read_image(path).shape[0] == 3 for path in written)
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udcff", "a/" * 3000, ""])
def test_names_that_no_file_can_have(name):
    with pytest.raises(ImageError):
        find_images([f"gone/{name}"])
