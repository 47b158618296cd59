"""Images larger than memory as files: a PNG that is written a few rows at a time."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np
from jaxtyping import UInt8

from resolute.damage import PNG_START
from resolute.errors import OutputError


@final
class PngWriter:
    """Writes an 8-bit RGB PNG from the top down, in as much memory as the rows at hand take.

    Args:
        path: of the file, which is whole once all rows are written.
        width, height: in pixels.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> import tempfile
        >>> from resolute.images import read_image
        >>> path = Path(tempfile.mkdtemp()) / "white.png"
        >>> with PngWriter(path, width=5, height=4) as file:
        ...     for _ in range(2):
        ...         file.add(np.full((2, 5, 3), 255, np.uint8))
        >>> read_image(path).shape, float(read_image(path).min())
        (torch.Size([3, 4, 5]), 1.0)
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        self.path = path
        self._before = np.zeros((1, width * 3), np.uint8)
        self._packer = zlib.compressobj(1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            self._file.write(PNG_START)
        except OSError as error:
            raise self._failed(error) from None
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    def add(self, rows: UInt8[np.ndarray, "h w 3"]) -> None:
        """Write the next rows."""
        flat = rows.reshape(rows.shape[0], -1)
        lines = np.empty((flat.shape[0], flat.shape[1] + 1), np.uint8)
        lines[:, 0] = 2  # the filter "up": differences from the row above
        lines[:, 1:] = flat - np.concatenate([self._before, flat[:-1]])
        self._before = flat[-1:].copy()
        self._chunk(b"IDAT", self._packer.compress(lines.tobytes()))

    def __enter__(self) -> PngWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._chunk(b"IDAT", self._packer.flush())
            self._chunk(b"IEND", b"")
        self._file.close()
        if kind is not None:
            self.path.unlink(missing_ok=True)

    def _chunk(self, kind: bytes, content: bytes) -> None:
        try:
            if content or kind == b"IEND":
                self._file.write(struct.pack(">I", len(content)) + kind + content)
                self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror or error}; free some room and run again")
