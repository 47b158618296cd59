"""The study of DMS-IQA: agreement with people, certified delta and attacks, for a metric behind several defences."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.attacks.ascent import Precision
from resolute.attacks.score import Image, Origin, ScoreAttack
from resolute.certify.median import DenoisedScorer, prepared
from resolute.defences.purify import purifier
from resolute.errors import ConfigError, ImageError
from resolute.files import write_text
from resolute.images import from_uint8, image_sha256, read_image, to_uint8
from resolute.models.base import Scorer
from resolute.models.registry import load
from resolute.models.scorers import load_scorer
from resolute.provenance import provenance
from resolute.studies.attacked import gain_of, held_against, judged
from resolute.studies.certified import Certification, Row, score_span
from resolute.studies.store import append_line, cell_key, read_lines
from resolute.studies.study import find_study
from resolute.toml import read_toml
from resolute.training.rated import Rating, read_ratings

Progress = Callable[[float, int, str], None]
CONFIG = pydantic.ConfigDict(extra="forbid")
CERTIFICATES, ATTACKS = "certificates.jsonl", "attacks.jsonl"

# A pass through a denoiser in units of a pass through the small metric, for the estimate of the time that is left.
DENOISING = 6


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Contender:
    """A metric behind one defence.

    Attributes:
        defence: what it is called; unique in a study.
        metric: name or file; the study's where empty.
        denoiser: name or file of the denoiser in front; empty for none.
        purifier: of ``defences.purify``, in front; empty for none.
        smoothed: the score is the median under noise, and is certified.

    Example:
        >>> Contender(defence="MS", smoothed=True).certified
        True
    """

    defence: str = pydantic.Field(min_length=1)
    metric: str = ""
    denoiser: str = ""
    purifier: str = ""
    smoothed: bool = False

    @property
    def certified(self) -> bool:
        """Whether its scores come with certificates."""
        return self.smoothed

    @property
    def bare(self) -> bool:
        """Whether there is no defence at all."""
        return not (self.denoiser or self.purifier or self.smoothed)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Attacks:
    """What images are attacked with, found on the bare metric, and found again through each defence.

    Attributes:
        images: how many, evenly picked; 0 for no attacks.
        linf: budgets, in levels of 255; the attacked image is rounded to 8 bits.
        l2: radii over all pixels and channels; not rounded, since the smaller ones allow no change by a whole level.
        steps: of each climb.
        draws: noisy copies an adaptive step averages over.
    """

    images: int = pydantic.Field(default=4, ge=0)
    linf: tuple[pydantic.PositiveFloat, ...] = (1, 2, 4, 8)
    l2: tuple[pydantic.PositiveFloat, ...] = (0.05, 0.1, 0.25, 1, 4)
    steps: int = pydantic.Field(default=10, ge=1)
    draws: int = pydantic.Field(default=16, ge=1)

    def each(self, seed: int) -> list[ScoreAttack]:
        """Return the attacks on the bare metric one by one."""
        levels = [ScoreAttack(epsilon=level / 255, steps=self.steps, seed=seed) for level in self.linf]
        radii = [ScoreAttack(epsilon=r, norm="l2", steps=self.steps, seed=seed, grid=False) for r in self.l2]
        return [*levels, *radii]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CertifiedIqa:
    """Contenders x images with opinion scores, and attacks on some of the images.

    Attributes:
        name: of the study, in reports.
        metric: of the contenders that name none.
        contenders: metrics behind defences.
        images: folder with ``mos.csv``.
        split: of that table.
        sigma, epsilon, samples, alpha, seed: of the certificates; see ``Certification``.
        fit: shrink larger images until their longer side has so many pixels, for all contenders; 0 for never.
        precision: of the smoothed scores; see ``certify``.
        every: take each n-th image only.
        order: defences in the order in which agreement should rise.
        attacks: what some images are attacked with.

    Example:
        >>> CertifiedIqa.read("certified-iqa").order
        ('MS', 'DMS', 'DMS-IQA')
    """

    kind: Literal["certified-iqa"] = "certified-iqa"
    name: str
    metric: str
    contenders: tuple[Contender, ...] = pydantic.Field(min_length=1)
    images: str
    split: Literal["train", "val", "test"] = "test"
    sigma: float = pydantic.Field(default=0.12, gt=0, le=10)
    epsilon: float = pydantic.Field(default=0.05, ge=0)
    samples: int = pydantic.Field(default=100, ge=1)
    alpha: float = pydantic.Field(default=0.001, gt=0, lt=1)
    seed: int = 0
    fit: int = pydantic.Field(default=0, ge=0)
    precision: Precision = "float32"
    every: int = pydantic.Field(default=1, ge=1)
    order: tuple[str, ...] = ()
    attacks: Attacks = dataclasses.field(default_factory=Attacks)

    def __post_init__(self) -> None:
        names = [contender.defence for contender in self.contenders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"contenders: two are called {twice!r}; give each defence a name of its own")
        missing = next((name for name in self.order if name not in names), None)
        if missing is not None:
            raise ConfigError(f"order: no contender is called {missing!r}")
        both = next((c.defence for c in self.contenders if c.denoiser and c.purifier), None)
        if both is not None:
            raise ConfigError(f"contenders: {both!r} has a denoiser and a purifier; choose one")

    @staticmethod
    def read(source: str | Path) -> CertifiedIqa:
        """Read such a study from a TOML file, or a built-in one by name.

        Raises:
            ConfigError: no such study, no valid TOML, or a key that does not exist or is out of range.
        """
        return read_toml(find_study(source), CertifiedIqa)

    def ratings(self) -> list[Rating]:
        """Return the images of the split with their opinion scores.

        Raises:
            ConfigError: no folder with ``mos.csv``, or no image in the split.
        """
        found = read_ratings(Path(self.images), needed=(self.split,))
        return [rating for rating in found if rating.split == self.split][:: self.every]

    def run(self, out: Path, *, device: str = "cpu", progress: Progress | None = None) -> None:
        """Compute what ``out`` does not hold yet: ``certificates.jsonl``, then ``attacks.jsonl``, and ``study.json``.

        Args:
            out: folder of the study.
            device: a torch device.
            progress: called with (work done, work in all, title of what is at work); the unit of work is about one
                score of the metric.

        Raises:
            ConfigError, CheckpointError, ImageError: the study cannot be planned.
            OutputError: a record cannot be written; those before it are kept.
        """
        _Run(self, out, device, progress).run()


@dataclasses.dataclass(frozen=True, eq=False)
class Entrant:
    """A contender, loaded."""

    contender: Contender
    bare: Scorer
    scorer: Scorer
    certification: Certification
    cost: int

    def title(self) -> dict[str, str]:
        """Return what names it in a record."""
        return {"contender": self.contender.defence, "metric": self.contender.metric}


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image of the study."""

    rating: Rating
    name: str
    sha256: str


class _Run:
    def __init__(self, study: CertifiedIqa, out: Path, device: str, progress: Progress | None) -> None:
        self.study, self.out, self.device, self.progress = study, out, device, progress
        self.done = {row["key"]: row for name in (CERTIFICATES, ATTACKS) for row in read_lines(out / name)}
        self.photos = [self._photo(rating) for rating in study.ratings()]
        self.entrants = self._entrants()
        self.total = self.passed = 0

    def run(self) -> None:
        study, photos = self.study, self.photos
        count = min(study.attacks.images, len(photos))
        attacked = [photos[i * len(photos) // count] for i in range(count)]
        scores = {(e, p): self._key(e, p) for p in photos for e in self.entrants}
        groups = [
            (photo, source, self._attack_of(attack, source), targets)
            for photo in attacked
            for attack in study.attacks.each(study.seed)
            for source, targets in self._sources()
        ]
        facts = {
            "kind": study.kind,
            "study": dataclasses.asdict(study),
            "provenance": dataclasses.asdict(provenance()),
            "certificates": [
                {"key": key, **e.title(), "image": p.name, "mos": p.rating.mos} for (e, p), key in scores.items()
            ],
            "attacks": [
                {"key": self._attack_key(p, attack, t), **t.title(), "image": p.name}
                for p, _, attack, targets in groups
                for t in targets
            ],
        }
        write_text(self.out / "study.json", json.dumps(facts, indent=1) + "\n")
        self.total = sum(e.cost for e, _ in scores) + sum(self._cost(s, targets) for _, s, _, targets in groups)
        for (entrant, photo), key in scores.items():
            if key not in self.done:
                self._score(entrant, photo, key)
            self._pass(entrant.cost, photo.name)
        for photo, source, attack, targets in groups:
            keys = {self._attack_key(photo, attack, target): target for target in targets}
            todo = {key: target for key, target in keys.items() if key not in self.done}
            if todo:
                self._attack(photo, source, attack, todo)
            self._pass(self._cost(source, targets), photo.name)

    def _sources(self) -> list[tuple[Entrant | Scorer, list[Entrant]]]:
        """Return where attacks are searched, and whom each is applied to: a bare metric to all, a defence to itself."""
        metrics = dict.fromkeys(entrant.bare for entrant in self.entrants)
        shared = [(metric, [entrant for entrant in self.entrants if entrant.bare is metric]) for metric in metrics]
        return [*shared, *((entrant, [entrant]) for entrant in self.entrants if not entrant.contender.bare)]

    def _score(self, entrant: Entrant, photo: Photo, key: str) -> None:
        image = self._image(photo.rating).to(self.device)
        title = f"{photo.name}, {entrant.contender.defence}"
        if entrant.contender.certified:
            row = entrant.certification.record(
                entrant.scorer, image, photo.name, key, functools.partial(self._step, entrant.cost, title),
                self.study.attacks.l2,
            )  # fmt: skip
        else:
            began = time.perf_counter()
            with torch.no_grad():
                score = float(entrant.scorer(image[None]))
                seconds = time.perf_counter() - began
                undefended = score if entrant.contender.bare else float(entrant.bare(image[None]))
            row: Row = {
                "key": key,
                "score": score,
                "undefended": undefended,
                "samples": 1,
                "seconds": round(seconds, 4),
            }
        row |= entrant.title() | {
            "image": photo.name,
            "mos": photo.rating.mos,
            "certified": entrant.contender.certified,
            "bare": entrant.contender.bare,
            "lower_better": entrant.bare.lower_better,
            "span": score_span(entrant.bare),
        }
        self._keep(row, CERTIFICATES)

    def _attack_of(self, attack: ScoreAttack, source: Entrant | Scorer) -> ScoreAttack:
        if not isinstance(source, Entrant):
            return attack
        draws = self.study.attacks.draws if source.contender.smoothed else attack.draws
        return dataclasses.replace(attack, adaptive=True, draws=draws)

    def _attack(self, photo: Photo, source: Entrant | Scorer, attack: ScoreAttack, todo: dict[str, Entrant]) -> None:
        clean = self._image(photo.rating).to(self.device)
        cost = self._cost(source, list(todo.values()))
        step = functools.partial(self._step, cost // 2, f"{photo.name}, {attack.title}")
        if isinstance(source, Entrant):
            sigma = self.study.sigma if source.contender.smoothed else 0.0
            found = attack(source.bare, clean, defended=source.scorer, sigma=sigma, progress=step)
        else:
            found = attack(source, clean, progress=step)
        for key, target in todo.items():
            tried = [self._tried(photo, target, attack, x, clean, origin) for origin, x in found.items()]
            mode = "adaptive" if attack.adaptive else "undefended"
            self._keep(max(tried, key=gain_of) | {"key": key, "mode": mode, "configuration": repr(attack)}, ATTACKS)

    def _tried(self, photo: Photo, target: Entrant, attack: ScoreAttack, x: Image, clean: Image, origin: Origin) -> Row:
        alone = self._attack_key(photo, dataclasses.replace(attack, adaptive=False, draws=ScoreAttack.draws), target)
        if origin == "transferred" and alone in self.done:
            return self.done[alone]
        if target.contender.smoothed:
            score = judged(target.certification.certify(target.scorer, x, lambda _done, _total: None))
        else:
            with torch.no_grad():
                score = {"defended": float(target.scorer(x[None]))}
        budget = round(attack.epsilon * (255 if attack.norm == "linf" else 1), 6)
        facts: Row = {"attack": attack.method, "norm": attack.norm, "budget": budget, "rounded": attack.grid}
        row = held_against(self.done[self._key(target, photo)], score, x, clean)
        return row | facts | target.title() | {"image": photo.name, "origin": origin}

    def _keep(self, row: Row, file: str) -> None:
        append_line(self.out / file, row)
        self.done[row["key"]] = row

    def _key(self, entrant: Entrant, photo: Photo) -> str:
        card, study = entrant.scorer.card, self.study
        assert card is not None
        how: tuple[object, ...] = ()
        if entrant.contender.smoothed:
            how = (study.sigma, study.epsilon, study.samples, study.alpha, study.seed)
            # The default stays out, so that keys of records made before there was a choice hold.
            how += (study.precision,) if study.precision != "float32" else ()
        return cell_key("certified-iqa", card.sha256, card.architecture, how, photo.sha256)

    def _attack_key(self, photo: Photo, attack: ScoreAttack, target: Entrant) -> str:
        return cell_key(self._key(target, photo), dataclasses.asdict(attack))

    def _cost(self, source: Entrant | Scorer, targets: Sequence[Entrant]) -> int:
        attacks = self.study.attacks
        each = 3
        if isinstance(source, Entrant):
            # Most copies are scored twice, see ``SmoothedGain``.
            draws = 4 / 3 * attacks.draws if source.contender.smoothed else 1
            each += round(3 * draws * (DENOISING if source.contender.denoiser else 1))
        return attacks.steps * each + sum(target.cost for target in targets)

    def _step(self, cost: int, title: str, taken: int, total: int) -> None:
        if self.progress is not None:
            self.progress(self.passed + cost * taken / total, self.total, title)

    def _pass(self, cost: int, title: str) -> None:
        self.passed += cost
        if self.progress is not None:
            self.progress(self.passed, self.total, title)

    def _photo(self, rating: Rating) -> Photo:
        name = rating.path.relative_to(Path(self.study.images)).as_posix()
        return Photo(rating, name, image_sha256(self._image(rating)))

    def _image(self, rating: Rating) -> Float[Tensor, "3 h w"]:
        image = read_image(rating.path)
        longest = max(image.shape[1:])
        if not self.study.fit or longest <= self.study.fit:
            return image
        height, width = (max(1, round(side * self.study.fit / longest)) for side in image.shape[1:])
        return from_uint8(to_uint8(prepared(image, (height, width))))

    def _entrants(self) -> list[Entrant]:
        study, metrics = self.study, dict[str, Scorer]()
        found: list[Entrant] = []
        for contender in study.contenders:
            name = contender.metric or study.metric
            if name not in metrics:
                metrics[name] = load_scorer(name).to(self.device)
            bare = metrics[name]
            front = load(contender.denoiser, scale=1) if contender.denoiser else None
            front = purifier(contender.purifier) if contender.purifier else front
            scorer = DenoisedScorer(bare, front).eval().to(self.device) if front is not None else bare
            certification = Certification(
                metric=name, denoiser=contender.denoiser, sigma=study.sigma, epsilon=study.epsilon,
                samples=study.samples, alpha=study.alpha, seed=study.seed, precision=study.precision,
            )  # fmt: skip
            cost = (DENOISING if contender.denoiser else 2) * (study.samples if contender.smoothed else 1)
            found.append(Entrant(dataclasses.replace(contender, metric=name), bare, scorer, certification, cost))
        for entrant in found:
            self._require_size(entrant)
        return found

    def _require_size(self, entrant: Entrant) -> None:
        smallest = entrant.bare.smallest
        small = next((p for p in self.photos[:1] if min(self._image(p.rating).shape[1:]) < smallest), None)
        if small is not None:
            raise ImageError(f"{small.name} is too small: {entrant.contender.metric} needs {smallest} pixels a side")
