"""What is judged: the base classes of super-resolution models and of quality metrics, and their cards of facts."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import ImageError
from resolute.table import Column, Table, row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """The facts about a model that do not change while it is judged.

    Attributes:
        name: what the model is called in tables and records.
        architecture: name and arguments of its class, enough to build it again.
        scale: upscaling factor.
        licence: terms under which the weights may be used.
        sha256: of the weights' tensors (see ``models.weights.weights_sha256``), empty for untrained weights.
        training: how the weights came about: recipe, data, steps, seed, code version; empty if unknown.
    """

    name: str
    architecture: dict[str, object]
    scale: int
    licence: str = "unknown"
    sha256: str = ""
    training: dict[str, object] = dataclasses.field(default_factory=dict[str, object])


class Origin(ABC):
    """The file that a model's weights came from, and how to put changed weights back into it.

    Attributes:
        path: the file.
        note: what its user must know before writing, in one sentence; empty if there is nothing.
    """

    path: Path
    note: str

    @abstractmethod
    def check(self, model: Restorer) -> None:
        """Refuse a model whose weights cannot be written back; ask before it is trained.

        Raises:
            CheckpointError: it says why.
        """

    @abstractmethod
    def write(self, model: Restorer, out: Path, training: Mapping[str, object] | None = None) -> None:
        """Write the file again with the weights of ``model``, all else in it as it was.

        Args:
            model: loaded from this file, its weights perhaps changed since.
            out: the new file.
            training: added to what the card says about training, where the file carries a card of Resolute.

        Raises:
            CheckpointError: the weights cannot be written back.
            OutputError: the file cannot be written.
        """


class Restorer(nn.Module, ABC):
    """A super-resolution model: RGB float in [0, 1] in, RGB float on the same scale out, not clamped.

    The two halves meet at the feature layer Φ, the tensor that enters the upsampler: in a ``SplitRestorer``,
    ``forward(x)`` is ``reconstruct(features(x))``. Φ is the output of the submodule named ``feature_layer``, so that a
    defence or a feature attack can reach it by name, or any other submodule by its own name.

    Attributes:
        scale: upscaling factor.
        feature_layer: name of the submodule whose output is Φ.
        peak: what white is to the network inside.
        card: the facts about this model, set by ``load``; None for a model built by hand.
        origin: the file that the weights came from, set by ``load``; None where there is none to write back to.
        doubt: why the model seems not to upscale, and the remedy; empty where nothing speaks against it.
    """

    feature_layer: str
    peak: float = 1.0

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.card: Card | None = None
        self.origin: Origin | None = None
        self.doubt = ""

    def __repr__(self) -> str:
        return _in_one_line(self, "" if self.card is None else self.card.name, f"x{self.scale}")

    def _repr_html_(self) -> str:  # pyright: ignore[reportUnusedFunction], notebooks call it
        return _facts(self, self.card)

    @abstractmethod
    def arguments(self) -> dict[str, object]:
        """Return the class name and the arguments that build this network again."""

    def describe(
        self, name: str, *, licence: str = "unknown", sha256: str = "", training: Mapping[str, object] | None = None
    ) -> Card:
        """Return a card of this model's facts."""
        return Card(
            name=name, architecture=self.arguments(), scale=self.scale, licence=licence, sha256=sha256,
            training=dict(training or {}),
        )  # fmt: skip

    @abstractmethod
    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Map an image in [0, 1] to the feature layer Φ."""

    @abstractmethod
    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        """Map the feature layer Φ to the upscaled image, on the scale of [0, 1], not clamped."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        """Upscale ``x`` by ``scale``."""


class SplitRestorer(Restorer, ABC):
    """A restorer whose two halves are all of it, as in every network that can be taken apart at its feature layer."""

    @final
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.reconstruct(self.features(x))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerCard:
    """The facts about a quality metric that do not change while it is judged.

    Attributes:
        name: what the metric is called in tables and records.
        architecture: name and arguments of its class, enough to build it again.
        low, high: what the score provably cannot leave, whatever the image; None where nothing is proven.
        usual: the range that its authors say scores span, as (low, high); it proves nothing.
        lower_better: True where a lower score means better quality.
        size_rule: what the metric does to the size of its input, in words: ``any``, or ``resized to 224 x 224``.
        smallest: least side of an image that it can score, in pixels.
        batch_invariant: whether the score of an image is the same alone and among others, but for rounding; None
            until probed, as the next three.
        batch_gap: largest difference that the probe saw between the two; 0 where they agree to the bit.
        deterministic: whether two calls give the same scores to the bit.
        differentiable: whether a finite gradient that is not zero reaches the image.
        licence: terms under which the weights may be used.
        sha256: of the weights' tensors (see ``models.weights.weights_sha256``), empty for untrained weights.
        training: how the weights came about; empty if unknown.
    """

    name: str
    architecture: dict[str, object]
    low: float | None = None
    high: float | None = None
    usual: tuple[float, float] | None = None
    lower_better: bool = False
    size_rule: str = "any"
    smallest: int = 1
    batch_invariant: bool | None = None
    batch_gap: float | None = None
    deterministic: bool | None = None
    differentiable: bool | None = None
    licence: str = "unknown"
    sha256: str = ""
    training: dict[str, object] = dataclasses.field(default_factory=dict[str, object])


class Scorer(nn.Module, ABC):
    """A no-reference quality metric: RGB float in [0, 1] in, one score an image out.

    A subclass declares its facts as attributes, of the class or of the instance.

    Attributes:
        low, high, usual, lower_better, size_rule, smallest: as on the card (see ``ScorerCard``).
        independent: by its code, no layer mixes the images of a batch; what is probed is no proof.
        card: the facts about this metric, set by ``load_scorer``; None for a metric built by hand.
    """

    low: float | None = None
    high: float | None = None
    usual: tuple[float, float] | None = None
    lower_better: bool = False
    size_rule: str = "any"
    smallest: int = 1
    independent: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.card: ScorerCard | None = None

    def __repr__(self) -> str:
        low, high = (end if end is None else f"{end:g}" for end in (self.low, self.high))
        return _in_one_line(self, "" if self.card is None else self.card.name, f"in [{low or '-inf'}, {high or 'inf'}]")

    def _repr_html_(self) -> str:  # pyright: ignore[reportUnusedFunction], notebooks call it
        return _facts(self, self.card)

    @abstractmethod
    def arguments(self) -> dict[str, object]:
        """Return the class name and the arguments that build this metric again."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Score every image of a batch by itself.

        Raises:
            ImageError: the images are smaller than ``smallest``.
        """

    def describe(
        self, name: str, *, licence: str = "unknown", sha256: str = "", training: Mapping[str, object] | None = None
    ) -> ScorerCard:
        """Return a card of this metric's declared facts; what only a probe can tell stays None."""
        return ScorerCard(
            name=name, architecture=self.arguments(), low=self.low, high=self.high, usual=self.usual,
            lower_better=self.lower_better, size_rule=self.size_rule, smallest=self.smallest, licence=licence,
            sha256=sha256, training=dict(training or {}),
        )  # fmt: skip

    def declare(self, facts: ScorerCard | Scorer) -> None:
        """Take the declared facts of a card, or of the metric that this one is built around, for its own."""
        self.low, self.high, self.usual = facts.low, facts.high, facts.usual
        self.lower_better, self.size_rule, self.smallest = facts.lower_better, facts.size_rule, facts.smallest

    def require_size(self, x: Float[Tensor, "b 3 h w"]) -> None:
        """Raise ImageError if the images have a side below ``smallest``."""
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise ImageError(f"this metric needs {self.smallest} pixels a side; the image has {width} x {height}")


def _in_one_line(model: nn.Module, name: str, fact: str) -> str:
    size = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__}({f'{name!r}, ' if name else ''}{fact}, {size:,} parameters)"


def _facts(model: nn.Module, card: Card | ScorerCard | None) -> str:
    """Return the facts about a model as a table in HTML."""
    facts = {} if card is None else dataclasses.asdict(card)
    facts |= {f"training: {name}": value for name, value in facts.pop("training", {}).items()}
    known = [row(name, str(value)) for name, value in facts.items() if value is not None and value != ""]
    return str(Table("", [Column("fact"), Column("value")], known, caption=repr(model)).html())


def name_of(model: Restorer | Scorer) -> str:
    """Return what a model is called: by its card, or its class where it has none."""
    return type(model).__name__ if model.card is None else model.card.name


def device_of(model: nn.Module) -> torch.device:
    """Return where a model is; one without weights works anywhere, and is taken to be on the CPU.

    Example:
        >>> device_of(nn.ReLU())
        device(type='cpu')
    """
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Put a model in evaluation mode with frozen parameters, and give it back as it was.

    Frozen parameters halve the cost of the backward pass, and keep gradients of an attack out of a training run.
    """
    training = {name: module.training for name, module in model.named_modules()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for name, module in model.named_modules():
            module.training = training[name]
