"""The second part of the demonstration: photographs handed in for a quality score, two of them gamed, and an audit."""

from __future__ import annotations

from pathlib import Path

from resolute.attacks.gradient import IFGSM
from resolute.attacks.objective import ScoreGain
from resolute.certificates.gap import Screening
from resolute.certificates.median import prepared
from resolute.images import SAMPLE_NAMES, sample_image, write_png
from resolute.models.fitted import size_within
from resolute.models.scorers import load_scorer
from resolute.studies.audit import Audit

GAMED = SAMPLE_NAMES[:2]
EPSILON, STEPS = 2 / 255, 10


def submissions(folder: Path, device: str = "cpu") -> Audit:
    """Write the sample photographs as originals and as submissions, two of these gamed, and return the audit of them.

    A submission that is there already is left as it is.

    Raises:
        OutputError: one cannot be written.

    Example:
        >>> import tempfile
        >>> from unittest.mock import patch
        >>> with patch("resolute.studies.demonstration.GAMED", ()):
        ...     audit = submissions(Path(tempfile.mkdtemp()))
        >>> len(list(Path(audit.images[0]).iterdir())), audit.metric
        (5, 'quality-m')
    """
    audit = Audit(name="scores", images=(str(folder / "submissions"),), references=(str(folder / "originals"),))
    attack = IFGSM(epsilon=EPSILON, steps=STEPS, objective=ScoreGain())
    for name in SAMPLE_NAMES:
        image = sample_image(name)
        image = prepared(image, size_within(image, Screening.fit))
        write_png(folder / "originals" / f"{name}.png", image)
        if (path := folder / "submissions" / f"{name}.png").is_file():
            continue
        if name in GAMED:
            image = attack(load_scorer(audit.metric).to(device), image.to(device)[None]).images[0].cpu()
        write_png(path, image)
    return audit
