"""What the training loop asks of each kind of training, and all that it knows of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar, final

import torch
from torch import Tensor, nn

from resolute.models.base import Restorer, Scorer
from resolute.models.weights import State, weights_sha256

Figures = dict[str, float]

# A spread of a regularised layer below this tells of one number in answer to everything.
COLLAPSED = 1e-6
Model = TypeVar("Model", bound=Restorer | Scorer)

# How figures are shown, in this order: those of a step, and those of a validation.
_OF_A_STEP = {
    "l1": "L1 {:.2f}",
    "mse": "MSE {:.5f}",
    "gan": "GAN {:.4f}",
    "consistency": "consistency {:.2f}",
    "jacobian": "Jacobian {:.2f}",
    "bits": "bits {:.3f}",
    "live": "live {:.0f}",
    "spread": "spread {:.3g}",
    "rmse": "RMSE {:.2f}",
    "batch_plcc": "PLCC {:.3f}",
    "psnr": "PSNR {:.2f} dB",
    "target": "target {:.4f}",
    "rank": "rank {:.5f}",
    "rewarded": "rewarded {:.4f}",
}
_OF_A_VALIDATION = {
    "psnr_y": "{:.2f} dB",
    "psnr_rgb": "{:.2f} dB",
    "attacked": "attacked {:.2f} dB",
    "emphasis": "weight {:.2f}",
    "srocc": "SROCC {:.3f}",
    "plcc": "PLCC {:.3f}",
    "srocc_clean": "SROCC with clean {:.3f}",
    "srocc_mos": "with opinions {:.3f}",
    "shift": "shift {:.4f}",
    "std": "std {:.4f}",
}


def describe_step(figures: Figures) -> str:
    """Return the figures of a step in one line.

    Example:
        >>> describe_step({"loss": 4.0, "l1": 3.0, "bits": 1.0, "psnr_y": 30.0})
        'L1 3.00  bits 1.000'
    """
    return "  ".join(form.format(figures[key]) for key, form in _OF_A_STEP.items() if key in figures)


def describe_validation(figures: Figures) -> str:
    """Return the figures of a validation in one line, empty where there was none.

    Example:
        >>> describe_validation({"loss": 4.0, "l1": 3.0, "bits": 1.0, "psnr_y": 30.0})
        '30.00 dB'
    """
    return "  ".join(form.format(figures[key]) for key, form in _OF_A_VALIDATION.items() if key in figures)


def describe_failure(figures: Figures) -> str:
    """Return in words why a step with these figures cannot be taken, and what to do.

    Example:
        >>> describe_failure({"loss": float("nan"), "l1": 3.0, "bits": float("nan"), "spread": 2.0})
        'the density of the regulariser has diverged; lower defence.rate'
    """
    if figures.get("spread", 1.0) < COLLAPSED:
        return "the regularised layer answers one number to everything; lower defence.weight, or raise defence.ramp"
    distance = figures.get("l1", figures.get("mse", 0.0))
    if math.isfinite(distance) and not math.isfinite(figures.get("bits", 0.0)):
        return "the density of the regulariser has diverged; lower defence.rate"
    parts = {name: value for name, value in figures.items() if name not in ("loss", "rate", "l1", "mse")}
    if math.isfinite(distance) and (wrong := [name for name, value in parts.items() if not math.isfinite(value)]):
        return f"{wrong[0]} is not finite; lower its weight, or mend its code"
    what = "weights are" if math.isfinite(figures["loss"]) else "loss is"
    return f"the {what} not finite; lower optimizer.rate, or set optimizer.clip"


class Task(ABC, Generic[Model]):
    """One kind of training: its network, batches, loss and validation.

    Args:
        model: what is averaged, validated and saved.
        parts: all that trains, as one module that contains ``model`` and is called once a step, so that data-parallel
            training sees every parameter.
        images: how many there are to train on.
        rates: of further modules that train, the learning rate as a multiple of the recipe's.
        paces: the same of single weights of the model, by name.
        fixed: modules outside of ``parts``, which go to the device with it.

    Attributes:
        device: of all modules.
        memory_format: in which the weights lie while it trains.
    """

    memory_format: torch.memory_format = torch.channels_last

    def __init__(
        self, model: Model, parts: nn.Module, images: int, *, rates: Sequence[tuple[nn.Module, float]] = (),
        paces: Mapping[str, float] | None = None, fixed: Sequence[nn.Module] = (),
    ) -> None:  # fmt: skip
        self.model, self.parts, self.images = model, parts, images
        self.paces = paces or {}
        self.rates, self.fixed = ((model, 1.0), *rates), fixed
        self.device = torch.device("cpu")

    @final
    def move(self, device: torch.device) -> None:
        """Take to the device what is not in ``parts``."""
        self.device = device
        for module in self.fixed:
            module.to(device)

    @final
    def start(self, path: Path) -> str:
        """Take the weights of another run from ``path``; return their sha256.

        Raises:
            CheckpointError: the file cannot be read.
            RuntimeError, pickle.UnpicklingError: they do not fit.
        """
        state = self.weights_in(path)
        self.model.load_state_dict(state)
        return weights_sha256(state)

    def begin(self) -> None:
        """Prepare a model that starts from no other run's weights, before its first step; a resumed run does not."""

    @abstractmethod
    def weights_in(self, path: Path) -> State:
        """Return the weights of another run, to start from."""

    @abstractmethod
    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        """Return this rank's share of the batch of ``step``, a pure function of (seed, step)."""

    @abstractmethod
    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        """Return the loss of a batch, and the figures that go to the log; ``module`` is ``parts``, wrapped."""

    @abstractmethod
    def validate(self) -> Figures:
        """Return how good ``model``, in evaluation mode, is on what was held out; empty if nothing was."""

    @abstractmethod
    def save(self, weights: Path, training: dict[str, object]) -> None:
        """Write ``model`` with its card, the page for people beside it, and whatever else belongs to the run."""
