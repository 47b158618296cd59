"""Judge a hardening: the model before and after, bicubic interpolation, and their mixture of equal clean PSNR.

What is judged already is kept in the folder, so that a killed run goes on image by image.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import pydantic

from resolute.attacks.ascent import Attack, Precision
from resolute.defences.calibration import clean_psnr, match_clean_psnr
from resolute.defences.wrappers import Mixture
from resolute.errors import ConfigError
from resolute.files import write_atomically
from resolute.images import from_uint8, write_png
from resolute.models.base import Restorer, device_of
from resolute.models.registry import Bicubic
from resolute.models.weights import sha256_of, weights_sha256
from resolute.provenance import provenance
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.hardened import ROLES, Hardening, ModelFigures, Role
from resolute.training.judge import Judged, Photograph, further, judge, suite

# Of the middle of a held-out photograph, in low-resolution pixels.
_SIDE = 48

# How many images also see the attacks that do without the model's gradient.
_FURTHER = 5

_RECORDS, _PICTURES = "judged.json", "attacked"

Files = dict[str, str]

_KEPT = pydantic.TypeAdapter(dict[str, Judged])


@final
@dataclasses.dataclass(frozen=True)
class Judging:
    """The models to judge, and where the figures are kept.

    Attributes:
        folder: of the hardening.
        recipe: as it was carried out.
        before, after: the model, on the device to judge on.
        name: of the model.
        precision: of the search; the verdict is always float32.
        attacks: by name, to judge by these alone; None for the suite.
    """

    folder: Path
    recipe: HardenRecipe
    before: Restorer
    after: Restorer
    name: str
    precision: Precision = "float32"
    attacks: Mapping[str, Attack] | None = None

    def result(
        self,
        weights: Path,
        note: str,
        held_out: Sequence[Photograph],
        tests: Sequence[Photograph] | None,
        progress: Callable[[float, int, str], None] | None = None,
    ) -> Hardening:
        """Judge all models on all images, and return what came out.

        Args:
            weights: the file that was written.
            note: what its user must know.
            held_out: photographs that were not trained on; their middles are judged where there are no ``tests``.
            tests: images to judge on instead, by more attacks on the first of them.
            progress: called with (done, in all, what is being judged).
        """
        images = [photograph.cut(_SIDE) for photograph in held_out] if tests is None else list(tests)
        total = len(ROLES) * len(images)
        if progress is not None:
            progress(0.0, total, "mixing with bicubic interpolation to the same clean PSNR")
        pairs = [photograph.tensors(device_of(self.before)) for photograph in images]
        target = clean_psnr(self.after, pairs)
        theta = _share(self.before, target, pairs)
        models: dict[Role, Restorer] = {
            "before": self.before,
            "after": self.after,
            "mixture": Mixture(self.before, theta).eval(),
            "bicubic": Bicubic(self.before.scale).eval(),
        }
        names = {"before": self.name, "after": f"{self.name}, hardened", "bicubic": "bicubic"}
        names["mixture"] = f"mixture, {theta:.2f} of {self.name}"
        standings: dict[Role, ModelFigures] = {}
        pictures: dict[str, dict[str, Files]] = {image.name: {} for image in images}
        for place, role in enumerate(ROLES):
            judged: list[Judged] = []
            # Once a model, not once an image: of a large one it takes a while.
            weights_hash = weights_sha256(models[role].state_dict())
            for number, image in enumerate(images):
                done = place * len(images) + number
                title = f"attacking {names[role]}: {image.name}"

                def report(share: float, before: int = done, what: str = title) -> None:
                    if progress is not None:
                        progress(before + share, total, what)

                attacks = self._attacks(role, strict=tests is not None and number < _FURTHER)
                found, picture = self._judged(role, models[role], weights_hash, number, image, attacks, report)
                judged.append(found)
                pictures[image.name][role] = picture
            standings[role] = ModelFigures(names[role], tuple(judged))
        facts = {
            "recipe": json.loads(json.dumps(dataclasses.asdict(self.recipe))),
            "precision of the search": self.precision,
            "provenance": dataclasses.asdict(provenance()),
        }
        level = self.recipe.budget
        return Hardening(self.name, weights, note, level, theta, **standings, pictures=pictures, facts=facts)

    @functools.cached_property
    def _records(self) -> dict[str, Judged]:
        try:
            kept = _KEPT.validate_json((self.folder / _RECORDS).read_bytes())
        except (OSError, ValueError):
            # Whatever is wrong in it is judged again.
            return {}
        return {key: judged for key, judged in kept.items() if judged.damage}

    def _attacks(self, role: Role, *, strict: bool) -> Mapping[str, Attack]:
        if self.attacks is not None:
            return self.attacks
        epsilon = self.recipe.budget / 255
        # The mixture is a baseline, and fewer starts flatter it: what beats it then would beat it all the more.
        attacks = suite(epsilon, self.precision, 1 if role == "mixture" else 3)
        if strict and role == "after":
            attacks |= further(epsilon, self.before, self.precision)
        return attacks

    def _judged(
        self,
        role: Role,
        model: Restorer,
        weights_hash: str,
        number: int,
        image: Photograph,
        attacks: Mapping[str, Attack],
        report: Callable[[float], None],
    ) -> tuple[Judged, Files]:
        theta = f"{model.theta:.6f}" if isinstance(model, Mixture) else ""
        facts = [role, theta, weights_hash, image.name, repr(attacks), self.recipe.seed]
        pixels = hashlib.sha256(image.low.tobytes() + image.high.tobytes()).hexdigest()
        key = sha256_of(*facts, pixels)
        # The key is in the name, so that a picture is never taken for one of other images, weights or attacks.
        stem = f"{_PICTURES}/{number + 1:02}-{key[:8]}"
        files = {"attacked": f"{stem}-{role}.png"}
        if role in ("before", "after"):
            files |= {"clean output": f"{stem}-{role}-clean-output.png", "output": f"{stem}-{role}-output.png"}
        if role == "before":
            files |= {"clean": f"{stem}-clean.png", "original": f"{stem}-original.png"}
        if key in self._records and all((self.folder / file).is_file() for file in files.values()):
            report(1.0)
            return self._records[key], files
        found, seen = judge(model, image, attacks, seed=self.recipe.seed, progress=report)
        pictures = {
            "attacked": seen.attacked, "clean output": seen.clean_output, "output": seen.output,
            "clean": from_uint8(image.low), "original": from_uint8(image.high),
        }  # fmt: skip
        for what, file in files.items():
            # An output that is not finite is shown as what it is worth.
            write_png(self.folder / file, pictures[what].nan_to_num(0.0, 0.0, 0.0))
        self._records[key] = found
        content = _KEPT.dump_json(self._records)
        write_atomically(self.folder / _RECORDS, lambda temporary: temporary.write_bytes(content))
        return found, files


def _share(model: Restorer, target: float, pairs: Sequence[Any]) -> float:
    """Return the share of a model in the mixture with bicubic interpolation that has a given clean PSNR."""
    try:
        return match_clean_psnr(lambda theta: Mixture(model, theta), pairs, target, 0.0, 1.0)
    except ConfigError:
        # Better than the model itself, or worse than bicubic interpolation: no mixture is as good, or as bad.
        return 1.0 if target > clean_psnr(model, pairs) else 0.0
