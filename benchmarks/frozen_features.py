"""What ridge regression on the frozen features of EfficientNet-Lite0 gives, and how far splits of one data set scatter.

    python benchmarks/frozen_features.py clive-all --backbone efficientnet-lite0-57934424.pth --penalty 1000 3000 10000
    python benchmarks/frozen_features.py clive-all --backbone efficientnet-lite0-57934424.pth --metrics quality-m
    python benchmarks/frozen_features.py clive-all --backbone efficientnet-lite0-57934424.pth --sigma 0.12 --fit 256

The folder has mos.csv, as that of ``docs/make_clive.py``. Whole images at their own size. Prints SROCC on each of five
folds of the training split, of all of them together, and of the head of all training images on the other two splits.

With ``--metrics``, how much better they agree than the head does, on the same images. With ``--sigma``, what a head
gains under noise that has learned from noised photographs, and what it loses without, over the folds. Both take the
penalty that is best over the folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from quality_metrics import interval, scores_of
from torch import Tensor

from resolute import load_scorer
from resolute.certificates.median import prepared
from resolute.images import read_image
from resolute.measure.agreement import agreement_difference, agreement_of, srocc
from resolute.models.efficientnet import EfficientNetFeatures
from resolute.models.fitted import size_within
from resolute.models.pooling import ScoreHead, fit_linear
from resolute.randomness import generator_for
from resolute.table import Column, Table, row
from resolute.training.rated import Rating, read_ratings

FOLDS, SEED = 5, 0

Rated = tuple[Float[Tensor, "n f"], Float[Tensor, " n"]]


def ratings_of(folder: Path, split: str) -> list[Rating]:
    return [one for one in read_ratings(folder, [split]) if one.split == split]


@torch.no_grad()
def seen(network: EfficientNetFeatures, ratings: list[Rating], fit: int = 0, sigma: float = 0.0) -> Rated:
    """Return the features of images, and their opinions, which no noise lowers."""
    found = []
    for index, one in enumerate(ratings):
        image = read_image(one.path)
        image = prepared(image, size_within(image, fit))[None]
        if sigma > 0:
            image = image + sigma * torch.randn(image.shape, generator=generator_for(0, "noise", one.split, index))
        found.append(network(image))
    return torch.cat(found), torch.tensor([one.mos for one in ratings])


@torch.no_grad()
def predicted(training: Rated, features: Float[Tensor, "n f"], penalty: float) -> list[float]:
    head = ScoreHead(features.shape[1], hidden=0)
    fit_linear(head, *training, penalty)
    return head(features).tolist()


def parts(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Return which images are in each fold, and which are not."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        others = torch.ones(count, dtype=torch.bool)
        others[held_out] = False
        yield held_out, others


def folds(training: Rated, penalty: float) -> tuple[list[float], list[float]]:
    """Return SROCC of each fold by the head of the others, and all such predictions together."""
    features, opinions = training
    predictions, single = torch.empty(len(opinions)), []
    for held_out, others in parts(len(opinions)):
        predictions[held_out] = torch.tensor(
            predicted((features[others], opinions[others]), features[held_out], penalty)
        )
        single.append(srocc(predictions[held_out].tolist(), opinions[held_out].tolist()))
    return single, predictions.tolist()


def table(splits: dict[str, Rated], penalties: list[float]) -> Table:
    rows = []
    for penalty in penalties:
        single, predictions = folds(splits["train"], penalty)
        together = agreement_of(predictions, splits["train"][1].tolist()).srocc
        cells = [" ".join(f"{value:.3f}" for value in single), interval(together)]
        for split in ("val", "test"):
            features, opinions = splits[split]
            found = predicted(splits["train"], features, penalty)
            cells.append(interval(agreement_of(found, opinions.tolist()).srocc))
        rows.append(row(f"{penalty:g}", *cells))
    columns = ("penalty", "each fold", "all folds", "val", "test")
    return Table("SROCC of ridge regression on frozen features", [Column(name) for name in columns], rows)


def best_of(training: Rated, penalties: list[float]) -> float:
    """Return the penalty whose predictions over all folds agree best."""
    return max(penalties, key=lambda penalty: srocc(folds(training, penalty)[1], training[1].tolist()))


def difference(ours: list[float], others: list[float], opinions: list[float]) -> str:
    return interval(agreement_difference(ours, others, opinions), "{:+.3f}")


def against(name: str, scores: dict[str, list[float]], splits: dict[str, Rated], penalty: float) -> Table:
    """Return how much better the scores of a metric agree than those of the head do, on each split and on all."""
    heads = {split: predicted(splits["train"], splits[split][0], penalty) for split in scores}
    opinions = {split: splits[split][1].tolist() for split in scores}
    rows = []
    for group in [*([split] for split in scores), list(scores)]:
        ours, head, truth = ([value for split in group for value in each[split]] for each in (scores, heads, opinions))
        cells = [f"{srocc(each, truth):.3f}" for each in (ours, head)]
        rows.append(row(f"{', '.join(group)}, {len(truth)}", *cells, difference(ours, head, truth)))
    columns = ("images", name, "head", "difference")
    return Table(f"SROCC of {name} and of ridge regression", [Column(column) for column in columns], rows)


def under_noise(clean: Rated, noised: Rated, penalty: float) -> Table:
    """Return how heads that learned from photographs, from noised ones or from both agree on either.

    Each fold is judged by the head of the others; the later heads are compared with the first.
    """
    opinions = clean[1]
    mixes = {"photographs": [clean], "noised ones": [noised], "both": [clean, noised]}
    rows = []
    first: list[list[float]] = []
    for name, mix in mixes.items():
        found = [torch.empty(len(opinions)) for _ in (clean, noised)]
        for held_out, others in parts(len(opinions)):
            learned = torch.cat([features[others] for features, _ in mix]), opinions[others].repeat(len(mix))
            states = torch.cat([features[held_out] for features, _ in (clean, noised)])
            for scores, part in zip(found, torch.tensor(predicted(learned, states, penalty)).chunk(2), strict=True):
                scores[held_out] = part
        cells = [f"{srocc(scores.tolist(), opinions.tolist()):.3f}" for scores in found]
        if first:
            cells = [
                f"{cell}, {difference(scores.tolist(), before, opinions.tolist())}"
                for cell, scores, before in zip(cells, found, first, strict=True)
            ]
        first = first or [scores.tolist() for scores in found]
        rows.append(row(name, *cells))
    columns = ("learned from", "photographs", "noised ones")
    return Table("SROCC over all folds", [Column(column) for column in columns], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mos.csv")
    parser.add_argument("--backbone", type=Path, required=True, help="file of the classifier")
    parser.add_argument("--penalty", type=float, nargs="*", default=[1000.0, 3000.0, 10000.0], help="of the regression")
    parser.add_argument("--metrics", nargs="*", default=[], help="names or files, to be compared with the head")
    parser.add_argument("--sigma", type=float, default=0.0, help="of noise on photographs that a head learns from")
    parser.add_argument("--fit", type=int, default=256, help="longest side to shrink to before noise is added")
    arguments = parser.parse_args()
    network = EfficientNetFeatures()
    network.read(arguments.backbone)
    network.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
    ratings = {split: ratings_of(arguments.data, split) for split in ("train", "val", "test")}
    splits = {split: seen(network, rated) for split, rated in ratings.items()}
    print(table(splits, arguments.penalty).markdown(), flush=True)
    penalty = best_of(splits["train"], arguments.penalty)
    for name in arguments.metrics:
        metric = load_scorer(name)
        scores = {
            split: scores_of(metric, [(one.path, one.mos) for one in ratings[split]], 0)[0] for split in ("val", "test")
        }
        print(against(name, scores, splits, penalty).markdown(), flush=True)
    if arguments.sigma > 0:
        noised = seen(network, ratings["train"], arguments.fit, arguments.sigma)
        print(under_noise(splits["train"], noised, penalty).markdown(), end="")


if __name__ == "__main__":
    main()
