"""The command line: parse, call, print. A file for each trade."""

from __future__ import annotations

import signal
import sys

from resolute import runtime
from resolute.cli import (
    attacking,
    certifying,
    checking,
    exporting,
    publishing,
    querying,
    serving,
    studying,
    training,
    viewing,
)
from resolute.cli.app import app

__all__ = [
    "app",
    "attacking",
    "certifying",
    "checking",
    "exporting",
    "main",
    "publishing",
    "querying",
    "serving",
    "studying",
    "training",
    "viewing",
]


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    runtime.tune_allocator()
    app()
