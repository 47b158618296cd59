"""Certify the images of a folder: one record an image, and only those computed that are not there yet."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from resolute.certify.certificate import Certificate
from resolute.certify.median import DenoisedScorer, Stop, certify, width_below
from resolute.certify.noise import Kind
from resolute.errors import ImageError
from resolute.files import write_text
from resolute.images import find_images, image_sha256, read_image
from resolute.models.base import Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.provenance import provenance
from resolute.studies.store import append_line, cell_key, read_lines

Row = dict[str, Any]
Progress = Callable[[float, int, str], None]

# Shares of the metric's range for which the largest safe radius is reported.
SHARES = (0.01, 0.05)

# What a table has room for; the records hold the rest.
COLUMNS: tuple[str, ...] = (
    "image", "score", "lower", "upper", "delta", "vacuous", "undefended", "epsilon", "safe_1", "safe_5", "samples",
    "error", "seconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certification:
    """What is certified and how; the parameters are those of ``certify``.

    Attributes:
        metric: name or file of the quality metric.
        denoiser: name or file of the denoiser in front of it; empty for none.
        sigma, epsilon, samples, alpha, seed, noise, deployed: see ``certify``; samples is its n.
        fit: shrink larger images until their longer side has so many pixels, and measure the ball there; 0 for never.
        width: stop sampling once the interval is no wider than this; 0 to draw all samples.

    Example:
        >>> Certification(metric="quality-s").epsilon
        0.05
    """

    metric: str
    denoiser: str = ""
    sigma: float = 0.12
    epsilon: float = 0.05
    samples: int = 1000
    alpha: float = 0.001
    seed: int = 0
    noise: Kind = "gaussian"
    deployed: int = 0
    fit: int = 0
    width: float = 0.0

    def scorer(self) -> Scorer:
        """Load the metric, behind its denoiser where there is one.

        Raises:
            CheckpointError: either cannot be loaded.
        """
        metric = load_scorer(self.metric)
        return DenoisedScorer(metric, load(self.denoiser, scale=1)).eval() if self.denoiser else metric

    def certify(
        self, scorer: Scorer, image: Float[Tensor, "3 h w"], progress: Callable[[int, int], None]
    ) -> Certificate:
        """Certify one image."""
        stop: Stop | None = width_below(self.width) if self.width > 0 else None
        return certify(
            scorer, image, self.sigma, self.epsilon, self.samples, self.alpha, seed=self.seed, noise=self.noise,
            deployed=self.deployed, size=self._size(image), stop=stop, progress=progress,
        )  # fmt: skip

    def run(
        self, images: Sequence[Path], out: Path, *, device: str = "cpu", progress: Progress | None = None
    ) -> list[Row]:
        """Certify the images that ``out`` does not hold yet; return the records of all, in the order of the images.

        Writes ``certificates.jsonl``, one record an image with all that is needed to check it again, and
        ``certificates.csv``.

        Raises:
            CheckpointError, ImageError: a metric, a denoiser or an image cannot be read.
            ValueError: a parameter is out of range.
            OutputError: a record cannot be written; those before it are kept.
        """
        scorer = self.scorer().to(device)
        assert scorer.card is not None
        path = out / "certificates.jsonl"
        done = {row["key"]: row for row in read_lines(path) if "key" in row}
        files = find_images(images)
        facts = {"certification": dataclasses.asdict(self), "provenance": dataclasses.asdict(provenance())}
        write_text(out / "certification.json", json.dumps(facts, indent=1) + "\n")
        rows: list[Row] = []
        for index, file in enumerate(files):

            def step(drawn: int, total: int, index: int = index, file: Path = file) -> None:
                if progress is not None:
                    progress(index + drawn / total, len(files), file.name)

            image = read_image(file)
            options = dataclasses.asdict(self) | {"metric": scorer.card.name, "denoiser": ""}
            key = cell_key(scorer.card.sha256, scorer.card.architecture, options, image_sha256(image))
            if key not in done:
                done[key] = self._certified(scorer, image.to(device), file, key, step)
                append_line(path, done[key])
            rows.append(done[key] | {"image": file.name, "path": str(file)})
        write_text(out / "certificates.csv", to_csv(rows))
        if progress is not None:
            progress(len(files), len(files), "done")
        return rows

    def _size(self, image: Float[Tensor, "3 h w"]) -> tuple[int, int] | None:
        height, width = image.shape[1:]
        if not self.fit or max(height, width) <= self.fit:
            return None
        shrink = self.fit / max(height, width)
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def _certified(
        self, scorer: Scorer, image: Float[Tensor, "3 h w"], file: Path, key: str, step: Callable[[int, int], None]
    ) -> Row:
        assert scorer.card is not None
        if min(self._size(image) or image.shape[1:]) < scorer.card.smallest:
            raise ImageError(f"{file.name} is too small: {scorer.card.name} needs {scorer.card.smallest} pixels a side")
        began = time.perf_counter()
        certificate = self.certify(scorer, image, step)
        seconds = time.perf_counter() - began
        bare = scorer.scorer if isinstance(scorer, DenoisedScorer) else scorer
        span = _span(certificate, bare)
        safe = [certificate.largest_epsilon(share * span) if span else None for share in SHARES]
        record = certificate.as_record()
        return record | {
            "key": key,
            "image": file.name,
            "lower": record["bounds"]["lower"],
            "upper": record["bounds"]["upper"],
            "epsilon": self.epsilon,
            "undefended": float(bare(image[None]).item()),
            "safe_1": safe[0],
            "safe_5": safe[1],
            "curve": [
                [bounds.epsilon, _number(bounds.lower), _number(bounds.upper)]
                for bounds in certificate.curve([self.sigma * step / 20 for step in range(61)])
            ],
            "seconds": round(seconds, 3),
        }


def to_csv(rows: Sequence[Row]) -> str:
    """Return the main figures as CSV, one line an image."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _span(certificate: Certificate, scorer: Scorer) -> float | None:
    """Return the length of the metric's range: the proven one, else the one that its authors give."""
    if certificate.high - certificate.low < float("inf"):
        return certificate.high - certificate.low
    return abs(scorer.usual[1] - scorer.usual[0]) if scorer.usual else None


def _number(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
