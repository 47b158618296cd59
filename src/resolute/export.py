"""Models for other programs: ONNX and torch.export files of any size of image, checked against the model itself."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.errors import ConfigError, first_line
from resolute.files import write_atomically
from resolute.models.base import Restorer, Scorer, frozen, name_of
from resolute.models.onnx_file import HINT, read_onnx
from resolute.models.onnx_models import CARD, KIND
from resolute.models.onnx_session import Session

OPSET = 20

# Of the largest output; float32 rounds otherwise in another order of operations.
TOLERANCE = 1e-4

# Batch, height and width, none of them a multiple of anything, on which file and model are compared.
CHECKED = ((1, 33, 47), (2, 64, 40))


@final
@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        form: ``ONNX, opset 20`` or ``torch.export``.
        difference: largest difference between file and model over all outputs that were compared.
        relative: the same as a share of the largest output.
    """

    path: Path
    form: str
    difference: float
    relative: float


def export(model: Restorer | Scorer, path: Path) -> Exported:
    """Write a model as a file that needs no Resolute, and check that it gives what the model gives.

    Input is ``(b, 3, h, w)``, RGB float32 in [0, 1], of any batch and size; output what the model returns.

    Args:
        model: a super-resolution model, a denoiser or a quality metric, on the CPU.
        path: ``.onnx``, or ``.pt2`` for ``torch.export.load``.

    Raises:
        ConfigError: another ending; a missing library; a PyTorch before 2.6; a model that cannot be traced, or whose
            file gives something else than the model, which is not written then.
        OutputError: the file cannot be written.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise ConfigError(f"{path.name} ends in neither .onnx nor .pt2, the two forms that can be written")
    if getattr(torch.export.Dim, "DYNAMIC", None) is None:
        raise ConfigError(f"exporting takes PyTorch 2.6 or later, and this is {torch.__version__}; upgrade torch")
    if path.suffix == ".onnx":
        for name in ("onnx", "onnxruntime", "onnxscript"):
            _library(name)
    with frozen(model), _quiet():
        program = _traced(model)
        compared: list[tuple[float, float]] = []

        def write(temporary: Path) -> None:
            if path.suffix == ".onnx":
                _save_onnx(program, model, temporary)
                compared.append(_compared(model, Session(read_onnx(temporary))))
            else:
                torch.export.save(program, temporary)
                loaded = torch.export.load(temporary).module()
                compared.append(_compared(model, lambda x: cast("Tensor", loaded(x))))

        write_atomically(path, write)
    form = f"ONNX, opset {OPSET}" if path.suffix == ".onnx" else "torch.export"
    return Exported(path, form, *compared[0])


def _traced(model: Restorer | Scorer) -> torch.export.ExportedProgram:
    dims = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    # Odd, so that the way taken is the one that pads; for other sizes it pads by nothing.
    example = torch.rand(2, 3, 45, 51, generator=torch.Generator().manual_seed(0))
    try:
        return torch.export.export(model, (example,), dynamic_shapes=(dims,))
    except Exception as error:  # What cannot be traced raises anything, in many lines.
        reason = first_line(error, 300)
        raise ConfigError(f"{name_of(model)} cannot be exported for images of any size: {reason}") from error


def _save_onnx(program: torch.export.ExportedProgram, model: Restorer | Scorer, path: Path) -> None:
    try:
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["output"],
            external_data=False,
            verbose=False,
        )
        proto = made.model_proto
    except Exception as error:
        raise ConfigError(f"{name_of(model)} cannot be written as ONNX: {first_line(error, 300)}") from error
    if model.card is not None:
        facts = {CARD: json.dumps(dataclasses.asdict(model.card)), KIND: _kind(model)}
        _library("onnx").helper.set_model_props(proto, facts)
    path.write_bytes(proto.SerializeToString())


def _compared(model: Restorer | Scorer, other: Callable[[Float[Tensor, "b 3 h w"]], Tensor]) -> tuple[float, float]:
    """Return the largest difference of two models, absolute and relative.

    Raises:
        ConfigError: it is too large.
    """
    most, size = 0.0, 0.0
    for batch, height, width in CHECKED:
        x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            wanted = model(x)
            try:
                got = other(x)
            except Exception as error:
                told = first_line(error, 300)
                raise ConfigError(
                    f"the file of {name_of(model)} fails on images of {width} x {height} pixels: {told}"
                ) from error
        if got.shape != wanted.shape:
            raise ConfigError(
                f"the file of {name_of(model)} gives {tuple(got.shape)}, and the model {tuple(wanted.shape)}"
            )
        most = max(most, float((got - wanted).abs().max()))
        size = max(size, float(wanted.abs().max()))
    relative = most / max(size, 1e-12)
    if not relative <= TOLERANCE:
        raise ConfigError(
            f"the file of {name_of(model)} differs from the model by {most:.2g}, {relative:.2g} of its largest output, "
            f"and {TOLERANCE:g} is allowed; it was not written"
        )
    return most, relative


def _kind(model: Restorer | Scorer) -> str:
    return "scorer" if isinstance(model, Scorer) else "restorer"


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"ONNX needs {name}: {HINT}") from None


@contextmanager
def _quiet() -> Generator[None]:
    # torch warns of its own internals here, and logs what it tries.
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
