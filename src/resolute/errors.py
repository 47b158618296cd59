"""Errors that a user can mend: one line that says what is wrong and what to do, and an exit code for the shell."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar

# What would end the line, act on a terminal or turn the text around; a name from a file may hold it.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class ResoluteError(Exception):
    """Base of all errors caused by input, not by a defect of Resolute; its text is one line, whatever names are in it.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return _UNSHOWN.sub("?", super().__str__())


class ImageError(ResoluteError):
    """An image cannot be read, written or used."""

    exit_code: ClassVar[int] = 3


class BrokenImageError(ImageError):
    """A file cannot be read as an image: it is missing, damaged, cut short or of an unsupported kind."""


class TooSmallError(ImageError):
    """An image is too small for what is asked of it; others may not be."""


class CheckpointError(ResoluteError):
    """A weights file cannot be loaded."""

    exit_code: ClassVar[int] = 4


class ConfigError(ResoluteError, ValueError):
    """A recipe, a study or an option is wrong.

    Args:
        message: what is wrong, without the option's name.
        key: where in a table of options, such as ``("attack", "steps")``; empty where it is no single option.

    Example:
        >>> str(ConfigError("one or more, not 0", ("attack", "steps")))
        'attack.steps: one or more, not 0'
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str = "", key: tuple[str, ...] = ()) -> None:
        super().__init__(f"{'.'.join(key)}: {message}" if key else message)
        self.message = message
        self.key = key


class TrainingError(ResoluteError):
    """Training stopped because its numbers are no longer finite."""

    exit_code: ClassVar[int] = 6


class OutputError(ResoluteError):
    """A result cannot be written."""

    exit_code: ClassVar[int] = 7


class CellError(ResoluteError):
    """One cell of a study cannot be answered, and the others can: it is left out, and said."""

    exit_code: ClassVar[int] = 8


class MetricError(CellError, ValueError):
    """A metric cannot be certified on an image: it is no function of it, or leaves the range that it calls proven."""


class RefutedError(ResoluteError):
    """A certificate was refuted: the true median of an attacked image provably lies outside the certified interval."""

    exit_code: ClassVar[int] = 10


class BadRecordsError(ResoluteError):
    """Bad records were left out: lines of a study's files that are none; all else was done."""

    exit_code: ClassVar[int] = 11


class FlaggedError(ResoluteError):
    """An audit flagged a submission: its score looks gamed."""

    exit_code: ClassVar[int] = 12


class GateError(ResoluteError):
    """A figure does not keep the bound that was set for it; all is written all the same."""

    exit_code: ClassVar[int] = 13


class ModelWarning(UserWarning):
    """A model loads, and there is something about it that its user must know before anything is measured."""


class BudgetWarning(UserWarning):
    """A budget is not what it seems, for attacked images lie on the 8-bit grid."""


class ImageWarning(UserWarning):
    """Some of the images that were given are not used, or look like what they are not used as."""


class ImageNote(UserWarning):
    """What was made of the images that were given, where they could have been taken otherwise."""


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of what an error says, or its class where it says nothing.

    Example:
        >>> first_line(ValueError("no such layer")), first_line(KeyboardInterrupt())
        ('no such layer', 'KeyboardInterrupt')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def quoted(text: str) -> str:
    """Return what a user wrote as it stands in an error: between quotes, and no longer than a line holds.

    Example:
        >>> quoted("x5"), len(quoted("[" * 5000))
        ("'x5'", 82)
    """
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a remark that proposes the known words nearest to a wrong one; empty where none is near.

    Example:
        >>> did_you_mean("querys", ["queries", "share"])
        ' (did you mean queries?)'
        >>> did_you_mean("x", ["queries", "share"])
        ''
    """
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def class_and_line(error: BaseException) -> str:
    """Return the class of an error and the first line of what it says: for errors of other people's code.

    Example:
        >>> class_and_line(KeyError("weight"))
        "KeyError: 'weight'"
    """
    return f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__
