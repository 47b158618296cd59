"""Where the program prints: results on one console, errors and progress on the other."""

from __future__ import annotations

import os
import sys

from rich.console import Console

# Wide where nobody looks, so that what reads the output finds names and hashes whole; COLUMNS says otherwise.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200

# A name such as :fire: is a name.
console = Console(width=WIDTH, emoji=False)
errors = Console(stderr=True, width=WIDTH, emoji=False)
