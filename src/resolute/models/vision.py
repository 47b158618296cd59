"""Libraries of others that import torchvision, imported whatever state that is in.

Beside a torch for CPUs alone, pip brings a torchvision built for CUDA, whose operators do not load; and without them
none of it can be imported. No network or metric that Resolute takes from these libraries uses one of the operators.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Generator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn, final

import torch

from resolute.errors import class_and_line

_VISION = "torchvision"

# Operators that its Python code describes to torch at once; it asks whether the others are there.
_OPERATORS = ("nms", "qnms")

# Declarations last as long as this object.
_declared: list[torch.library.Library] = []


def import_library(name: str) -> ModuleType:
    """Import a library, with torchvision as it is where that can be imported.

    If its operators are missing, they are declared, and what calls one raises torchvision's own error. If it cannot be
    imported even so, or is not installed, modules without content take its place for this import alone.

    Raises:
        Exception: of any class, that of the import.

    Example:
        >>> import_library("json").dumps(1)
        '1'
    """
    if name in sys.modules:
        return importlib.import_module(name)
    with _vision():
        return importlib.import_module(name)


def import_with_vision(name: str) -> ModuleType:
    """Import a module that may need torchvision, which is looked after only if that fails.

    Raises:
        Exception: of any class, that of the import.

    Example:
        >>> import_with_vision("json").dumps(1)
        '1'
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        if _VISION not in str(error):
            raise
    with _vision():
        return importlib.import_module(name)


@contextlib.contextmanager
def _vision() -> Generator[None]:
    """Let imports of torchvision succeed."""
    try:
        _import_vision()
    except Exception as error:  # Built for another torch, it can raise anything.
        stand_in = _StandIn(class_and_line(error))
    else:
        yield
        return
    sys.meta_path.insert(0, stand_in)
    try:
        yield
    finally:
        sys.meta_path.remove(stand_in)
        for name in stand_in.made:
            sys.modules.pop(name, None)


def _import_vision() -> None:
    try:
        importlib.import_module(_VISION)
    except RuntimeError as error:
        if f"operator {_VISION}::" not in str(error) or _declared:
            raise
        library = torch.library.Library(_VISION, "FRAGMENT")
        for operator in _OPERATORS:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module(_VISION)


@final
class _StandIn(MetaPathFinder, Loader):
    """Finds torchvision and all in it; what is taken from there can be passed on, and raises when it is called.

    Attributes:
        made: the modules that were found.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        self.made: list[str] = []

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _VISION:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        self.made.append(module.__name__)
        nothing = _Nothing(self.why)
        module.__getattr__ = nothing.__getattr__


@final
class _Nothing:
    def __init__(self, why: str) -> None:
        self._why = why

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise ImportError(
            f"this needs {_VISION}, which cannot be imported ({self._why}); install one built for this torch"
        )
