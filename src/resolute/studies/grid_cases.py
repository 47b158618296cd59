"""What attacks on super-resolution models look like: inputs, outputs and features, the lowest SR-PSNR first."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from resolute.chart import BICUBIC, GREY, PALETTE, Chart, Figure, axis, curve, layout_of
from resolute.defences import load_defended
from resolute.defences.loading import undefended
from resolute.errors import CheckpointError, ConfigError, ImageError
from resolute.figures import figure
from resolute.images import read_kept
from resolute.models.address import parse_address
from resolute.models.base import Restorer
from resolute.models.python_file import was_run
from resolute.studies.attacked import AttackRecord, Subject
from resolute.studies.datasets import Photo
from resolute.studies.pairs import Defends, pairs_of
from resolute.studies.record import Record, grouped
from resolute.studies.results import Case, Missing, View
from resolute.studies.summary import attack_title, headline_level, kept, level_of

MAX_IMAGES = 4
AMPLIFICATION = 8
BINS = 90

# Nine stops of viridis (Smith and van der Walt, CC0), between which eye and interpolation see no difference.
_VIRIDIS = torch.tensor(
    [
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
        (170, 220, 50), (253, 231, 37),
    ]
)  # fmt: skip

Pair = tuple[Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is needed to show the images of a study again: its models, photographs, and how one is read."""

    models: Sequence[str]
    scale: int
    photos: Callable[[], list[Photo]]
    subject: Callable[[Photo], Subject]


@dataclasses.dataclass(frozen=True, eq=False)
class Passed:
    """What a model makes of the clean and the attacked input of one record: features and output for each.

    The ``low`` is the attacked input as saved, ``(3, h, w)``.
    """

    subject: Subject
    low: Tensor
    clean: Pair
    attacked: Pair


@final
class Replay:
    """Sends clean and attacked inputs through their models again, each model loaded and each clean input read once."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene = scene
        self._folder = folder
        self._models = _models(scene)
        self._subjects: dict[str, Subject] = {}
        self._clean: dict[tuple[str, str], Pair] = {}

    def passes(self, record: AttackRecord) -> Passed:
        """Return what the model of a record makes of its inputs.

        Raises:
            ImageError: a model, an image or the attacked image is missing or has changed; the text says which.
        """
        model, subject = self.subject_of(record)
        if not record.files:
            raise ImageError(f"the record of {record.image} has no attacked image")
        if record.tile:
            raise ImageError(f"{record.image} was attacked in tiles, and its outputs are too large for a page")
        low = read_kept(self._folder, record.files[0])
        if low.shape != subject.low.shape[1:]:
            raise ImageError(f"{record.files[0]} is of another size than the image that was attacked")
        key = record.weights or record.model, record.pixels
        if key not in self._clean:
            self._clean[key] = _pass(model, subject.low)
        return Passed(subject, low, self._clean[key], _pass(model, low[None]))

    def subject_of(self, record: Record) -> tuple[Restorer, Subject]:
        """Return the model and the image of a record.

        Raises:
            ImageError: one is missing or has changed; the text says which.
        """
        known = record.weights or record.model
        if known not in self._models:
            raise ImageError(f"the weights of {record.model} are not where the study found them, or have changed")
        if record.pixels not in self._subjects:
            self._subjects |= {subject.pixels: subject for subject in _subjects(self._scene, record.image)}
        if record.pixels not in self._subjects:
            raise ImageError(f"the image {record.image} is not where the study found it, or has changed")
        return self._models[known], self._subjects[record.pixels]


def cases_of(scene: Scene, records: Sequence[AttackRecord], folder: Path, defends: Defends) -> Iterator[Case | Missing]:
    """Yield the cases with the lowest SR-PSNR: one image under one attack, for a model or it and its defended version.

    Missing are those of a model that is not where the study found it or is code that this process has not run, and of
    an image that has changed.
    """
    again = Replay(scene, folder)
    for group in _chosen(records, defends):
        try:
            passes = [again.passes(record) for record in group]
        except ImageError as error:
            yield Missing(str(error))
            continue
        yield _case(group, passes)


def _case(group: Sequence[AttackRecord], passes: Sequence[Passed]) -> Case:
    first, subject = group[0], passes[0].subject
    views = [View("clean input", subject.low[0], low=True)]
    if subject.truth is not None:
        views.append(View("ground truth", subject.truth[0]))
    for record, passed in zip(group, passes, strict=True):
        before, after = passed.clean[1], passed.attacked[1]
        views += [
            View("attacked input", passed.low, record.model, low=True),
            View("clean output", before, record.model),
            View("attacked output", after, record.model),
            View(f"change \u00d7{AMPLIFICATION}", ((after - before).abs() * AMPLIFICATION).clamp(0, 1), record.model),
        ]
    attacked = [place for place, view in enumerate(views) if view.label == "attacked output"]
    left = attacked[0] if len(attacked) > 1 else next(p for p, v in enumerate(views) if v.label == "clean output")
    maps, charts, scale = _features(group, [(passed.clean[0], passed.attacked[0]) for passed in passes])
    models = " | ".join(record.model for record in group)
    attack, budget = attack_title(first.attack), f"{level_of(first):g}/255"
    return Case(
        f"{first.image}, {attack} {budget}, {models}: {figure(min(map(kept, group)), 1)} dB",
        [*views, *maps],
        [*map(_facts, group), scale],
        {"models": models, "image": first.image, "attack": attack, "budget": budget},
        (left, attacked[-1]),
        charts,
    )


def _chosen(records: Sequence[AttackRecord], defends: Defends) -> list[list[AttackRecord]]:
    """Return the cases to show as the records of the models in them; the worst of every group of models first."""
    shown = [record for record in records if record.model != BICUBIC] or list(records)
    models = list(dict.fromkeys(record.model for record in shown))
    pairs = pairs_of(models, defends)
    paired = {model for pair in pairs for model in pair}
    groups: list[tuple[str, ...]] = [*pairs, *((model,) for model in models if model not in paired)]
    levels = sorted({level_of(record) for record in shown})
    first = levels.index(headline_level(levels))
    images = list(dict.fromkeys(record.image for record in sorted(shown, key=kept)))[:MAX_IMAGES]
    cells = {(record.model, record.attack, level_of(record), record.image): record for record in shown}
    plan = [
        [cells[model, attack, level, image] for model in group]
        for group in groups
        for attack in dict.fromkeys(record.attack for record in shown)
        for level in levels[first : first + 2]
        for image in images
        if all((model, attack, level, image) in cells for model in group)
    ]
    plan.sort(key=lambda case: min(map(kept, case)))
    # Room is short, and no group may be missing.
    by_group = grouped(plan, lambda case: tuple(record.model for record in case)).values()
    return [case for rank in itertools.zip_longest(*by_group) for case in rank if case is not None]


def _models(study: Scene) -> dict[str, Restorer]:
    """Return the models that can be loaded without running code of others, by their weights, or names without such."""
    found: dict[str, Restorer] = {}
    for name in study.models:
        try:
            address = parse_address(undefended(name)[0])
            # A folder may come from anyone, and what it names is no reason to run code.
            if address.code and not was_run(Path(address.target)):
                continue
            model = load_defended(name, study.scale)
        except (CheckpointError, ConfigError):
            continue
        if model.card is not None:
            found.setdefault(model.card.sha256 or model.card.name, model)
    return found


def _subjects(study: Scene, name: str) -> list[Subject]:
    """Read the images of one name only: a study can be about hundreds."""
    # Of files that share a name, a study numbers the later ones; and a folder may hold records of a denser choice.
    stems = (name, name.rpartition("-")[0])
    photos = study.photos()
    return [study.subject(dataclasses.replace(photo, name=name)) for photo in photos if photo.stem in stems]


def _pass(model: Restorer, x: Float[Tensor, "1 3 h w"]) -> Pair:
    with torch.no_grad():
        return model.features(x)[0], model(x)[0].clamp(0, 1)


def _features(group: Sequence[AttackRecord], pairs: Sequence[Pair]) -> tuple[list[View], list[Chart], str]:
    """Paint the feature layer of all models on one scale, and draw its histograms (the paper's figure 4)."""
    means = [(before.mean(0), after.mean(0)) for before, after in pairs]
    changes = [(after - before).abs() for before, after in means]
    low, high = _quantiles([mean for pair in means for mean in pair], 0.01, 0.99)
    _, most = _quantiles(changes, 0.0, 0.99)
    ends = _quantiles([phi for pair in pairs for phi in pair], 0.005, 0.995)
    views: list[View] = []
    charts: list[Chart] = []
    for number, (record, pair, mean, change) in enumerate(zip(group, pairs, means, changes, strict=True)):
        name = f"mean feature of {record.model}"
        views += [
            View("clean input", heat_map(mean[0], low, high), name, low=True),
            View("attacked input", heat_map(mean[1], low, high), name, low=True),
            View("change", heat_map(change, 0.0, most), name, low=True),
        ]
        change = "beyond measure" if record.phi_moved is None else f"by {100 * record.phi_moved:.0f} % of their spread"
        title = f"Features of {record.model}: they change {change}"
        words = f"Histogram of the feature values of {record.model}, clean and attacked."
        charts.append(Chart(f"features-{number}", title, words, histogram(pair[0], pair[1], *ends)))
    ends_of = (figure(value, 2, significant=True) for value in (low, high, most))
    scale = "Features: dark {}, bright {}; their change: dark 0, bright {}.".format(*ends_of)
    return views, charts, scale


def _quantiles(tensors: Sequence[Tensor], low: float, high: float) -> tuple[float, float]:
    values = np.concatenate([tensor.numpy().ravel() for tensor in tensors])
    return float(np.quantile(values, low)), float(np.quantile(values, high))


def heat_map(values: Float[Tensor, "h w"], low: float, high: float) -> Float[Tensor, "3 h w"]:
    """Paint values in the colours of viridis, those beyond the ends like the ends.

    Example:
        >>> (255 * heat_map(torch.tensor([[0.0, 1.0]]), 0.0, 1.0)).round().int().flatten(1).T.tolist()
        [[68, 1, 84], [253, 231, 37]]
    """
    place = ((values - low) / max(high - low, 1e-12)).clamp(0, 1) * (len(_VIRIDIS) - 1)
    stop = place.floor().long().clamp(max=len(_VIRIDIS) - 2)
    colours = torch.lerp(_VIRIDIS[stop].float(), _VIRIDIS[stop + 1].float(), (place - stop).unsqueeze(-1))
    return colours.permute(2, 0, 1) / 255


def histogram(clean: Tensor, attacked: Tensor, low: float, high: float) -> Figure:
    """Draw how feature values are spread for the clean and the attacked input (the histograms of figure 4).

    The axis goes from ``low`` to ``high``; values beyond are not drawn, but belong to the whole of 100 %.
    """
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    middles = [float(f"{middle:.5g}") for middle in (edges[:-1] + edges[1:]) / 2]
    traces: list[Figure] = []
    for name, tensor, colour in (("clean input", clean, GREY), ("attacked input", attacked, PALETTE[0])):
        values: NDArray[np.float32] = tensor.numpy().ravel()
        shares = np.histogram(values, edges)[0] / max(1, values.size) * 100
        y = [float(f"{share:.4g}") if share > 0 else None for share in shares]
        line = {"line": {"shape": "hvh", "width": 1.6, "color": colour}}
        traces.append(curve(name, middles, y, "%{x}: %{y:.3f} %") | line)
    # Entropy regularisation gathers most values in one bin, next to which a linear axis would show nothing else.
    share = axis("share of values, %", type="log", range=[-2.5, 2], dtick=1)
    return {"data": traces, "layout": layout_of(axis("feature value"), share) | {"height": 260}}


def _facts(record: AttackRecord) -> str:
    spent = math.inf if record.lr_psnr is None else record.lr_psnr
    text = f"SR-PSNR {figure(kept(record), 1)} dB, LR-PSNR {figure(spent, 1)} dB"
    if record.clean_psnr_y is not None and record.attacked_psnr_y is not None:
        text += f"; against the ground truth {record.clean_psnr_y:.2f} dB clean, {record.attacked_psnr_y:.2f} attacked"
    return f"{record.model}: {text}"
