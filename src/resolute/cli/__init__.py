"""The command line: parse, call, print. A file for each trade."""

from __future__ import annotations

import signal
import sys
import warnings

from rich.markup import escape

from resolute import runtime
from resolute.cli.app import app
from resolute.cli.stopping import INTERRUPTED, SLOW, TERMINATED, Terminated, end_promptly, leave, terminate
from resolute.errors import BudgetWarning, ImageNote, ImageWarning, ModelWarning
from resolute.printing import errors

__all__ = ["app", "main"]

_SHOWN = (ModelWarning, BudgetWarning, ImageWarning, ImageNote)


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, terminate)
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if sys.platform != "win32" and command != SLOW:
        end_promptly()
    runtime.tune_allocator()
    show_model_warnings()
    try:
        app()
    except Terminated:  # before a command has begun, or after it has ended
        leave(TERMINATED)
    except SystemExit as stop:
        if stop.code in (INTERRUPTED, TERMINATED):
            leave(stop.code)
        raise


def show_model_warnings() -> None:
    """Show what is to be known about a model, a budget or images as one line, once; other warnings as Python does."""
    before, said = warnings.showwarning, set[str]()
    for kind in _SHOWN:
        warnings.simplefilter("always", kind)

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object, **named: object
    ) -> None:
        if not issubclass(category, _SHOWN):
            before(message, category, filename, lineno, *rest, **named)  # pyright: ignore[reportArgumentType]
        elif str(message) not in said:
            said.add(str(message))
            label = "note:" if issubclass(category, ImageNote) else "[yellow]warning:[/yellow]"
            errors.print(f"{label} {escape(str(message))}", soft_wrap=True, highlight=False)

    warnings.showwarning = show
