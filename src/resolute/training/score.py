"""Training of a quality metric, on human opinions or on synthetic distortions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.defences.dms_iqa import rank_loss
from resolute.errors import ConfigError
from resolute.measure.agreement import plcc, srocc
from resolute.models.backbone import BackboneScorer
from resolute.models.base import frozen
from resolute.models.pooling import fit_linear
from resolute.models.quality import QualityNet
from resolute.models.readings import State
from resolute.models.weights import read_weights, weights_sha256
from resolute.randomness import generator_for, stream_seed
from resolute.training.card import save_with_card
from resolute.training.distortions import WORST, DistortedImages, worsened
from resolute.training.rated import RatedImages, batch_noise, noisy, to_images
from resolute.training.score_recipe import ScoreRecipe
from resolute.training.task import Figures, Task

# Of the finite difference along the signs of a gradient, which is its l1 norm; that of the paper.
_STEP = 0.01
# Over the images, before the first step, where the head starts from ridge regression.
_PASSES = 2


@final
class ScoreTask(Task[QualityNet | BackboneScorer]):
    """Regression on scores, plus correlation and order within the batch; all on scores divided by their range.

    Raises:
        ConfigError: the data does not fit, or scores lie outside the range.
    """

    def __init__(
        self, recipe: ScoreRecipe, data: Sequence[Path], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(recipe.seed, "weights"))
            metric = recipe.build()
        # Of its first weights, which are those of the file that the recipe names.
        self.backbone = "" if isinstance(metric, QualityNet) else weights_sha256(metric.backbone.state_dict())
        table, (low, high) = recipe.data, (recipe.model.low, recipe.model.high)
        if table.kind == "rated":
            if len(data) != 1:
                raise ConfigError(f"{recipe.name} trains on one folder with mos.csv, not {len(data)}; give one --data")
            alter = partial(worsened, share=table.worsened, low=low) if table.worsened else None
            self.source: RatedImages | DistortedImages = RatedImages(
                data[0], table.crop, progress, zoom=table.zoom, alter=alter
            )
            self.offset, self.range = low, high - low
            outside = [mos for _, mos in self.source.training if not low <= mos <= high]
            if outside:
                raise ConfigError(
                    f"the opinion score {outside[0]:g} is outside [{low:g}, {high:g}]; set model.low and model.high "
                    "in the recipe to the range of the scores"
                )
        else:
            self.source = DistortedImages(data, table.crop, table.validation, recipe.seed, progress)
            # Distances come in [0, 1] already.
            self.offset, self.range = 0.0, 1.0
        super().__init__(metric, metric, len(self.source.training))

    def begin(self) -> None:
        table = self.recipe.model
        if table.ridge == 0 or isinstance(self.model, QualityNet):
            return
        seen = [self.batch(step, 0, 1) for step in range(-(-_PASSES * self.images // self.recipe.data.batch))]
        with torch.no_grad():
            features = torch.cat([self.model.features(images.to(self.device)) for images, _ in seen])
        fit_linear(self.model.head, features, torch.cat([scores for _, scores in seen]).to(self.device), table.ridge)

    def weights_in(self, path: Path) -> State:
        return read_weights(path)[0]

    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        seed, table = self.recipe.seed, self.recipe.data
        images, scores = self.source.batch(seed, step, table.batch, rank, ranks)
        if table.sigma > 0:
            drawn = torch.rand(table.batch, generator=generator_for(seed, "noised", step)) < table.noised
            noise = batch_noise(table.batch, images, seed, step) * drawn.view(-1, 1, 1, 1)
            images = noisy(images, noise[rank::ranks], table.sigma)
        return images, scores

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        table, model = self.recipe.loss, self.recipe.model
        images = batch[0].to(self.device, memory_format=torch.channels_last)
        targets = (batch[1].to(self.device) - self.offset) / self.range

        def scored(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
            return (module(x).float() - model.low) / (model.high - model.low)

        def regression(found: Float[Tensor, " b"]) -> Float[Tensor, ""]:
            if table.regression == "mse":
                return F.mse_loss(found, targets)
            return F.huber_loss(found, targets, delta=table.corner)

        scores = scored(images)
        squared = F.mse_loss(scores, targets)
        loss = regression(scores)
        if table.gradient > 0 or table.attacked > 0:
            with frozen(self.model):
                steepest = steepest_signs(self.model, images)
            if table.gradient > 0:
                norms = (scored(images + _STEP * steepest) - scores) / _STEP
                loss = loss + table.gradient * norms.square().mean() / 2
            if table.attacked > 0:
                generator = generator_for(self.recipe.seed, "attacked", step, rank)
                up = torch.randint(0, 2, (len(images), 1, 1, 1), generator=generator).to(images) * 2 - 1
                loss = (loss + regression(scored((images + table.attacked / 255 * up * steepest).clamp(0, 1)))) / 2
        figures = {"rmse": math.sqrt(squared.item()) * (model.high - model.low)}
        if table.correlation > 0:
            correlation = batch_plcc(scores, targets)
            loss = loss + table.correlation * (1 - correlation)
            figures["batch_plcc"] = correlation.item()
        if table.rank > 0:
            loss = loss + table.rank * rank_loss(scores, targets)
        return loss, figures

    def validate(self) -> Figures:
        scores: list[float] = []
        for index, (image, _) in enumerate(self.source.validation):
            x = to_images([image])
            if self.recipe.data.sigma > 0:
                generator = generator_for(self.recipe.seed, "held out", index)
                x = noisy(x, torch.randn(x.shape, generator=generator), self.recipe.data.sigma)
            scores.append(self.model(x.to(self.device)).item())
        opinions = [score for _, score in self.source.validation]
        return {"srocc": srocc(scores, opinions), "plcc": plcc(scores, opinions)}

    def save(self, weights: Path, training: dict[str, object]) -> None:
        if self.recipe.model.backbone:
            # The path is a matter of this machine; the weights of the backbone are part of the file.
            recipe = dataclasses.asdict(self.recipe)
            recipe["model"]["backbone"] = Path(self.recipe.model.backbone).name
            training = {**training, "recipe": recipe}
        data, loss = self.recipe.data, self.recipe.loss
        terms = [
            f"{loss.regression} on the score divided by its range",
            f"{loss.correlation:g} x (1 - PLCC of the batch)" if loss.correlation else "",
            f"{loss.rank:g} x rank loss" if loss.rank else "",
            f"{loss.gradient:g} / 2 x squared l1 norm of the gradient" if loss.gradient else "",
            f"as much on images attacked by one step of {loss.attacked:g}/255" if loss.attacked else "",
        ]
        synthetic = f"1 - GMSD / {WORST:g} of distorted images, no opinions"
        facts = {
            "input": "RGB float in [0, 1]",
            "output": f"a score in [{self.model.low:g}, {self.model.high:g}], higher is better",
            "learned": "mean opinion scores" if data.kind == "rated" else synthetic,
            "loss": " + ".join(term for term in terms if term),
        }
        if self.backbone and not self.recipe.start:
            model = self.recipe.model
            head = f"ridge regression, penalty {model.ridge:g}" if model.ridge else "random"
            facts["starts from"] = f"features of {Path(model.backbone).name}, sha256 `{self.backbone}`; head: {head}"
        if data.sigma > 0:
            share = "" if data.noised == 1 else f" on {data.noised:g} of the images"
            facts["noise"] = f"Gaussian, standard deviation {data.sigma:g} on [0, 1],{share} in training and validation"
        if data.worsened > 0:
            facts["worsened"] = f"{data.worsened:g} of the images distorted, half of those by noise, opinions lowered"
        size = f"crops of {data.crop} x {data.crop}" if data.crop else "whole images"
        size += f", shrunk from {data.crop} up" if data.zoom else ""
        results = {f"validation {name}": (name.lower(), "{:.3f}") for name in ("SROCC", "PLCC")}
        save_with_card(self.model, weights, training, facts, f"{data.batch} {size}", results)


def steepest_signs(
    score: Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, " b"]], images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Return the signs of the gradients of scores: what raises them fastest in an l-infinity ball.

    Example:
        >>> steepest_signs(lambda x: x[:, 0].sum((1, 2)) - x[:, 1].sum((1, 2)), torch.zeros(1, 3, 1, 1))[0, :, 0, 0]
        tensor([ 1., -1.,  0.])
    """
    x = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(x).sum(), x)
    return gradient.sign()


def batch_plcc(a: Float[Tensor, " b"], b: Float[Tensor, " b"], floor: float = 1e-6) -> Float[Tensor, ""]:
    """Return Pearson's correlation; where either is constant, zero, with a gradient.

    Example:
        >>> round(batch_plcc(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0])).item(), 4)
        1.0
    """
    a, b = a - a.mean(), b - b.mean()
    return (a * b).mean() / ((a.square().mean() + floor) * (b.square().mean() + floor)).sqrt()
