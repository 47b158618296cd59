"""Files <-> tensors: an image is RGB float32 in [0, 1], channels first, and a result is an 8-bit PNG.

Colour profiles are ignored, as they are wherever super-resolution figures are published: the stored RGB numbers count.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tifffile
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import ExifTags, Image, features
from torch import Tensor

from resolute.damage import PNG_START, check_png, strict_decoders
from resolute.errors import BrokenImageError, ImageError, ImageNote, first_line
from resolute.files import write_atomically

MAX_PIXELS = 100_000_000
# A decoder keeps something for every row: of 99,000,000 rows of a single pixel it takes gigabytes.
MAX_SIDE = 2**17

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF")
_AVIF_STARTS = (b"ftypavif", b"ftypavis")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLE_FILES = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
SAMPLE_NAMES = tuple(_SAMPLE_FILES)
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

# Without a handler of their own these two would print their remarks on damaged files to stderr.
for _name in ("PIL", "tifffile"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class _UnfitError(Exception):
    """The reason why a file is no usable image, and what to do about it."""


def read_image(path: Path | str) -> Float[Tensor, "3 h w"]:
    """Read a PNG, JPEG, WebP, AVIF, TIFF or BMP file of up to ``MAX_PIXELS`` pixels.

    16-bit samples keep their precision, but for those of AVIF, and float TIFFs must lie in [0, 1]. Grey images are
    repeated over the channels, transparent ones lie on white, the camera's orientation is applied, and of an animation
    the first frame counts; an ``ImageNote`` says either. Nothing that is missing from a file is filled in.
    Eight-bit files give multiples of 1/255 also where they were transparent.

    Raises:
        BrokenImageError: the file is missing, damaged, cut short, too large or of an unsupported kind.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "blue.png"
        >>> Image.new("RGB", (5, 4), (0, 0, 255)).save(path)
        >>> read_image(path).shape, read_image(path)[:, 0, 0].tolist()
        (torch.Size([3, 4, 5]), [0.0, 0.0, 1.0])
    """
    path, notes = Path(path), list[str]()
    try:
        with strict_decoders(), warnings.catch_warnings():
            # Decoders warn about odd metadata, which does not touch the pixels; real damage raises.
            warnings.simplefilter("ignore")
            pixels = _decode(path, notes)
            if pixels.ndim == 3 and pixels.shape[-1] in (2, 4) and bool((pixels[..., -1] < _top(pixels)).any()):
                notes.append("it is transparent in places, and lies on white")
            image = _to_tensor(pixels)
    except _UnfitError as error:
        reason = str(error)
    except Image.DecompressionBombError:
        reason = (
            f"it is larger than {MAX_PIXELS // 1_000_000} megapixels, or {MAX_SIDE:,} a side; crop or shrink it first"
        )
    except Image.UnidentifiedImageError:
        reason = f"it is no image of a known kind ({', '.join(_FORMATS)}); convert it to PNG"
    except Exception as error:  # A damaged file can raise anything in a decoder: SyntaxError, struct.error, KeyError...
        if isinstance(error, OSError) and error.errno is not None:
            reason = f"{error.strerror}; check its name, permissions and disk"
        else:
            detail = first_line(error)
            reason = f"it is damaged or cut short ({detail}); copy it again or save it as PNG with an image editor"
    else:
        for note in notes:
            warnings.warn(f"{path}: {note}", ImageNote, stacklevel=2)
        return image
    raise BrokenImageError(f"cannot read {path}: {reason}")


def read_kept(folder: Path, name: str) -> Float[Tensor, "3 h w"]:
    """Read a picture that a record names, in the folder of its study.

    Raises:
        BrokenImageError: as ``read_image``, or a link leads out of the folder, which may come from anyone.
    """
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise BrokenImageError(f"cannot read {folder / name}: it leads out of its folder")
    return read_image(folder / name)


def image_size(path: Path) -> tuple[int, int] | None:
    """Return width and height by the head of a file, as an upright image; None where it cannot be read."""
    try:
        # One would wait for what somebody writes into a pipe.
        if not path.is_file():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=read_formats()) as image:
                width, height = image.size
                turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:  # What is wrong with it is said when it is read.
        return None
    return (height, width) if turned else (width, height)


def to_uint8(x: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Clamp to [0, 1] and round to the nearest of the 256 levels.

    Raises:
        ImageError: a value is NaN or infinite.

    Example:
        >>> to_uint8(torch.tensor([-0.1, 0.5, 1.1]).view(3, 1, 1)).tolist()
        [[[0, 128, 255]]]
    """
    if not bool(torch.isfinite(x).all()):
        raise ImageError("an image holds NaN or infinite values; look for an overflow in the model that made it")
    # In place where nobody else sees it: of a large image few copies fit into memory.
    levels = x.detach().float().clamp(0.0, 1.0).mul_(255.0).round_().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy())


def from_uint8(array: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Return the tensor of an 8-bit image; ``to_uint8`` gives the image back exactly."""
    return _to_tensor(array)


def write_png(path: Path | str, x: Float[Tensor, "3 h w"]) -> None:
    """Write an 8-bit PNG, rounded to the nearest level; nothing half-written is ever left.

    Raises:
        ImageError: a value is NaN or infinite.
        OutputError: the file cannot be written.
    """
    try:
        image = Image.fromarray(to_uint8(x))
    except ImageError as error:
        raise ImageError(f"cannot write {path}: {error}") from None
    write_atomically(Path(path), lambda temporary: image.save(temporary, format="PNG", compress_level=1))


def image_sha256(x: Float[Tensor, "3 h w"]) -> str:
    """Return the SHA-256 of the shape and the 8-bit pixels, which names an image whatever file it came from.

    Example:
        >>> image_sha256(torch.zeros(3, 2, 8)) == image_sha256(torch.zeros(3, 4, 4))
        False
    """
    pixels = to_uint8(x)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def sample_image(name: str) -> Float[Tensor, "3 h w"]:
    """Return one of the photographs ``SAMPLE_NAMES`` that come with scikit-image; no network is used.

    Raises:
        ImageError: there is no sample of that name, or the installed scikit-image lacks the file.

    Example:
        >>> sample_image("chelsea").shape
        torch.Size([3, 300, 451])
    """
    if name not in _SAMPLE_FILES:
        raise ImageError(f"no sample image is called {name}; choose one of {', '.join(SAMPLE_NAMES)}")
    return _sample(_SAMPLE_FILES[name]).clone()


@functools.cache
def _sample(file: str) -> Float[Tensor, "3 h w"]:
    with importlib.resources.as_file(importlib.resources.files("skimage") / "data" / file) as path:
        return read_image(path)


def reads_avif() -> bool:
    """Return whether the installed Pillow reads AVIF, as those from 11.3 on mostly do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older one warns that it does not know the word
        return bool(features.check("avif"))


def read_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read, so that no other decoder sees a file of others."""
    return _FORMATS if reads_avif() else _FORMATS[:-1]


def _decode(path: Path, notes: list[str]) -> NDArray[Any]:
    if path.is_dir():
        raise _UnfitError("it is a folder; name an image file")
    if not path.is_file():
        raise _UnfitError("there is no such file; check the name")
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        raise _UnfitError("the file is empty; copy it again")
    if start[:4] in _TIFF_STARTS:
        return _decode_tiff(path, notes)
    if start[4:] in _AVIF_STARTS and not reads_avif():
        raise _UnfitError(
            f"it is AVIF, which the installed Pillow {PIL.__version__} does not read; install one that does "
            "(pip install -U 'pillow>=11.3'), or convert it to PNG"
        )
    if start.startswith(PNG_START):
        check_png(path)
    return _decode_with_pillow(path, notes)


def _decode_tiff(path: Path, notes: list[str]) -> NDArray[Any]:
    """Decode what Pillow cannot: it misreads planar and inverted samples and knows no float colours."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        _check_size(page.imagewidth, page.imagelength)
        if page.is_reduced or file.series[0].size != page.size:
            raise _UnfitError("its first page is a preview or one of a stack; save the image itself as PNG")
        kind, depth = np.dtype(page.dtype).kind, page.bitspersample
        plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        if kind in "bu" and not planar and page.samplesperpixel != 2 and (depth <= 8 or (depth == 16 and plain)):
            return _decode_with_pillow(path, notes)
        readable = page.extrasamples in ((), (tifffile.EXTRASAMPLE.UNASSALPHA,))
        if not (plain and readable and f"{kind}{depth}" in ("u8", "u16", "f16", "f32", "f64")):
            raise _UnfitError(f"its {depth}-bit samples are neither grey, RGB nor RGBA; save it as PNG")
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        tag = page.tags.get(ExifTags.Base.Orientation)
    if kind == "f" and not (np.isfinite(pixels).all() and pixels.min() >= 0.0 and pixels.max() <= 1.0):
        raise _UnfitError("its float samples are NaN or outside [0, 1]; clip or rescale them")
    return _turn(pixels, tag.value if tag else 1)


def _decode_with_pillow(path: Path, notes: list[str]) -> NDArray[Any]:
    with Image.open(path, formats=read_formats()) as image:
        _check_size(*image.size)
        if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "TIFF":
            notes.append(f"it has {frames} frames, of which the first is used")
        args = image.tile[0].args if image.tile else None
        rawmode = str(args[0] if isinstance(args, tuple) else args)
        if rawmode.partition(";")[2].startswith("16"):
            levels = _decode_16_bits(image, path, rawmode)
        else:
            levels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        try:
            # For TIFF, Pillow has turned the image already and removed the tag.
            orientation = image.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # As in a browser, an image with garbled EXIF data is upright.
            orientation = 1
    return _turn(levels, orientation)


def _decode_16_bits(image: Image.Image, path: Path, rawmode: str) -> NDArray[np.uint16]:
    """Return (h, w, c) samples with both bytes.

    Of colours, Pillow keeps the high byte only. Told that the file has the other byte order, it hands out the low one.
    """
    if rawmode.startswith("I;"):
        levels = np.asarray(image).astype(np.uint16)[..., None]
    elif rawmode == "LA;16B":
        # A pixel holds grey high, grey low, alpha high, alpha low: as many bytes as 8-bit RGBA.
        parts = _decode_as(path, "RGBA").astype(np.uint16)
        levels = parts[..., 0::2] * 256 + parts[..., 1::2]
    elif rawmode[:-1] in ("RGB;16", "RGBA;16"):
        low = _decode_as(path, rawmode[:-1] + _OTHER_ORDER[rawmode[-1]])
        levels = np.asarray(image).astype(np.uint16) * 256 + low
    else:
        raise _UnfitError(f"its 16-bit samples ({rawmode}) are not RGB; save it as RGB")
    colour_key = image.info.get("transparency")
    if colour_key is not None and levels.shape[-1] in (1, 3):
        seen = (levels != np.asarray(colour_key)).any(axis=-1, keepdims=True)
        levels = np.concatenate([levels, seen * np.uint16(65535)], axis=-1)
    return levels


def _decode_as(path: Path, rawmode: str) -> NDArray[np.uint8]:
    with Image.open(path, formats=read_formats()) as image:
        image.tile = [
            tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
            for tile in image.tile
        ]
        return np.asarray(image)


def _turn(pixels: NDArray[Any], orientation: object) -> NDArray[Any]:
    """Apply the EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def _top(pixels: NDArray[Any]) -> np.float32:
    """Return the value of white."""
    return np.float32(1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)


def _to_tensor(pixels: NDArray[Any]) -> Float[Tensor, "3 h w"]:
    """Scale (h, w) or (h, w, c) samples to [0, 1], put transparent ones on white and repeat grey ones."""
    is_float, top = pixels.dtype.kind == "f", _top(pixels)
    values = np.atleast_3d(pixels).astype(np.float32)
    if values.shape[-1] in (2, 4):
        alpha = values[..., -1:] / top
        values = values[..., :-1] * alpha + top * (1 - alpha)
        # Back to the levels of the file, so that what comes from 8 bits can be stored in 8 bits.
        values = values if is_float else np.rint(values)
    values /= top
    return torch.from_numpy(values.transpose(2, 0, 1)).expand(3, -1, -1).contiguous()


def _check_size(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise _UnfitError("it has no pixels; choose another image")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Image.DecompressionBombError
