"""Where the program prints: results on one console, errors and progress on the other."""

from __future__ import annotations

import os
import sys

from rich import control
from rich.console import Console

# Wide where nobody looks, so that what reads the output finds names and hashes whole; COLUMNS says otherwise.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200

# What a name or a record may hold and a terminal would obey: it moves the cursor, turns text around, sets the title.
control._CONTROL_STRIP_TRANSLATE |= dict.fromkeys(  # pyright: ignore[reportPrivateUsage]
    [*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
)

# A name such as :fire: is a name.
console = Console(width=WIDTH, emoji=False)
errors = Console(stderr=True, width=WIDTH, emoji=False)
