"""Errors that a user can mend: one line that says what is wrong and what to do, and an exit code for the shell."""

from __future__ import annotations

from typing import ClassVar


class ResoluteError(Exception):
    """Base of all errors caused by input, not by a defect of Resolute.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1


class ImageError(ResoluteError):
    """An image cannot be read, written or used."""

    exit_code: ClassVar[int] = 3


class CheckpointError(ResoluteError):
    """A weights file cannot be loaded."""

    exit_code: ClassVar[int] = 4


class ConfigError(ResoluteError, ValueError):
    """A recipe, a study or an option is wrong."""

    exit_code: ClassVar[int] = 5


class TrainingError(ResoluteError):
    """Training stopped because its numbers are no longer finite."""

    exit_code: ClassVar[int] = 6


class OutputError(ResoluteError):
    """A result cannot be written."""

    exit_code: ClassVar[int] = 7
