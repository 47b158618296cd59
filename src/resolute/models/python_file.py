"""Networks by the code that defines them: ``FILE.py:NAME``, run where it lies, without an installation."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import final

import torch
from torch import nn

from resolute.errors import CheckpointError, ModelWarning, class_and_line
from resolute.importing import (
    IMPORTED,
    LOCK,
    defined,
    files_of,
    importing_from,
    look_first_into,
    parsed,
    place_of,
    sources_sha256,
    within,
)
from resolute.models.vision import import_with_vision

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
        with LOCK, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # What somebody's code is warned of says nothing to who runs it.
            warnings.simplefilter("ignore")
            with without_cuda(), _imported(self.path) as (module, files):
                network = self._called(module)
            IMPORTED.update([self.path.resolve(), *files])
            return network, sources_sha256([self.path.resolve(), *files])

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


@contextmanager
def _imported(path: Path) -> Generator[tuple[ModuleType, list[Path]]]:
    """Import a file in its package; what was imported from there is forgotten afterwards.

    Yields the module and a list, which holds the files that it is made of once the block is left.
    """
    path = path.resolve()
    root, name = _place(path)
    folders = list(dict.fromkeys([root, path.parent]))
    with importing_from(folders) as files:
        yield _import(name, path, folders), files


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
            found = {key: files_of(module) for key, module in sys.modules.items()}
            for key in [key for key, paths in found.items() if any(within(path, folders) for path in paths)]:
                del sys.modules[key]
            look_first_into([further])
        except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
            place = place_of(error, folders[0])
            where = f" ({place})" if place else ""
            raise CheckpointError(f"{path.name} cannot be imported: {class_and_line(error)}{where}") from error


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
    return max((node.level for node in ast.walk(parsed(path)) if isinstance(node, ast.ImportFrom)), default=0)
