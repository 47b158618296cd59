"""Numbers as people read them: the one place where a figure, an interval or a difference becomes text."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal

DASH = "\u2013"
MINUS = "\u2212"
INFINITY = "\u221e"

# PSNR in dB from which on images count as equal: a mean with infinity in it would hide all other images.
CAP = 100.0


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: of the values given.
        low, high: ends of the interval; equal to the mean where one value cannot show a spread.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def scaled(self, factor: float) -> Interval:
        """Return the interval in another unit, such as a share in per cent.

        Example:
            >>> Interval(0.5, 0.25, 0.75, 9).scaled(100)
            Interval(mean=50.0, low=25.0, high=75.0, n=9)
        """
        return Interval(factor * self.mean, factor * self.low, factor * self.high, self.n)

    def shifted(self, by: float) -> Interval:
        """Return the interval of the values with a constant added."""
        return Interval(self.mean + by, self.low + by, self.high + by, self.n)


@dataclasses.dataclass(frozen=True)
class Change:
    """Two figures and the second less the first, as text; as printed, they add up."""

    before: str
    after: str
    difference: str


def or_infinite(psnr: float | None, *, known: bool = True) -> float | None:
    """Return a PSNR of a record, where None says that two images are equal, if the figure is ``known`` at all.

    Example:
        >>> or_infinite(31.2), or_infinite(None), or_infinite(None, known=False)
        (31.2, inf, None)
    """
    return math.inf if psnr is None and known else psnr


def capped(psnr: float | None, *, known: bool = True) -> float | None:
    """Return a PSNR of a record for a mean, in which equal images count as ``CAP``; see ``or_infinite``.

    Example:
        >>> capped(31.2), capped(None), capped(120.0), capped(None, known=False)
        (31.2, 100.0, 100.0, None)
    """
    value = or_infinite(psnr, known=known)
    return None if value is None else min(value, CAP)


def figure(value: float | None, digits: int = 2, *, signed: bool = False, significant: bool = False) -> str:
    """Return a number as it is printed: a dash where there is nothing to measure, no sign before a zero.

    Args:
        value: the number; None or NaN where there is none.
        digits: after the point.
        signed: print a plus as well.
        significant: ``digits`` counts significant ones instead.

    Example:
        >>> figure(31.234), figure(None) == DASH, figure(math.inf) == INFINITY
        ('31.23', True, True)
        >>> figure(0.5, signed=True), figure(-1.5) == MINUS + "1.50", figure(-0.001, signed=True)
        ('+0.50', True, '0.00')
        >>> figure(0.0123456, 3, significant=True)
        '0.0123'
    """
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return f"{MINUS if value < 0 else '+' if signed else ''}{INFINITY}"
    text = f"{value:{'+' if signed else ''}.{digits}{'g' if significant else 'f'}}"
    if float(text) == 0:
        return text.lstrip("+-")
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference with its sign.

    Example:
        >>> signed(0.123), signed(-1.5) == MINUS + "1.50"
        ('+0.12', True)
    """
    return figure(value, digits, signed=True)


def change(before: float | None, after: float | None, digits: int = 2) -> Change:
    """Return two figures and their difference, which is taken between the figures as printed.

    Example:
        >>> change(30.84, 32.86, 1)
        Change(before='30.8', after='32.9', difference='+2.1')
    """
    return Change(
        figure(before, digits), figure(after, digits), signed(printed_difference(before, after, digits), digits)
    )


def printed_difference(before: float | None, after: float | None, digits: int = 2) -> float | None:
    """Return the difference between two figures as printed; None where there is none.

    Example:
        >>> printed_difference(30.84, 32.86, 1), printed_difference(math.inf, math.inf), printed_difference(None, 1.0)
        (2.1, 0.0, None)
    """
    if before is None or after is None or math.isnan(before) or math.isnan(after):
        return None
    if math.isinf(before) or math.isinf(after):
        return 0.0 if before == after else after - before
    return float(Decimal(f"{after:.{digits}f}") - Decimal(f"{before:.{digits}f}"))


def adding_up(gain: Interval | None, before: float | None, after: float | None, digits: int = 2) -> Interval | None:
    """Return a mean gain with that mean which adds up with the two figures printed beside it.

    The mean moves by less than two units of the last digit, as rounding asks. A gain over other images than the two
    figures does not come near their difference and stays as it is.

    Example:
        >>> adding_up(Interval(2.02, 1.5, 2.5, 9), 30.84, 32.86, 1)
        Interval(mean=2.1, low=1.5, high=2.5, n=9)
    """
    difference = printed_difference(before, after, digits)
    if gain is None or difference is None or abs(difference - gain.mean) > 1.5 * 10**-digits:
        return gain
    return dataclasses.replace(gain, mean=difference, **({} if gain.n > 1 else {"low": difference, "high": difference}))


def interval(value: Interval | None, digits: int = 2, *, signed: bool = True) -> str:
    """Return a mean and its interval, or a dash without one; differences, which have a sign, unless told otherwise.

    Example:
        >>> interval(Interval(mean=1.0, low=0.5, high=1.5, n=3))
        '+1.00 [+0.50, +1.50]'
    """
    if value is None:
        return DASH
    text = figure(value.mean, digits, signed=signed)
    return f"{text} {ends}" if (ends := spread(value, digits, signed=signed)) else text


def spread(value: Interval | None, digits: int = 2, *, signed: bool = False) -> str:
    """Return the interval of a mean, or nothing where one value cannot show a spread.

    Example:
        >>> spread(Interval(mean=31.0, low=30.5, high=31.5, n=3)), spread(None)
        ('[30.50, 31.50]', '')
    """
    if value is None or value.n == 1:
        return ""
    return f"[{figure(value.low, digits, signed=signed)}, {figure(value.high, digits, signed=signed)}]"


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
