"""The second part of the demonstration: photographs certified and attacked."""

from __future__ import annotations

from pathlib import Path

from resolute.attacks.score import ScoreAttack
from resolute.certificates.median import prepared
from resolute.images import SAMPLE_NAMES, sample_image, write_png
from resolute.models.fitted import size_within
from resolute.studies.certification import Certification

# The small one, at so many pixels of the longer side: with so many samples, all photographs and both attacks take half
# a minute on two cores.
METRIC = "quality-s"
SIDE = 256
SAMPLES = 400
# A change of so few samples that the defended score holds, and one of all samples, under which it does not.
FEW, ALL = 0.15, 2 / 255


def certification(photographs: Path, seed: int = 0) -> Certification:
    """Return what the demonstration certifies: the small built-in metric, and under which attacks it is shown.

    Example:
        >>> [attack.adaptive for attack in certification(Path("photos")).attacks]
        [False, False, True]
    """
    attacks = (
        ScoreAttack(epsilon=FEW, norm="l2", seed=seed),
        ScoreAttack(epsilon=ALL, seed=seed),
        ScoreAttack(epsilon=ALL, adaptive=True, seed=seed),
    )
    return Certification(
        name="quality", images=(str(photographs),), metric=METRIC, samples=SAMPLES, seed=seed, attacks=attacks
    )


def write_photographs(folder: Path) -> Path:
    """Write the sample photographs, shrunk to the size of the demonstration, and return the folder.

    Raises:
        OutputError: one cannot be written.

    Example:
        >>> import tempfile
        >>> len(list(write_photographs(Path(tempfile.mkdtemp())).iterdir()))
        5
    """
    for name in SAMPLE_NAMES:
        image = sample_image(name)
        write_png(folder / f"{name}.png", prepared(image, size_within(image, SIDE)))
    return folder
