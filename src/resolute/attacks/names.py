"""Names that studies and the command line use, and what they stand for: attacks, objectives, models and files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from resolute.attacks.adaptive import Bits, read_density
from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Attack
from resolute.attacks.ball import Rectangle, Region
from resolute.attacks.gradient import FDA, FGSM, IFGSM, MIFGSM, PGD
from resolute.attacks.noise import RandomNoise
from resolute.attacks.objective import FeatureDisruption, FeatureShift, Objective, OutputShift
from resolute.attacks.options import check_value, field_types
from resolute.attacks.partial import Partial
from resolute.attacks.square import Square
from resolute.attacks.targeted import Picture, Reference, ReferenceShift, SavedOutput, TargetDistance, Truth
from resolute.attacks.transfer import Source, Transfer, WarmStart, WorstOf
from resolute.attacks.unseen import MADC, Korhonen
from resolute.defences.entropy import ChannelDensity
from resolute.defences.loading import load_defended
from resolute.errors import ConfigError, did_you_mean
from resolute.of_file import OwnCode
from resolute.plugins import Plugin, find_plugin, known

# Those of plug-ins come on top, of objectives as well.
ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "ifgsm": IFGSM,
    "mifgsm": MIFGSM,
    "pgd": PGD,
    "apgd": APGD,
    "fda": FDA,
    "noise": RandomNoise,
    "square": Square,
    "korhonen": Korhonen,
    "madc": MADC,
    "transfer": Transfer,
    "warm_start": WarmStart,
    "partial": Partial,
    "worst": WorstOf,
}

# The last three are chosen by their option of the same name alone.
OBJECTIVES: dict[str, type[Objective]] = {
    "output": OutputShift,
    "feature_shift": FeatureShift,
    "feature_disruption": FeatureDisruption,
    "reference": ReferenceShift,
    "target": TargetDistance,
    "density": Bits,
}

REFERENCES: dict[str, Reference] = {"self_u8": SavedOutput(), "hr": Truth()}

_REFERENCE = "self_u8, hr or an image file"


@dataclasses.dataclass(frozen=True)
class Written:
    """How a value that is no number, word or tuple is written: the type of what stands there, and what makes it."""

    form: object
    what: str
    read: Callable[[Any], object]
    opens: bool = True


def _word_or_file(text: str) -> str:
    if text not in REFERENCES and not Path(text).suffix:
        raise ValueError(f"{_REFERENCE}{did_you_mean(text, REFERENCES)}")
    return text


def _reference(text: str) -> Reference:
    return REFERENCES.get(text) or Picture.read(text)


_SIDES = tuple[float, float, float, float]

_WRITTEN: dict[object, Written] = {
    Source: Written(str, "the name or the file of a model", lambda text: Source(load_defended(text))),
    Reference: Written(Annotated[str, pydantic.AfterValidator(_word_or_file)], _REFERENCE, _reference),
    ChannelDensity: Written(str, "NAME.density.pt of a regularised run, or a built-in model with one", read_density),
    Region: Written(_SIDES, "top, left, bottom and right as shares of the sides", lambda s: Rectangle(*s), opens=False),
}


def chosen(kind: str, options: Mapping[str, object]) -> str:
    """Return the name of the objective that the options choose; empty for the attack's own.

    Raises:
        ConfigError: several are chosen.
    """
    if "objective" in options:
        return str(check_value(str, "objective", options["objective"]))
    own = field_types(attack_class(kind))
    implied = [name for name in OBJECTIVES if name in options and name not in own]
    if len(implied) > 1:
        raise ConfigError(f"{kind} climbs one objective: choose between {' and '.join(implied)}")
    return implied[0] if implied else ""


def objective_of(kind: str, options: Mapping[str, object]) -> object:
    """Return the objective that the options choose, as a class or ready; None where the attack has none.

    Raises:
        ConfigError: there is none of that name, several are chosen, or a plug-in is broken.
    """
    name = chosen(kind, options)
    if not name:
        return {field.name: field.default for field in dataclasses.fields(attack_class(kind))}.get("objective")
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    plugin = _plugin("objectives", name, OBJECTIVES, "objective")
    objective = plugin.load()
    # A class has its method as an attribute too, so both are told by it.
    if not isinstance(objective, Objective):
        raise plugin.error("is no objective, with a method bind(model, clean)")
    return objective


def attack_class(kind: str) -> type[Attack]:
    """Return the class of an attack by its name.

    Raises:
        ConfigError: there is none, or a plug-in is broken.
    """
    if kind in ATTACKS:
        return ATTACKS[kind]
    if kind == "universal":
        raise ConfigError(
            "a universal perturbation is one for many images, and here each is attacked by itself; "
            "use resolute.attacks.universal(model, images, epsilon) in Python"
        )
    plugin = _plugin("attacks", kind, ATTACKS, "kind")
    attack = plugin.load()
    if not (isinstance(attack, type) and issubclass(attack, Attack) and dataclasses.is_dataclass(attack)):
        raise plugin.error("is no attack, a dataclass under Attack or GradientAttack")
    return attack


def _plugin(
    group: Literal["attacks", "objectives"], name: str, built_in: Mapping[str, object], key: str
) -> Plugin | OwnCode:
    plugin = find_plugin(group, name)
    if plugin is None:
        names = known(group, tuple(built_in))
        near = did_you_mean(name, names.split(", "))
        raise ConfigError(f"no {group[:-1]} named {name!r}{near}; choose one of {names}", (key,))
    return plugin


def written(hint: object) -> Written | None:
    """Return how values of an annotated type are written, where that is not as they are."""
    return _WRITTEN.get(hint) if isinstance(hint, type) else None
