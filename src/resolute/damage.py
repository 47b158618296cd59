"""Damage that decoders let pass: checksums that nobody compares, and missing pixels that are made up."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Generator
from pathlib import Path

from PIL import ImageFile

PNG_START = b"\x89PNG\r\n\x1a\n"
_AT_A_TIME = 1 << 20


def check_png(path: Path) -> None:
    """Compare the checksums of all critical chunks of a PNG, of which Pillow leaves out those of the pixels.

    Raises:
        ValueError: one does not match, or the file ends before its end.
    """
    with path.open("rb") as file:
        file.seek(len(PNG_START))
        while True:
            head = file.read(8)
            if len(head) < 8:
                raise ValueError("the end of the file is missing")
            left, kind = int.from_bytes(head[:4], "big"), head[4:]
            sum_ = zlib.crc32(kind)
            while left:
                part = file.read(min(left, _AT_A_TIME))
                if not part:
                    raise ValueError("the end of the file is missing")
                sum_, left = zlib.crc32(part, sum_), left - len(part)
            told = file.read(4)
            if kind[:1].isupper() and told != sum_.to_bytes(4, "big"):
                raise ValueError(f"the checksum of its {kind.decode('latin-1')} chunk does not match")
            if kind == b"IEND":
                return


@contextlib.contextmanager
def strict_decoders() -> Generator[None]:
    """Let Pillow refuse images that are cut short, whatever other packages of this process have told it.

    Several packages of models switch the filling of missing pixels on for the whole process.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
