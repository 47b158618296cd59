"""Figures and names as the page prints them."""

from __future__ import annotations

import math
import re

from resolute.measure.intervals import Interval
from resolute.studies.summary import attack_title

DASH = "\u2013"
MINUS = "\u2212"
INFINITY = "\u221e"

_NUMBER = re.compile(r" \(\d+\)$")


def figure(value: float | None, digits: int = 2, infinite: bool = False) -> str:
    """Return a number as tables show it: infinity where images are equal, a dash where there is nothing to measure.

    Example:
        >>> figure(31.234), figure(None) == DASH, figure(None, infinite=True) == INFINITY
        ('31.23', True, True)
    """
    if value is None or math.isnan(value):
        return INFINITY if infinite else DASH
    return INFINITY if math.isinf(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float) -> str:
    """Return a difference with its sign.

    Example:
        >>> signed(0.123), signed(-1.5) == MINUS + "1.50"
        ('+0.12', True)
    """
    return f"{value:+.2f}".replace("-", MINUS)


def interval(value: Interval | None) -> str:
    """Return a mean difference and its interval, or a dash without one.

    Example:
        >>> interval(Interval(mean=1.0, low=0.5, high=1.5, n=3))
        '+1.00 [+0.50, +1.50]'
    """
    if value is None:
        return DASH
    return signed(value.mean) + (f" [{signed(value.low)}, {signed(value.high)}]" if value.n > 1 else "")


def spread(value: Interval | None, digits: int = 2) -> str:
    """Return the interval of a mean, or nothing where one value cannot show a spread.

    Example:
        >>> spread(Interval(mean=31.0, low=30.5, high=31.5, n=3)), spread(None)
        ('[30.50, 31.50]', '')
    """
    if value is None or value.n == 1:
        return ""
    return f"[{figure(value.low, digits)}, {figure(value.high, digits)}]"


def signed_gain(value: Interval | None) -> str:
    """Return a mean difference for a sentence, and whether it may be chance.

    Example:
        >>> signed_gain(Interval(mean=1.0, low=-0.5, high=1.5, n=3))
        '+1.00 (may be chance)'
    """
    if value is None:
        return DASH
    return signed(value.mean) + (f" ({doubt(value)})" if doubt(value) else "")


def doubt(value: Interval | None) -> str:
    """Say why a difference proves nothing, where it does not.

    Example:
        >>> doubt(Interval(mean=1.0, low=-0.5, high=2.5, n=3))
        'may be chance'
    """
    if value is None:
        return ""
    if value.n == 1:
        return "one image"
    return "may be chance" if value.low <= 0 <= value.high else ""


def share(value: float | None) -> str:
    """Return a share in per cent; what lies far outside comes from a gap near zero, and its number means nothing.

    Example:
        >>> share(0.571), share(10.3), share(-0.2)
        ('57 %', 'more than all', 'less than none')
    """
    if value is None:
        return DASH
    return "more than all" if value > 1 else "less than none" if value < 0 else f"{100 * value:.0f} %"


def title(attack: str) -> str:
    """Return the title of an attack, also of one that was numbered to tell it from another.

    Example:
        >>> title("ifgsm (2)"), title("my own")
        ('I-FGSM (2)', 'my own')
    """
    name, number = split_number(attack)
    return attack_title(name) + number


def split_number(name: str) -> tuple[str, str]:
    """Return a name without and with only the number that tells it from others.

    Example:
        >>> split_number("edsr (2)"), split_number("edsr")
        (('edsr', ' (2)'), ('edsr', ''))
    """
    number = _NUMBER.search(name)
    return (name, "") if number is None else (name[: number.start()], number.group())
