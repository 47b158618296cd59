"""Attacks by name, as studies and the command line write them."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.ascent import Attack, Precision
from resolute.attacks.feature import FDA
from resolute.attacks.gradient import FGSM, IFGSM, PGD
from resolute.attacks.objective import FeatureDisruption, FeatureShift, Objective, OutputShift
from resolute.errors import ConfigError

ATTACKS: dict[str, type[Attack]] = {"fgsm": FGSM, "ifgsm": IFGSM, "pgd": PGD, "fda": FDA}

OBJECTIVES = ("output", "feature_shift", "feature_disruption")


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class AttackTable:
    """An attack without its budget, as written in TOML or on the command line; unset options keep their defaults.

    Attributes:
        kind: name in ``ATTACKS``.
        label: name in tables; the kind if empty.
        objective: what to climb instead of the attack's own objective.
        layers: of a feature objective; empty for the model's feature layer.
        steps, restarts, relative_step: see the attack.

    Example:
        >>> AttackTable(kind="pgd", steps=200, restarts=10).build(4 / 255).steps
        200
    """

    kind: str
    label: str = ""
    objective: Literal["output", "feature_shift", "feature_disruption"] | None = None
    layers: tuple[str, ...] = ()
    steps: Annotated[int | None, pydantic.Field(ge=1)] = None
    restarts: Annotated[int | None, pydantic.Field(ge=1)] = None
    relative_step: Annotated[float | None, pydantic.Field(gt=0, le=2)] = None

    @staticmethod
    def checked(**options: object) -> AttackTable:
        """Return the table with its options checked, for values that a person typed.

        Raises:
            ConfigError: an option is out of range or does not exist.
        """
        try:
            return pydantic.TypeAdapter(AttackTable).validate_python(options)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}") from None

    @property
    def name(self) -> str:
        """The label, or the kind where there is none."""
        return self.label or self.kind

    def build(self, epsilon: float, precision: Precision = "float32") -> Attack:
        """Return the attack at one budget.

        Raises:
            ConfigError: no such attack, or an option that it does not have.
        """
        if self.kind not in ATTACKS:
            raise ConfigError(f"no attack named {self.kind!r}; choose one of {', '.join(ATTACKS)}")
        attack = ATTACKS[self.kind]
        options: dict[str, object] = {
            "steps": self.steps,
            "restarts": self.restarts,
            "relative_step": self.relative_step,
            "objective": self._objective(),
        }
        given = {key: value for key, value in options.items() if value is not None}
        surplus = given.keys() - {field.name for field in dataclasses.fields(attack)}
        if surplus:
            raise ConfigError(f"{self.kind} has no option {sorted(surplus)[0]!r}")
        return attack(epsilon=epsilon, precision=precision, **given)  # pyright: ignore[reportArgumentType]

    def _objective(self) -> Objective | None:
        if self.objective == "output" and not self.layers:
            return OutputShift()
        if self.objective == "feature_shift":
            return FeatureShift(self.layers)
        if self.objective == "feature_disruption" or (self.layers and self.kind == "fda" and self.objective is None):
            return FeatureDisruption(self.layers)
        if self.layers:
            raise ConfigError(f"{self.kind} climbs the output and has no layers; set objective to a feature objective")
        return None
