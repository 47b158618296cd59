"""What ridge regression on the frozen features of EfficientNet-Lite0 gives, and how far splits of one data set scatter.

    python benchmarks/frozen_features.py clive-all --backbone efficientnet-lite0-57934424.pth --penalty 1000 3000 10000

The folder has mos.csv, as that of ``docs/make_clive.py``. Whole images at their own size. Prints SROCC on each of five
folds of the training split, of all of them together, and of the head of all training images on the other two splits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.figures import Interval
from resolute.images import read_image
from resolute.measure.agreement import agreement_of, srocc
from resolute.models.efficientnet import EfficientNetFeatures
from resolute.models.pooling import ScoreHead, fit_linear
from resolute.table import Column, Table, row
from resolute.training.rated import read_ratings

FOLDS, SEED = 5, 0

Rated = tuple[Float[Tensor, "n f"], Float[Tensor, " n"]]


@torch.no_grad()
def seen(folder: Path, backbone: Path) -> dict[str, Rated]:
    """Return features and opinions of each split."""
    network = EfficientNetFeatures()
    network.read(backbone)
    network.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
    found: dict[str, Rated] = {}
    for split in ("train", "val", "test"):
        ratings = [one for one in read_ratings(folder, [split]) if one.split == split]
        features = torch.cat([network(read_image(one.path)[None]) for one in ratings])
        found[split] = features, torch.tensor([one.mos for one in ratings])
    return found


@torch.no_grad()
def predicted(training: Rated, features: Float[Tensor, "n f"], penalty: float) -> list[float]:
    head = ScoreHead(features.shape[1], hidden=0)
    fit_linear(head, *training, penalty)
    return head(features).tolist()


def folds(training: Rated, penalty: float) -> tuple[list[float], list[float]]:
    """Return SROCC of each fold by the head of the others, and all such predictions together."""
    features, opinions = training
    order = torch.randperm(len(opinions), generator=torch.Generator().manual_seed(SEED))
    predictions, single = torch.empty(len(opinions)), []
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        others = torch.ones(len(opinions), dtype=torch.bool)
        others[held_out] = False
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
        cells = [" ".join(f"{value:.3f}" for value in single), _interval(together)]
        for split in ("val", "test"):
            features, opinions = splits[split]
            found = predicted(splits["train"], features, penalty)
            cells.append(_interval(agreement_of(found, opinions.tolist()).srocc))
        rows.append(row(f"{penalty:g}", *cells))
    columns = ("penalty", "each fold", "all folds", "val", "test")
    return Table("SROCC of ridge regression on frozen features", [Column(name) for name in columns], rows)


def _interval(value: Interval) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mos.csv")
    parser.add_argument("--backbone", type=Path, required=True, help="file of the classifier")
    parser.add_argument("--penalty", type=float, nargs="*", default=[1000.0, 3000.0, 10000.0], help="of the regression")
    arguments = parser.parse_args()
    print(table(seen(arguments.data, arguments.backbone), arguments.penalty).markdown(), end="")


if __name__ == "__main__":
    main()
