"""The bytes of a checkpoint's zip archive that no checksum covers: what PyTorch writes between the entries."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

# From here on sizes stand elsewhere.
_LARGE = 2**32 - 1


def frame_is_damaged(archive: ZipFile, file: BinaryIO) -> bool:
    """Tell whether headers, padding or directory differ here and there from what PyTorch writes.

    Args:
        archive: its entries with their checksums, which have been compared already.
        file: the same file, open for reading.
    """
    entries = archive.infolist()
    if not entries or any(max(entry.file_size, entry.header_offset) >= _LARGE for entry in entries):
        return False
    same: list[bool] = []
    for offset, expected in _written(archive, entries, file):
        file.seek(offset)
        same.append(file.read(len(expected)) == expected)
    # Where most differ, another program wrote them, which pads and dates as it likes.
    return not all(same) and sum(same) > len(same) / 2


def _written(archive: ZipFile, entries: list[ZipInfo], file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield what PyTorch writes around such entries, and where."""
    directory = b""
    for entry in entries:
        name = entry.orig_filename.encode()
        file.seek(entry.header_offset + 28)
        (extra,) = struct.unpack("<H", file.read(2))
        sizes = (entry.CRC, entry.compress_size, entry.file_size)
        # Entries with something in them have their sizes behind it.
        flags = 0x808 if entry.file_size else 0x800
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(name), extra) + name
        local += struct.pack("<2sH", b"FB", extra - 4) + b"Z" * (extra - 4) if extra > 3 else b""
        yield entry.header_offset, local
        if entry.file_size:
            yield entry.header_offset + len(local) + entry.compress_size, struct.pack("<4s3L", b"PK\7\x08", *sizes)
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0, 0, flags, 0, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, entry.header_offset
        )
        directory += name
    count, size, start = len(entries), len(directory), archive.start_dir
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 0x31E, 45, 0, 0, count, count, size, start)
    end += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, start, 0)
    yield start, directory + end
