"""Networks by the code that defines them: ``FILE.py:NAME``, run where it lies, without an installation."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import final

import torch
from torch import nn

from resolute.errors import CheckpointError, ModelWarning, class_and_line
from resolute.models.importing import import_with_vision

# While one file is imported the names of modules mean what they mean to it.
_LOCK = threading.RLock()

# A file that lies beside another of one of these names still gets the installed one.
_SHARED = frozenset({"torch", "numpy", "PIL", "resolute", "__main__", *sys.stdlib_module_names})

# What this process has run, and said so.
_run: set[Path] = set()


def was_run(path: Path) -> bool:
    """Return whether this process has run the code in a file already."""
    return path.resolve() in _run


@final
@dataclasses.dataclass(frozen=True)
class PythonFile:
    """Code that builds a network.

    Attributes:
        path: the file.
        name: of the class or function in it that returns the network.
        arguments: which it is called with.
    """

    path: Path
    name: str
    arguments: tuple[tuple[str, object], ...] = ()

    def build(self) -> nn.Module:
        """Run the code and return the network."""
        return self.build_with_sources()[0]

    def build_with_sources(self, *, warn: bool = False) -> tuple[nn.Module, str]:
        """Run the code; return the network and a sha256 of all files that it is made of.

        Args:
            warn: say, once a file, that its code is run.

        Raises:
            CheckpointError: the file or the name is missing, or the code fails.
        """
        if not self.path.is_file():
            raise CheckpointError(f"no file {self.path}; FILE.py:NAME names a file and a class or function in it")
        if warn and not was_run(self.path):
            _run.add(self.path.resolve())
            warnings.warn(f"the code in {self.path} is run, to build {self.name}", ModelWarning, stacklevel=5)
        with _LOCK, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # What somebody's code is warned of says nothing to who runs it.
            warnings.simplefilter("ignore")
            with without_cuda(), _imported(self.path) as (module, files):
                network = self._called(module)
            return network, _sources_sha256(files, self.path)

    def _called(self, module: ModuleType) -> nn.Module:
        factory = getattr(module, self.name, None)
        where = f"{self.path.name}:{self.name}"
        if factory is None:
            names = defined(self.path)
            near = difflib.get_close_matches(self.name, names, n=3, cutoff=0.4) or names[:12]
            raise CheckpointError(f"{self.path.name} defines no {self.name}; it defines {', '.join(near)}")
        if not callable(factory):
            raise CheckpointError(f"{where} is no class or function, but of type {type(factory).__name__}")
        try:
            network: object = factory(**dict(self.arguments))
        except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
            hint = "; arguments go behind #, as #nf=48" if isinstance(error, TypeError) else ""
            raise CheckpointError(f"{where} cannot be built: {class_and_line(error)}{hint}") from error
        if not isinstance(network, nn.Module):
            raise CheckpointError(f"{where} returns an object of type {type(network).__name__}, not a torch module")
        return network


def defined(path: Path) -> list[str]:
    """Return the names of the classes and functions that a file defines, without running it."""
    return [node.name for node in _parsed(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])


@contextmanager
def _imported(path: Path) -> Generator[tuple[ModuleType, list[Path]]]:
    """Import a file in its package; what was imported from there is forgotten afterwards.

    Yields the module and a list, which holds the files that it is made of once the block is left.
    """
    path = path.resolve()
    root, name = _place(path)
    folders = list(dict.fromkeys([root, path.parent]))
    files: list[Path] = []
    before, kept_path, kept_bytecode = dict(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        _add(folders)
        yield _import(name, path, folders), files
    finally:
        sys.path[:] = kept_path
        sys.dont_write_bytecode = kept_bytecode
        new = {key: module for key, module in sys.modules.items() if before.get(key) is not module}
        # First all files: a package without one asks the module above it where it lies.
        found = {key: _files(module) for key, module in new.items()}
        for key, paths in found.items():
            if paths and _within(paths[0], folders):
                files += [file for file in paths if file.is_file()]
                del sys.modules[key]
        sys.modules.update({key: module for key, module in before.items() if key not in sys.modules})
        importlib.invalidate_caches()


def _import(name: str, path: Path, folders: list[Path]) -> ModuleType:
    """Import a module; where one that it needs lies further up, as in the root of a repository, look there too."""
    while True:
        try:
            return import_with_vision(name)
        except ModuleNotFoundError as error:
            top = (error.name or "").partition(".")[0]
            further = next((up for up in path.parents[:6] if (up / top).is_dir() or (up / f"{top}.py").is_file()), None)
            if not top or further is None or further in folders:
                hint = f"; install {top}" if top and further is None else ""
                raise CheckpointError(f"{path.name} cannot be imported: {class_and_line(error)}{hint}") from error
            folders.append(further)
            found = {key: _files(module) for key, module in sys.modules.items()}
            for key in [key for key, paths in found.items() if any(_within(path, folders) for path in paths)]:
                del sys.modules[key]
            _add([further])
        except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
            raise CheckpointError(f"{path.name} cannot be imported: {class_and_line(error)}") from error


@contextmanager
def without_cuda() -> Generator[None]:
    """Let code that moves what it builds to a GPU leave it where it is, on a machine that has none."""
    if torch.cuda.is_available():
        yield
        return
    kept = nn.Module.cuda, torch.Tensor.cuda

    def stay(self: object, *_: object, **__: object) -> object:
        return self

    nn.Module.cuda = torch.Tensor.cuda = stay  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        nn.Module.cuda, torch.Tensor.cuda = kept


def _place(path: Path) -> tuple[Path, str]:
    """Return the folder that holds the package of a file, or else the file, and its dotted name from there."""
    folder, parts = path.parent, [path.stem]
    depth = _relative(path)
    while ((folder / "__init__.py").is_file() or len(parts) <= depth) and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def _relative(path: Path) -> int:
    """Return how many folders up the relative imports of a file reach."""
    return max((node.level for node in ast.walk(_parsed(path)) if isinstance(node, ast.ImportFrom)), default=0)


def _add(folders: list[Path]) -> None:
    """Put folders first on the path, and let the names in them mean what lies there."""
    sys.path[:0] = map(str, folders)
    importlib.invalidate_caches()
    names: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            names |= {item.stem for item in folder.iterdir() if item.is_dir() or item.suffix == ".py"}
    for key in [key for key in sys.modules if key.partition(".")[0] in names - _SHARED]:
        del sys.modules[key]


def _files(module: object) -> list[Path]:
    """Return where a module comes from: its file, or the folders of a package without one."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [Path(file)]
    return [Path(str(one)) for one in getattr(module, "__path__", ())]


def _within(file: Path, folders: list[Path]) -> bool:
    return any(folder in file.parents or folder == file for folder in folders) and "site-packages" not in file.parts


def _sources_sha256(files: list[Path], path: Path) -> str:
    digest = hashlib.sha256()
    for content in sorted(file.read_bytes() for file in {path.resolve(), *files}):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
