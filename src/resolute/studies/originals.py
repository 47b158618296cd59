"""The original of each image: one file for all, or files of their names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from resolute.errors import ImageError
from resolute.folders import find_images


@dataclasses.dataclass(frozen=True)
class Originals:
    """Reference files: one for all images, or by name without suffix."""

    single: str
    named: dict[str, str]

    @staticmethod
    def of(references: Sequence[str]) -> Originals | None:
        if not references:
            return None
        files = find_images(references)
        if len(files) == 1 and Path(references[0]).is_file():
            return Originals(str(files[0]), {})
        stems = Counter(file.stem for file in files)
        twice = next((stem for stem, number in stems.items() if number > 1), None)
        if twice is not None:
            raise ImageError(f"two references are called {twice}; give each image one original of its name")
        return Originals("", {file.stem: str(file) for file in files})

    def path_of(self, name: str) -> str:
        """Return the reference of an image, or raise ``ImageError``."""
        found = self.known(name)
        if not found:
            raise ImageError(f"no reference is called {Path(name).stem}; add its original under that name")
        return found

    def known(self, name: str) -> str:
        """Return the reference of an image; empty where there is none."""
        return self.single or self.named.get(Path(name).stem, "")
