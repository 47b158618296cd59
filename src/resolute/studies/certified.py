"""Certify the images of a folder: one record an image, and only those computed that are not there yet."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Precision
from resolute.attacks.score import Origin, ScoreAttack, norms
from resolute.certify.certificate import Certificate
from resolute.certify.median import DenoisedScorer, Stop, certify, prepared, width_below
from resolute.certify.noise import Kind
from resolute.defences.dms_iqa import score_range
from resolute.errors import ConfigError, ImageError
from resolute.files import write_text
from resolute.images import find_images, from_uint8, image_sha256, read_image, to_uint8, write_png
from resolute.models.base import Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.provenance import provenance
from resolute.studies import attacked
from resolute.studies.store import append_line, cell_key, read_lines

Row = dict[str, Any]
Progress = Callable[[float, int, str], None]

# The built-in metric that is certified where none is named, and the denoiser trained to stand before it.
METRIC = "quality-s"
DENOISER = "denoiser-iqa-012"

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
        sigma, epsilon, samples, alpha, seed, noise, deployed, precision: see ``certify``; samples is its n.
        fit: shrink larger images until their longer side has so many pixels, and measure the ball there; 0 for never.
        width: stop sampling once the interval is no wider than this; 0 to draw all samples.
        attacks: to make on each image as well, as records of their own; a certificate does not depend on them.

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
    precision: Precision = "float32"
    attacks: tuple[ScoreAttack, ...] = ()

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
            deployed=self.deployed, size=self._size(image), stop=stop, precision=self.precision,
            progress=progress,
        )  # fmt: skip

    def run(
        self, images: Sequence[Path], out: Path, *, device: str = "cpu", progress: Progress | None = None
    ) -> list[Row]:
        """Certify the images that ``out`` does not hold yet; return the records of all, in the order of the images.

        Writes ``certificates.jsonl``, one record an image with all that is needed to check it again, and
        ``certificates.csv``. With ``attacks``, also ``attacks.jsonl``, ``attacks.csv`` and the attacked images as PNG;
        the records come back under ``attacks`` of the image's own.

        Raises:
            CheckpointError, ImageError: a metric, a denoiser or an image cannot be read.
            ConfigError: the metric cannot be attacked.
            ValueError: a parameter is out of range.
            OutputError: a record cannot be written; those before it are kept.
        """
        scorer = self.scorer().to(device)
        assert scorer.card is not None
        path, tried = out / "certificates.jsonl", out / "attacks.jsonl"
        done = {row["key"]: row for file in (path, tried) for row in read_lines(file) if "key" in row}
        files = find_images(images)
        facts = {"certification": dataclasses.asdict(self), "provenance": dataclasses.asdict(provenance())}
        write_text(out / "certification.json", json.dumps(facts, indent=1) + "\n")
        rows: list[Row] = []
        parts = 1 + 2 * len(self.attacks)
        for index, file in enumerate(files):

            def step(taken: int, total: int, part: int = 0, index: int = index, file: Path = file) -> None:
                if progress is not None:
                    progress(index + (part + taken / total) / parts, len(files), file.name)

            image = read_image(file)
            key = self.key_of(scorer, image)
            if key not in done:
                done[key] = self.record(scorer, image.to(device), file.name, key, step)
                append_line(path, done[key])
            row: Row = done[key] | {"image": file.name, "path": str(file)}
            judged: dict[str, Certificate] = {}
            for number, attack in enumerate(self.attacks):
                key = cell_key(row["key"], dataclasses.asdict(attack))
                if key not in done or not (out / done[key]["png"]).is_file():
                    steps = functools.partial(step, part=1 + 2 * number), functools.partial(step, part=2 + 2 * number)
                    done[key] = self._attacked(scorer, image.to(device), row, attack, key, out, steps, judged)
                    append_line(tried, done[key])
                row.setdefault("attacks", []).append(done[key] | {"path": str(out / done[key]["png"])})
            rows.append(row)
        write_text(out / "certificates.csv", to_csv(rows))
        if self.attacks:
            write_text(out / "attacks.csv", attacked.to_csv(rows))
        if progress is not None:
            progress(len(files), len(files), "done")
        return rows

    def _size(self, image: Float[Tensor, "3 h w"]) -> tuple[int, int] | None:
        height, width = image.shape[1:]
        if not self.fit or max(height, width) <= self.fit:
            return None
        shrink = self.fit / max(height, width)
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def key_of(self, scorer: Scorer, image: Float[Tensor, "3 h w"]) -> str:
        """Return the key of an image's record."""
        assert scorer.card is not None
        options = dataclasses.asdict(self) | {"metric": scorer.card.name, "denoiser": ""}
        del options["attacks"]
        # Of a resized image the size stands in the key too: earlier records have its undefended score at full size.
        size = self._size(image) or ()
        return cell_key(scorer.card.sha256, scorer.card.architecture, options, image_sha256(image), *size)

    def record(
        self,
        scorer: Scorer,
        image: Float[Tensor, "3 h w"],
        name: str,
        key: str,
        step: Callable[[int, int], None],
        radii: Sequence[float] = (),
    ) -> Row:
        """Certify one image and return its record.

        Args:
            scorer: as ``scorer`` returns it, on the image's device.
            image: RGB float in [0, 1].
            name: of the image.
            key: of the record.
            step: called with (samples done, samples in all).
            radii: to be in the curve, besides its own ones and epsilon.

        Raises:
            ImageError: the image is too small for the metric.
        """
        assert scorer.card is not None
        if min(self._size(image) or image.shape[1:]) < scorer.card.smallest:
            raise ImageError(f"{name} is too small: {scorer.card.name} needs {scorer.card.smallest} pixels a side")
        began = time.perf_counter()
        certificate = self.certify(scorer, image, step)
        seconds = time.perf_counter() - began
        bare = metric_alone(scorer)
        span = score_span(bare)
        safe = [certificate.largest_epsilon(share * span) if span else None for share in SHARES]
        record = certificate.as_record()
        steps = [self.sigma * step / 20 for step in range(61)]
        curve = certificate.curve(sorted({*steps, self.epsilon, *radii}))
        return record | {
            "key": key,
            "image": name,
            "lower": record["bounds"]["lower"],
            "upper": record["bounds"]["upper"],
            "epsilon": self.epsilon,
            "undefended": _score(bare, prepared(image, self._size(image))),
            "safe_1": safe[0],
            "safe_5": safe[1],
            "curve": [[bounds.epsilon, _number(bounds.lower), _number(bounds.upper)] for bounds in curve],
            "reach": max((bounds.epsilon for bounds in curve if not bounds.vacuous), default=None),
            "seconds": round(seconds, 3),
        }

    def _attacked(
        self,
        scorer: Scorer,
        image: Float[Tensor, "3 h w"],
        row: Row,
        attack: ScoreAttack,
        key: str,
        out: Path,
        steps: tuple[Callable[[int, int], None], Callable[[int, int], None]],
        judged: dict[str, Certificate],
    ) -> Row:
        """Attack an image as it was certified; all figures belong to the attacked image as saved in 8 bits.

        Of an adaptive attack and the transferred one that it starts from, the worse for the defender counts.
        """
        began = time.perf_counter()
        clean, alone = prepared(image, self._size(image)), metric_alone(scorer)
        found = attack(alone, clean, defended=scorer, sigma=self.sigma, progress=steps[0])

        def figures(number: int, origin: Origin, image: Float[Tensor, "3 h w"]) -> Row:
            pixels = image_sha256(image)
            if pixels not in judged:
                judged[pixels] = self._judge(
                    scorer, image, row["samples"],
                    lambda taken, total: steps[1](number * total + taken, len(found) * total),
                )  # fmt: skip
            linf, l2 = norms(image - clean)
            facts: Row = {"origin": origin, "attacked": _score(alone, image), "linf": linf, "l2": l2}
            return facts | attacked.judged(judged[pixels])

        saved: dict[Origin, Tensor] = {origin: from_uint8(to_uint8(x)).to(clean) for origin, x in found.items()}
        tried = [figures(number, origin, x) for number, (origin, x) in enumerate(saved.items())]
        counted = max(tried, key=lambda facts: attacked.harm(row, facts))
        png = Path("attacked") / f"{key}.png"
        write_png(out / png, saved[counted["origin"]])
        return counted | {
            "key": key,
            "certificate": row["key"],
            "image": row["image"],
            "attack": dataclasses.asdict(attack),
            "clean": _score(alone, clean),
            "png": png.as_posix(),
            "seconds": round(time.perf_counter() - began, 3),
        }

    def _judge(
        self, scorer: Scorer, image: Float[Tensor, "3 h w"], samples: int, step: Callable[[int, int], None]
    ) -> Certificate:
        # The defender's noise is fresh: neither the one that the clean image was scored with nor the attacker's.
        return certify(
            scorer, image, self.sigma, self.epsilon, samples, self.alpha, seed=self.seed + 1, noise=self.noise,
            precision=self.precision, progress=step,
        )  # fmt: skip


def metric_alone(scorer: Scorer) -> Scorer:
    """Return the metric without the denoiser in front of it."""
    return scorer.scorer if isinstance(scorer, DenoisedScorer) else scorer


def to_csv(rows: Sequence[Row]) -> str:
    """Return the main figures as CSV, one line an image."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def score_span(scorer: Scorer) -> float | None:
    """Return the length of the metric's range: the proven one, else the one that its authors give, else None."""
    try:
        low, high = score_range(scorer)
    except ConfigError:
        return None
    return abs(high - low)


def _score(scorer: Scorer, image: Float[Tensor, "3 h w"]) -> float:
    with torch.no_grad():
        return float(scorer(image[None]).item())


def _number(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
