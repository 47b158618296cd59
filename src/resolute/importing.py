"""Importing Python files where they lie, so that what they import from beside them is forgotten afterwards."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import sys
import threading
import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

# While one file is imported the names of modules mean what they mean to it.
LOCK = threading.RLock()

# The files of networks whose code this process has run.
IMPORTED = set[Path]()

# A file that lies beside another of one of these names still gets the installed one.
_SHARED = frozenset({"torch", "numpy", "PIL", "resolute", "__main__", *sys.stdlib_module_names})


@contextmanager
def importing_from(folders: list[Path]) -> Generator[list[Path]]:
    """Let imports look into folders first; what was imported from there is forgotten afterwards.

    Args:
        folders: that may grow meanwhile.

    Yields:
        A list, which holds the files that were imported from the folders once the block is left.
    """
    files: list[Path] = []
    before, kept_path, kept_bytecode = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        look_first_into(folders)
        yield files
    finally:
        sys.path[:] = kept_path
        sys.dont_write_bytecode = kept_bytecode
        new = {key: module for key, module in sys.modules.items() if before.get(key) is not module}
        # First all files: a package without one asks the module above it where it lies.
        found = {key: files_of(module) for key, module in new.items()}
        for key, paths in found.items():
            if paths and within(paths[0], folders):
                files += [file for file in paths if file.is_file()]
                del sys.modules[key]
        sys.modules.update({key: module for key, module in before.items() if key not in sys.modules})
        importlib.invalidate_caches()


def look_first_into(folders: list[Path]) -> None:
    """Put folders first on the path, and let the names in them mean what lies there."""
    sys.path[:0] = map(str, folders)
    importlib.invalidate_caches()
    names: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            names |= {item.stem for item in folder.iterdir() if item.is_dir() or item.suffix == ".py"}
    for key in [key for key in sys.modules if key.partition(".")[0] in names - _SHARED]:
        del sys.modules[key]


def files_of(module: object) -> list[Path]:
    """Return where a module comes from: its file, or the folders of a package without one."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [Path(file)]
    return [Path(str(one)) for one in getattr(module, "__path__", ())]


def within(file: Path, folders: list[Path]) -> bool:
    """Return whether a file lies below one of the folders, and belongs to no installed package there."""
    return any(folder in file.parents or folder == file for folder in folders) and "site-packages" not in file.parts


def sources_sha256(files: Iterable[Path]) -> str:
    """Return one sha256 of what several files hold, whatever their names."""
    digest = hashlib.sha256()
    for content in sorted(file.read_bytes() for file in set(files)):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file; an empty one where it has none."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])


def defined(path: Path) -> list[str]:
    """Return the names of the classes and functions that a file defines, without running it."""
    return [node.name for node in parsed(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def place_of(error: BaseException, folder: Path) -> str:
    """Return the file below a folder and the line that an error comes from, as ``mine.py, line 3``; or nothing."""
    if isinstance(error, SyntaxError) and error.filename and within(Path(error.filename), [folder]):
        return f"{Path(error.filename).name}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if within(Path(frame.filename), [folder])]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
