"""What a file holds, by how it begins: for weights files that cannot be read as what their names say."""

from __future__ import annotations

from pathlib import Path

from resolute.errors import CheckpointError

_HEAD = 512
_AGAIN = "copy or download it again"

# What weights files other than PyTorch's are called, which can have any suffix.
_OTHERS = (".safetensors", ".onnx", ".param")

_STARTS = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", ".pth", "a checkpoint of PyTorch before 1.6"),
    (b"\x80", "", "a pickle of another program; save a state_dict with torch.save"),
    (b"7767517", ".param", "a network of ncnn"),
    (b"version https://git-lfs", "", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"\x1f\x8b", "", "a gzip archive; unpack it"),
    (b"\x89HDF", "", "HDF5, as Keras writes it; export the network to ONNX"),
    (b"\x89PNG", "", "an image; give weights"),
    (b"\xff\xd8\xff", "", "an image; give weights"),
    (b"<", "", "a web page; download the file itself"),
)


def unreadable(path: Path, kind: str, why: str = "") -> CheckpointError:
    """Return the error that says what a file holds that is no readable one of its kind.

    Args:
        path: the file, which is there.
        kind: what its suffix says.
        why: what the reader said, where that says something; told where the beginning tells nothing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
        >>> _ = path.write_text("<!DOCTYPE html>")
        >>> str(unreadable(path, "safetensors file", "header too large"))
        'net.safetensors is no safetensors file: it holds a web page; download the file itself'
    """
    if not path.stat().st_size:
        return CheckpointError(f"{path.name} is empty; {_AGAIN}")
    suffix, what = _found(path)
    said = f" ({why.partition('. ')[0]})" if why else ""
    if suffix and (suffix == path.suffix or (suffix == ".pth" and path.suffix not in _OTHERS)):
        return CheckpointError(f"{path.name} is damaged or cut off{said}; {_AGAIN}")
    what = f"{what}; call it {path.with_suffix(suffix).name}" if suffix else what
    return CheckpointError(f"{path.name} is no {kind}{f': it holds {what}' if what else f'{said}; {_AGAIN}'}")


def _found(path: Path) -> tuple[str, str]:
    """Return the suffix of such weights files and what the file holds, empty where it is none or nothing known."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):
        if b"/data/weights/" in head or b"serialized_exported_program" in head:
            return "", "a program of torch.export, which is not loaded here; export to .onnx instead"
        # What PyTorch writes first.
        found = b"data.pkl" in head
        return (".pth", "a PyTorch checkpoint") if found else ("", "a zip archive without a checkpoint; unpack it")
    if head[8:9] == b"{":
        return ".safetensors", "safetensors"
    # The version of the format, and then a text or a message.
    if len(head) > 2 and head[0] == 8 and 0 < head[1] < 32 and head[2] % 8 == 2:
        return ".onnx", "an ONNX model"
    return next(((suffix, what) for start, suffix, what in _STARTS if head.lstrip().startswith(start)), ("", ""))
