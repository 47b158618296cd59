"""What the weights that come with this package are, as the heads of their files say: without PyTorch."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any, Literal

WEIGHTS = Path(str(resources.files("resolute"))) / "weights"

# What is not trained: what a normalisation notes while others train, and the ends of a metric's scale.
_NOTED = ("running_mean", "running_var", "num_batches_tracked", "range")


@dataclasses.dataclass(frozen=True)
class Shipped:
    """One model or metric of this project.

    Attributes:
        name: what it is called.
        path: its weights.
        kind: a super-resolution model (or denoiser), or a quality metric.
        card: its facts; see ``Card`` and ``ScorerCard``.
        parameters: how many weights were trained.
    """

    name: str
    path: Path
    kind: Literal["restorer", "scorer"]
    card: dict[str, Any]
    parameters: int

    @property
    def network(self) -> str:
        """The class of its network."""
        return str(self.card["architecture"]["class"])

    def validated(self, *measures: str) -> float | None:
        """Return the first of these measures that its validation has; None where it has none."""
        found = self.card["training"].get("validation") or {}
        return next((found[name] for name in measures if isinstance(found.get(name), float)), None)


def shipped(kind: Literal["restorer", "scorer"]) -> list[Shipped]:
    """Return all of one kind, sorted by name.

    Example:
        >>> [one.name for one in shipped("scorer")], shipped("scorer")[1].parameters
        (['quality-m', 'quality-s'], 297233)
    """
    found = map(_of, sorted(WEIGHTS.glob("*.safetensors")))
    return [one for one in found if one.kind == kind]


# Every model that is loaded by its name asks for all of them.
@functools.cache
def _of(path: Path) -> Shipped:
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    told = head.pop("__metadata__")
    trained = [facts["shape"] for name, facts in head.items() if name.rpartition(".")[2] not in _NOTED]
    return Shipped(
        name=path.stem, path=path, kind=told.get("kind", "restorer"), card=json.loads(told["card"]),
        parameters=sum(map(math.prod, trained)),
    )  # fmt: skip
