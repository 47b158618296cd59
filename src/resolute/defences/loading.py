"""Defended models by name: ``edsr-s+mix=0.5`` is the model ``edsr-s`` with the defence ``mix=0.5`` around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from resolute.defences.resizing import RandomResizing
from resolute.defences.wrappers import (
    Confined,
    Defended,
    Denoised,
    EightBit,
    LowPass,
    Mixture,
    OutputBlur,
    SelfEnsemble,
)
from resolute.errors import ConfigError
from resolute.models.base import Restorer
from resolute.models.forms import InForm
from resolute.models.registry import load

DEFENCES = "mix=THETA, lowpass=SIGMA, blur=SIGMA, confine=SPREAD, denoise=NAME, resize, resize=GROWTH, round8, ensemble"
# What is none, and goes around a model by the same sign.
_FORM = "as"
_DENOISE = "denoise"
_OF_A_NUMBER: dict[str, Callable[..., Defended]] = {
    "mix": Mixture, "lowpass": LowPass, "blur": OutputBlur, "confine": Confined, "resize": RandomResizing
}  # fmt: skip
_ALONE: dict[str, Callable[..., Defended]] = {
    "resize": RandomResizing, "round8": EightBit, "ensemble": SelfEnsemble
}  # fmt: skip
_WORDS = {text.partition("=")[0] for text in DEFENCES.split(", ")} | {_FORM}


def load_defended(model: str | Path, scale: int | None = None) -> Restorer:
    """Load a model as ``load`` does, with defences around it that its name asks for, the innermost first.

    ``edsr-s+mix=0.5+blur=0.8`` blurs the output of a mixture. Names without a ``+`` and files whose path holds one are
    models as they are.

    Args:
        model: name, path or address (see ``models.address``), and any number of ``+DEFENCE``: ``mix=THETA``,
            ``lowpass=SIGMA``, ``blur=SIGMA``, ``confine=SPREAD``, ``denoise=NAME`` (a denoiser before it, by name or
            file), ``resize`` or ``resize=GROWTH``, ``round8``, ``ensemble``; or ``+as=FORM``, the model in another
            arithmetic, see ``InForm``.
        scale: the scale you expect, as for ``load``.

    Raises:
        CheckpointError: as ``load``.
        ConfigError: no such defence, or its parameter is out of range.

    Example:
        >>> load_defended("edsr-s+mix=0.5+blur=0.80").card.name
        'edsr-s+mix=0.5+blur=0.8'
    """
    address, defences = undefended(model)
    restorer = load(address, scale)
    for text in defences:
        inner, restorer = restorer, defence(text)(restorer)
        restorer.doubt = inner.doubt
    return restorer.eval()


def undefended(model: str | Path) -> tuple[str, list[str]]:
    """Return the address of a model without defences, and the defences around it, the innermost first.

    Example:
        >>> undefended("carn.pth#x4+mix=0.5+round8")
        ('carn.pth#x4', ['mix=0.5', 'round8'])
    """
    address, defences = str(model), list[str]()
    while "+" in address and not Path(address).is_file():
        head, _, tail = address.rpartition("+")
        # Behind # a file may be named whose own name holds a plus.
        if "#" in head and tail.partition("=")[0] not in _WORDS:
            break
        address = head
        defences.insert(0, tail)
    return address, defences


def defence(text: str) -> Callable[[Restorer], Restorer]:
    """Return what puts a defence around a model, by the defence's name, or the model into another form.

    Args:
        text: such as ``mix=0.5``, ``blur=0.8``, ``resize``, ``round8``, ``ensemble`` or ``as=float16``.

    Raises:
        ConfigError: no such defence; putting it around a model raises the same where its parameter is out of range, and
            ``CheckpointError`` where a denoiser cannot be loaded.

    Example:
        >>> from resolute.models import Bicubic
        >>> defence("lowpass=0.7")(Bicubic(2)).arguments()["sigma"]
        0.7
    """
    kind, equals, number = text.partition("=")
    if kind == _FORM:
        return lambda inner: InForm(inner, number)
    if kind == _DENOISE and not number:
        raise ConfigError(f"{kind} takes a denoiser, as in denoise=denoiser-mse-012, not nothing")
    if kind == _DENOISE:
        return lambda inner: Denoised(inner, load(number))
    made = (_OF_A_NUMBER if equals else _ALONE).get(kind)
    if made is None:
        raise ConfigError(f"no defence {text!r} (nor a file of the whole name); the defences are {DEFENCES}")
    try:
        values = [float(number)] if equals else []
    except ValueError:
        raise ConfigError(f"{kind} takes a number, not {number!r}; the defences are {DEFENCES}") from None
    return lambda inner: made(inner, *values)
