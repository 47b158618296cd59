"""Attacks by name, as studies and the command line write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_type_hints

import pydantic
from pydantic.dataclasses import dataclass

from resolute.attacks.adaptive import Bits, read_density
from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Attack, GradientAttack, Precision, Start
from resolute.attacks.ball import Norm, Rectangle
from resolute.attacks.feature import FDA
from resolute.attacks.gradient import FGSM, IFGSM, PGD
from resolute.attacks.momentum import MIFGSM
from resolute.attacks.noise import RandomNoise
from resolute.attacks.objective import FeatureDisruption, FeatureShift, Objective, OutputShift
from resolute.attacks.partial import Partial
from resolute.attacks.square import Square
from resolute.attacks.targeted import Picture, ReferenceShift, SavedOutput, TargetDistance, Truth
from resolute.attacks.transfer import Source, Transfer, WarmStart, WorstOf
from resolute.defences.loading import load_defended
from resolute.errors import ConfigError
from resolute.plugins import find_plugin, known

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "ifgsm": IFGSM,
    "mifgsm": MIFGSM,
    "pgd": PGD,
    "apgd": APGD,
    "fda": FDA,
    "noise": RandomNoise,
    "square": Square,
}

# Attacks around others, and what is inside where nothing else is said.
AROUND: dict[str, tuple[str, ...]] = {
    "transfer": ("pgd",),
    "warm_start": ("pgd",),
    "partial": ("ifgsm",),
    "worst": ("pgd", "apgd", "fda"),
}

KINDS = (*ATTACKS, *AROUND)

# Those of plug-ins come on top.
OBJECTIVES = ("output", "feature_shift", "feature_disruption")

_OF_OBJECTIVES = ("objective", "reference", "target", "density", "layers")
_OF_SEARCHES = ("steps", "restarts", "relative_step", "norm", "decay", "queries", "draws", "shape", "start")


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class AttackTable:
    """An attack without its budget, as written in TOML or on the command line; unset options keep their defaults.

    Budgets are in levels of 255 for either norm: the largest change of a value for ``linf``; the Euclidean length of
    the change over all pixels and channels for ``l2``, so that 127.5 there is a radius of 0.5 on the scale of [0, 1].

    Attributes:
        kind: name in ``KINDS``, or of a plug-in.
        label: name in tables; the kind if empty.
        objective: what to climb instead of the attack's own objective: a name in ``OBJECTIVES``, or of a plug-in.
        layers: of a feature objective or of ``density``; empty for the model's feature layer.
        reference: what the output is driven away from (eq. 14): the model's own clean output, ``self``; that output as
            an 8-bit file holds it, ``self_u8``; the ground truth, ``hr``.
        target: image file that the output is driven towards, stretched to its size.
        density: ``NAME.density.pt`` of a regularised run, or a built-in model that has one; the bits of the features
            under it are raised.
        steps, restarts, relative_step, norm, decay, queries, draws, shape, start: see the attack.
        source: model that ``transfer`` and ``warm_start`` search on, by name or file.
        mask: top, left, bottom and right of what ``partial`` may change, as shares of the sides.
        attacks: what is inside ``transfer``, ``partial``, ``worst`` and ``warm_start`` (there two: what finds the start
            on the source, and what goes on from it). Without, other options go to the usual ones, see ``AROUND``.
        options: of a plug-in that has some of its own, by name.

    Example:
        >>> AttackTable(kind="pgd", steps=200, restarts=10).build(4 / 255).steps
        200
        >>> AttackTable(kind="transfer", source="edsr-s", steps=20).build(4 / 255).attack.steps
        20
    """

    kind: str
    label: str = ""
    objective: str | None = None
    layers: tuple[str, ...] = ()
    reference: Literal["self", "self_u8", "hr"] | None = None
    target: str | None = None
    density: str | None = None
    steps: Annotated[int | None, pydantic.Field(ge=1)] = None
    restarts: Annotated[int | None, pydantic.Field(ge=1)] = None
    relative_step: Annotated[float | None, pydantic.Field(gt=0, le=2)] = None
    norm: Norm | None = None
    decay: Annotated[float | None, pydantic.Field(ge=0)] = None
    queries: Annotated[int | None, pydantic.Field(ge=1)] = None
    draws: Annotated[int | None, pydantic.Field(ge=1)] = None
    shape: Literal["both", "uniform", "signs"] | None = None
    start: Start | None = None
    source: str | None = None
    mask: tuple[float, float, float, float] | None = None
    attacks: tuple[AttackTable, ...] = ()
    options: dict[str, object] = dataclasses.field(default_factory=dict[str, object])

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

    @staticmethod
    def typed(words: Sequence[str], **options: object) -> AttackTable:
        """Return the table with further options written as ``NAME=VALUE``, lists with commas.

        Names that no attack of the package knows are options of a plug-in.

        Raises:
            ConfigError: as ``checked``, or a word that is no such pair.

        Example:
            >>> AttackTable.typed(["mask=0,0,0.5,1"], kind="partial").mask
            (0.0, 0.0, 0.5, 1.0)
        """
        known_here = {field.name for field in dataclasses.fields(AttackTable)}
        foreign: dict[str, object] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or not name:
                raise ConfigError(f"an option of an attack is NAME=VALUE, such as queries=500, not {word!r}")
            if name not in known_here and options.get("kind") in KINDS:
                raise ConfigError(f"{name}: {options['kind']} has no such option")
            place = options if name in known_here else foreign
            place[name] = value.split(",") if name in ("mask", "layers") else value
        return AttackTable.checked(**options, options=foreign)

    @property
    def name(self) -> str:
        """The label, or the kind where there is none."""
        return self.label or self.kind

    def build(self, epsilon: float, precision: Precision = "float32") -> Attack:
        """Return the attack at one budget.

        Raises:
            ConfigError: no such attack, an option that it does not have, or one that it needs and was not given.
            CheckpointError, ImageError: a file that an option names cannot be read.
        """
        if self.kind == "universal":
            raise ConfigError(
                "a universal perturbation is one for many images, and here each is attacked by itself; "
                "use resolute.attacks.universal(model, images, epsilon) in Python"
            )
        if self.kind in AROUND:
            return self._build_around(epsilon, precision)
        attack = ATTACKS.get(self.kind) or _plugged_attack(self.kind)
        options = self._given(*_OF_SEARCHES, "source", "mask", "attacks") | self.options
        objective = self._objective()
        if objective is not None:
            options["objective"] = objective
        surplus = options.keys() - ({field.name for field in dataclasses.fields(attack)} - {"epsilon", "precision"})
        if surplus:
            raise ConfigError(f"{self.kind} has no option {sorted(surplus)[0]!r}")
        if self.kind not in ATTACKS:
            options = _of_right_types(attack, self.kind, options)
        try:
            return attack(epsilon=epsilon, precision=precision, **options)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            raise ConfigError(f"{self.name}: {error}") from None

    def _build_around(self, epsilon: float, precision: Precision) -> Attack:
        if self.options:
            raise ConfigError(f"{self.kind} has no option {next(iter(self.options))!r}; give it to an attack inside")
        foreign = {"transfer": "mask", "warm_start": "mask", "partial": "source"}.get(self.kind)
        for option in ("source", "mask") if foreign is None else (foreign,):
            if self._given(option):
                raise ConfigError(f"{self.kind} has no option {option!r}")
        inside = [table.build(epsilon, precision) for table in self._inside()]
        verdict: Objective = OutputShift()
        if self.target is not None or self.reference is not None:
            verdict = self._objective() or verdict
        try:
            match self.kind:
                case "worst":
                    return WorstOf(epsilon=epsilon, precision=precision, attacks=tuple(inside), objective=verdict)
                case "transfer":
                    (attack,) = self._at_most(inside, 1)
                    return Transfer(
                        epsilon=epsilon, precision=precision, source=self._source(), attack=attack, objective=verdict
                    )
                case "warm_start":
                    *scout, attack = self._at_most(inside, 2)
                    return WarmStart(
                        epsilon=epsilon,
                        precision=precision,
                        source=self._source(),
                        scout=scout[0] if scout else None,
                        attack=self._climbing(attack),
                    )
                case _:
                    (attack,) = self._at_most(inside, 1)
                    return Partial(
                        epsilon=epsilon,
                        precision=precision,
                        attack=self._climbing(attack),
                        region=Rectangle(*self.mask) if self.mask else Rectangle(),
                        objective=self._objective(),
                    )
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{self.name}: {error}") from None

    def _inside(self) -> tuple[AttackTable, ...]:
        own = self._given(*_OF_OBJECTIVES, *_OF_SEARCHES)
        if self.attacks:
            if own:
                raise ConfigError(f"{self.kind} has attacks inside: give {next(iter(own))!r} to them")
            return self.attacks
        return tuple(AttackTable.checked(kind=kind, **own) for kind in AROUND[self.kind])

    def _given(self, *names: str) -> dict[str, object]:
        return {name: value for name in names if (value := getattr(self, name)) not in (None, ())}

    def _source(self) -> Source:
        if self.source is None:
            raise ConfigError(f"{self.kind} needs a source: the name or the file of the model to search on")
        return Source(load_defended(self.source))

    def _at_most(self, inside: list[Attack], most: int) -> list[Attack]:
        if len(inside) > most:
            raise ConfigError(f"{self.kind} holds at most {most} attack{'s' if most > 1 else ''}, not {len(inside)}")
        return inside

    def _climbing(self, attack: Attack) -> GradientAttack:
        if not isinstance(attack, GradientAttack):
            raise ConfigError(f"{self.kind} needs an attack inside that climbs by gradients, not {attack!r}")
        return attack

    def _objective(self) -> Objective | None:
        named = self._given("objective", "reference", "target", "density")
        if len(named) > 1:
            raise ConfigError(f"{self.kind} climbs one objective: choose between {' and '.join(named)}")
        if self.target is not None:
            objective: Objective | None = TargetDistance(Picture.read(self.target))
        elif self.density is not None:
            if len(self.layers) > 1:
                raise ConfigError("a density is of one layer; name that one alone")
            return Bits(read_density(self.density), layer="".join(self.layers))
        elif self.reference is not None:
            references = {"self_u8": SavedOutput(), "hr": Truth()}
            known = references.get(self.reference)
            objective = ReferenceShift(known) if known is not None else OutputShift()
        elif self.objective == "feature_shift":
            return FeatureShift(self.layers)
        elif self.objective == "feature_disruption" or (self.layers and self.kind == "fda" and self.objective is None):
            return FeatureDisruption(self.layers)
        elif self.objective == "output":
            objective = OutputShift()
        else:
            objective = None if self.objective is None else _plugged_objective(self.objective)
        if self.layers:
            raise ConfigError(f"{self.kind} climbs the output and has no layers; set objective to a feature objective")
        return objective


def _plugged_attack(kind: str) -> type[Attack]:
    plugin = find_plugin("attacks", kind)
    if plugin is None:
        raise ConfigError(f"no attack named {kind!r}; choose one of {known('attacks', KINDS)}")
    attack = plugin.load()
    if not (isinstance(attack, type) and issubclass(attack, Attack) and dataclasses.is_dataclass(attack)):
        raise plugin.error("is no attack, a dataclass under Attack or GradientAttack")
    return attack


def _of_right_types(attack: type[Attack], kind: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a plug-in's attack as values of the types that its fields are declared with."""
    hints = get_type_hints(attack)
    found: dict[str, object] = {}
    for name, value in options.items():
        try:
            found[name] = pydantic.TypeAdapter(hints[name]).validate_python(value)
        except pydantic.ValidationError as error:
            raise ConfigError(f"{kind}.{name}: {error.errors()[0]['msg'].lower()}, not {value!r}") from None
        except pydantic.PydanticUserError:  # a type of its own, which no file can write
            found[name] = value
    return found


def _plugged_objective(name: str) -> Objective:
    plugin = find_plugin("objectives", name)
    if plugin is None:
        raise ConfigError(f"no objective named {name!r}; choose one of {known('objectives', OBJECTIVES)}")
    objective = plugin.load()
    found = objective() if isinstance(objective, type) else objective
    if not isinstance(found, Objective):
        raise plugin.error("is no objective, with a method bind(model, clean)")
    return found
