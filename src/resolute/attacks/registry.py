"""Attacks by name, as studies and the command line write them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast, final, get_args, get_origin

import pydantic
from pydantic_core import CoreSchema, core_schema

from resolute.attacks.ascent import Attack, GradientAttack, Precision
from resolute.attacks.ball import check_levels
from resolute.attacks.names import ATTACKS, OBJECTIVES, REFERENCES, attack_class, chosen, objective_of, written
from resolute.attacks.objective import Objective
from resolute.attacks.options import check_value, field_types, optional
from resolute.errors import ConfigError, did_you_mean
from resolute.of_file import holds_code, short_name, told_in_one_line
from resolute.plugins import find_plugin

_Levels = tuple[Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)], ...]

# What is inside an attack around others where nothing else is said; it gets the options that the outer one lacks.
_USUAL = {"transfer": ("pgd",), "warm_start": ("pgd",), "partial": ("ifgsm",), "worst": ("pgd", "apgd", "fda")}

# Those about the output, which are a verdict as well as something to climb.
_VERDICTS = ("output", "reference", "target")


@final
@dataclasses.dataclass(frozen=True, init=False)
class AttackTable:
    """An attack without its budget, as written in Python, in TOML or on the command line; checked when it is made.

    Options are the fields of the attack's dataclass, and those of the objective that it climbs. ``objective`` is a name
    in ``OBJECTIVES`` or of a plug-in, or ``FILE.py:NAME`` as any kind of attack. An attack inside is a name, or a table
    of its own; where the outer one has none, the usual one is inside and gets the other options.

    Budgets are in levels of 255 for either norm: the largest change of a value for ``linf``; the Euclidean length of
    the change over all pixels and channels for ``l2``, so that 127.5 there is a radius of 0.5 on the scale of [0, 1].

    Args:
        kind: name in ``ATTACKS`` or of a plug-in, or ``FILE.py:NAME``.
        label: name in tables; the kind if empty.
        epsilons: budgets in levels of 255, in a study; empty for those of the study.
        options: by name; those that are not given keep their defaults.

    Raises:
        ConfigError: no such attack or option, a value of a wrong type or out of range, or one is missing.

    Example:
        >>> AttackTable("pgd", steps=200, restarts=10).build(4 / 255).steps
        200
        >>> AttackTable("fda", layers=("all-relu",), mask="attacked").build(4 / 255).objective
        FeatureDisruption(layers=('all-relu',), mask='attacked')
        >>> AttackTable("transfer", source="edsr-s", steps=20).options["attack"]
        AttackTable(kind='pgd', label='', epsilons=(), options={'steps': 20})
    """

    kind: str
    label: str
    epsilons: tuple[float, ...]
    options: dict[str, object]

    def __init__(self, /, kind: str, *, label: str = "", epsilons: Sequence[float] = (), **options: object) -> None:
        object.__setattr__(self, "kind", check_value(str, "kind", kind))
        object.__setattr__(self, "label", check_value(str, "label", label))
        object.__setattr__(self, "epsilons", check_value(_Levels, "epsilons", tuple(epsilons)))
        object.__setattr__(self, "options", _checked(kind, options))

    @staticmethod
    def typed(words: Sequence[str], kind: str, **options: object) -> AttackTable:
        """Return the table with further options written as ``NAME=VALUE``, lists with commas.

        Args:
            words: such as ``queries=500``.
            kind: of the attack.
            options: those that are None or empty count as not given.

        Raises:
            ConfigError: as for the class, a word that is no such pair, or an option that is given twice.

        Example:
            >>> AttackTable.typed(["region=0,0,0.5,1"], "partial").options["region"]
            (0.0, 0.0, 0.5, 1.0)
        """
        given = {name: value for name, value in options.items() if value not in (None, ())}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals or not name:
                raise ConfigError(f"an option of an attack is NAME=VALUE, such as queries=500, not {word!r}")
            if name in given or name == "kind":
                raise ConfigError(f"is given twice, the second time as {word!r}", (name,))
            given[name] = value
        return AttackTable(kind, **cast("dict[str, Any]", given))

    @property
    def name(self) -> str:
        """The label, or the kind where there is none, without the folder of a file."""
        return self.label or short_name(self.kind)

    @property
    def opens(self) -> bool:
        """Whether building the attack reads a model or a file."""
        hints = _hints(self.kind, self.options)
        return any(
            ((how := written(hints[name])) is not None and how.opens and value not in REFERENCES)
            or any(one.opens for one in _inside(value))
            for name, value in self.options.items()
        )

    def at_most(self, limits: Mapping[str, int]) -> AttackTable:
        """Return the attack with no more than so much of some options, such as steps, where it has them.

        Example:
            >>> AttackTable("worst", steps=20).at_most({"steps": 5, "queries": 9}).options["attacks"][2].options
            {'steps': 5}
        """
        usual = {field.name: field.default for field in dataclasses.fields(attack_class(self.kind))}
        less: dict[str, Any] = dict(self.options)
        for name, most in limits.items():
            value = less.get(name, usual.get(name))
            if isinstance(value, int) and value > most:
                less[name] = most
        for name, value in self.options.items():
            if inside := tuple(one.at_most(limits) for one in _inside(value)):
                less[name] = inside if isinstance(value, tuple) else inside[0]
        return AttackTable(self.kind, label=self.label, epsilons=self.epsilons, **less)

    def build(self, epsilon: float, precision: Precision = "float32") -> Attack:
        """Return the attack at one budget.

        Raises:
            ConfigError: the options do not go together, or the 8-bit grid leaves nothing of the budget.
            CheckpointError, ImageError: a file that an option names cannot be read.
        """
        kind, hints = attack_class(self.kind), _hints(self.kind, self.options)
        values = {name: _read(hints[name], value, epsilon, precision) for name, value in self.options.items()}
        of_objective = {name: values.pop(name) for name in values.keys() - field_types(kind).keys()}
        if values.pop("objective", None) is not None or of_objective:
            objective = cast("Any", objective_of(self.kind, self.options))
            made = objective if isinstance(objective, type) else functools.partial(dataclasses.replace, objective)
            values["objective"] = made(**of_objective) if of_objective or isinstance(objective, type) else objective
        with told_in_one_line():
            try:
                attack = kind(epsilon=epsilon, precision=precision, **cast("dict[str, Any]", values))
            except ConfigError as error:
                raise ConfigError(f"{self.name}: {error.message}", error.key) from None
            except ValueError as error:
                raise ConfigError(f"{self.name}: {error}") from None
            except Exception as error:  # Code of somebody else can raise anything.
                code = find_plugin("attacks", self.kind)
                if code is None:
                    raise
                raise code.failed("cannot be made", error) from error
            check_levels(attack.aim()[1])
        return attack

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_table)


def _table(value: object) -> AttackTable:
    """Return an attack as files and people write it: a table, or its name alone."""
    if isinstance(value, AttackTable):
        return value
    if isinstance(value, str):
        return AttackTable(value)
    if isinstance(value, Mapping):
        table = dict(cast("Mapping[str, Any]", value))
        if "kind" not in table:
            raise ConfigError(f"an attack is one of {', '.join(ATTACKS)}", ("kind",))
        for name, hint in (("kind", str), ("label", str), ("epsilons", _Levels)):
            if name in table:
                table[name] = check_value(hint, name, table[name])
        # As ``dataclasses.asdict`` writes it, in records of a study.
        if table.keys() - {"epsilons"} == {"kind", "label", "options"} and isinstance(table["options"], Mapping):
            if holds_code(table):
                # Read back with the records of a study, from wherever: no reason to run code.
                return _unchecked(table)
            table |= table.pop("options")
        return AttackTable(**table)
    raise ConfigError(f"an attack is a table with its kind, such as {{ kind = 'pgd', steps = 20 }}, not {value!r}")


def _unchecked(table: Mapping[str, Any]) -> AttackTable:
    found = object.__new__(AttackTable)
    for name, value in {"epsilons": (), **table}.items():
        object.__setattr__(found, name, tuple(value) if name == "epsilons" else value)
    return found


def _checked(kind: str, options: Mapping[str, object]) -> dict[str, object]:
    attack, hints = attack_class(kind), _hints(kind, options)
    found, foreign = dict(options), options.keys() - hints.keys()
    holder = "attacks" if "attacks" in hints else "attack"
    if kind in _USUAL and holder not in options:
        climbed = {name: options[name] for name in options.keys() & hints.keys() - field_types(attack).keys()}
        if "objective" in hints and "objective" in options:
            climbed["objective"] = options["objective"]
        handed = {name: options[name] for name in options if name in foreign or name in climbed}
        inside_hints = _hints(_USUAL[kind][0], handed)
        for name in handed.keys() - inside_hints.keys():
            raise _no_option(kind, name, hints | inside_hints)
        inside = tuple(AttackTable(one, **cast("dict[str, Any]", handed)) for one in _USUAL[kind])
        found[holder] = inside if holder == "attacks" else inside[0]
        # A climb has its objective from the outer attack; a verdict is about the output.
        kept = issubclass(attack, GradientAttack) or chosen(kind, options) in _VERDICTS
        dropped = foreign if kept else foreign | climbed.keys()
        found = {name: value for name, value in found.items() if name not in dropped}
    elif foreign:
        raise _no_option(kind, next(name for name in options if name in foreign), hints, within=kind in _USUAL)
    for name in _required(attack) + _required(objective_of(kind, options)):
        if name not in found and name in hints:
            how = written(hints[name])
            raise ConfigError(f"{kind} needs a {name}{f': {how.what}' if how else ''}")
    return {name: _form(hints[name], name, value) for name, value in found.items()}


def _no_option(kind: str, name: str, hints: Mapping[str, object], within: bool = False) -> ConfigError:
    owners = [word for word, objective in OBJECTIVES.items() if name in field_types(objective)]
    remedy = did_you_mean(name, hints)
    if within:
        remedy += "; give it to an attack inside"
    elif "objective" in hints and owners:
        remedy += f"; one that climbs {' or '.join(owners)} has"
    return ConfigError(f"{kind} has no such option{remedy}; it has {', '.join(hints) or 'none'}", (name,))


def _hints(kind: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return what an attack can be given, by name: fields of its own, then those of the objective that is chosen."""
    fields = field_types(attack_class(kind)).items()
    own = {name: optional(hint) for name, hint in fields if name not in ("epsilon", "precision")}
    if own.get("objective") is not Objective:
        return own
    objective = objective_of(kind, options)
    of_objective = field_types(objective if isinstance(objective, type) else type(objective))
    return own | {name: optional(hint) for name, hint in of_objective.items() if name not in own}


def _required(kind: object) -> list[str]:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return []
    missing = dataclasses.MISSING
    return [field.name for field in dataclasses.fields(kind) if field.default is field.default_factory is missing]


def _form(hint: object, name: str, value: object) -> object:
    """Return the value of an option as a table holds it, checked."""
    if hint is Objective:
        return value
    if (how := written(hint)) is not None:
        return check_value(how.form, name, value)
    if isinstance(hint, type) and issubclass(hint, Attack):
        return _nested(hint, (name,), value)
    (of, *_) = get_args(hint) or (None,)
    if get_origin(hint) is tuple and isinstance(of, type) and issubclass(of, Attack):
        several = value.split(",") if isinstance(value, str) else value
        if not isinstance(several, Sequence):
            raise ConfigError(f"attacks are a list of tables or names, not {value!r}", (name,))
        return tuple(_nested(of, (name, str(place)), one) for place, one in enumerate(several))
    return check_value(hint, name, value)


def _nested(kind: type[Attack], key: tuple[str, ...], value: object) -> AttackTable:
    try:
        table = _table(value)
    except ConfigError as error:
        raise ConfigError(error.message, (*key, *error.key)) from None
    if not issubclass(attack_class(table.kind), kind):
        raise ConfigError(f"an attack that climbs by gradients is needed here, not {table.kind}", key)
    return table


def _inside(value: object) -> tuple[AttackTable, ...]:
    several = value if isinstance(value, tuple) else (value,)
    return tuple(one for one in cast("tuple[object, ...]", several) if isinstance(one, AttackTable))


def _read(hint: object, value: object, epsilon: float, precision: Precision) -> object:
    """Return what the value of an option stands for."""
    if (how := written(hint)) is not None:
        return how.read(value)
    if inside := tuple(one.build(epsilon, precision) for one in _inside(value)):
        return inside if isinstance(value, tuple) else inside[0]
    return value
