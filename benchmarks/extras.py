"""What each extra adds to an installation: distributions, and megabytes of their files on disk.

    python benchmarks/extras.py

Of this environment, by the metadata of what is installed in it; an extra of which something is missing is said to be
so. On a machine with the build for a GPU, what that brings (nvidia-*, triton) is torch's.
"""

from __future__ import annotations

import importlib.metadata as metadata
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@cache
def closure(name: str, extras: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the names of a distribution and of all that it needs; those that are not installed with a ``!``."""
    found, todo = set[str](), [(canonicalize_name(name), extras)]
    seen = set[tuple[str, frozenset[str]]]()
    while todo:
        if (one := todo.pop()) in seen:
            continue
        seen.add(one)
        try:
            wanted = metadata.requires(one[0]) or []
        except metadata.PackageNotFoundError:
            found.add(f"!{one[0]}")
            continue
        found.add(one[0])
        for requirement in map(Requirement, wanted):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*one[1], "")):
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return frozenset(found)


def megabytes(names: frozenset[str]) -> float:
    """Return what the files of distributions take."""
    paths = {Path(str(file.locate())) for name in names for file in metadata.files(name) or ()}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    core = closure("resolute")
    torch = closure("torch") & core
    print("| what | distributions | MB |\n|---|--:|--:|")
    print(f"| torch {metadata.version('torch')} and what it needs | {len(torch)} | {megabytes(torch):.0f} |")
    print(f"| the rest of `resolute` | {len(core - torch)} | {megabytes(core - torch):.0f} |")
    for extra in metadata.metadata("resolute").get_all("Provides-Extra") or ():
        added = closure("resolute", frozenset({extra})) - core
        missing = sorted(name[1:] for name in added if name.startswith("!"))
        if missing:
            print(f"| `[{extra}]` | not measured: {', '.join(missing[:3])} is not installed | |")
        else:
            print(f"| `[{extra}]` | {len(added)} | {megabytes(added):.0f} |")


if __name__ == "__main__":
    main()
