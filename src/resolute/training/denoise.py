"""Training of a denoiser, on pixels alone or with a quality metric in the loop (DMS-IQA)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.defences.dms_iqa import LossBalance, dms_iqa_losses, scaled_scores, score_range
from resolute.errors import ConfigError
from resolute.measure.agreement import srocc
from resolute.measure.fidelity import psnr_rgb
from resolute.models.base import Restorer, Scorer
from resolute.models.readings import State
from resolute.models.scorers import load_scorer
from resolute.models.weights import read_weights
from resolute.randomness import generator_for, stream_seed
from resolute.training.card import save_with_card
from resolute.training.denoise_recipe import DenoiseRecipe
from resolute.training.photos import Photos
from resolute.training.rated import batch_noise, noisy, spread, to_images
from resolute.training.reward import Reward
from resolute.training.task import Figures, Task

# Draws of the noise with which the spread of the score is measured.
_DRAWS = 4


@final
class DenoiseTask(Task[Restorer]):
    """Noise of one level on clean crops, clipped to [0, 1] before the denoiser and after it.

    Args:
        recipe: what to train.
        data: folders of clean images.
        metric: weights of the metric in the loop, where they are not what ``recipe.metric`` names.
        progress: called with (images read, images in all).
        denoiser: weights of the one before a rewarded metric, where they are not what ``recipe.reward`` names.

    Raises:
        ConfigError: the data does not fit; a term of the loss needs a metric or opinions that are not there.
        CheckpointError: the metric or the denoiser before it cannot be loaded.
    """

    def __init__(
        self,
        recipe: DenoiseRecipe,
        data: Sequence[Path],
        metric: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        denoiser: Path | None = None,
    ) -> None:
        self.recipe = recipe
        loss = recipe.loss
        if not recipe.metric and (loss.target > 0 or loss.rank > 0 or recipe.reward.weight > 0):
            raise ConfigError(
                f"{recipe.name}: loss.target and loss.rank need a metric, and so does a reward; name one with `metric`"
            )
        self.metric: Scorer | None = load_scorer(metric or recipe.metric) if recipe.metric else None
        if self.metric is not None:
            self.metric.requires_grad_(False)
            if loss.target > 0 or loss.rank > 0:
                score_range(self.metric)
        rewards = self.metric is not None and recipe.reward.weight > 0
        self.reward = Reward(recipe.reward, self.metric, denoiser) if self.metric is not None and rewards else None
        self.before = self.reward.denoiser if self.reward is not None else None
        self.photos = Photos(data, recipe.data.crop, recipe.data.validation, progress, zoom=recipe.data.zoom)
        if loss.rank > 0 and loss.order != "metric" and not self.photos.rated:
            raise ConfigError(
                f"{recipe.name} ranks by human scores, which not all of these images have: give folders with mos.csv, "
                'or set loss.order = "metric"'
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(recipe.seed, "weights"))
            model = recipe.model.build()
        self.balance = LossBalance((loss.mse, loss.target, loss.rank), loss.momentum)
        parts = _DenoiseParts(model, self.balance, "/".join(filter(None, self._judged_by())))
        fixed = [judge for judge in (self.metric, self.reward and self.reward.scorer) if judge is not None]
        super().__init__(model, parts, len(self.photos.training), fixed=fixed)

    def weights_in(self, path: Path) -> State:
        return read_weights(path)[0]

    def batch(self, step: int, rank: int, ranks: int) -> tuple[Tensor, ...]:
        seed, table = self.recipe.seed, self.recipe.data
        clean, opinions = self.photos.batch(seed, step, table.batch, rank, ranks)
        noise = batch_noise(table.batch, clean, seed, step)
        if self.reward is None or not self.recipe.reward.defended:
            return clean, opinions, noise[rank::ranks]
        return clean, opinions, noise[rank::ranks], self.reward.noise(tuple(noise.shape), seed, step)[rank::ranks]

    def loss(self, module: nn.Module, batch: tuple[Tensor, ...], step: int, rank: int) -> tuple[Tensor, Figures]:
        clean, opinions, noise, *draws = (part.to(self.device) for part in batch)
        clean = clean.contiguous(memory_format=torch.channels_last)
        denoised = module(noisy(clean, noise, self.recipe.sigma)).float().clamp(0, 1)
        table = self.recipe.loss
        if self.metric is None or not (table.target > 0 or table.rank > 0) or step < table.after:
            total = F.mse_loss(denoised, clean)
            figures = {"psnr": _decibel(total)}
        else:
            order = None if table.order == "metric" else opinions
            losses = dms_iqa_losses(self.metric, denoised, clean, order, both=table.order == "both")
            figures = {"psnr": _decibel(losses.mse), "target": losses.target.item(), "rank": losses.rank.item()}
            total = self.balance(losses)
        if self.reward is not None and step >= table.after:
            missed = self.reward.loss(denoised, *draws)
            figures["rewarded"] = 1 - missed.item()
            total = total + self.recipe.reward.weight * missed
        return total, figures

    def validate(self) -> Figures:
        held_out = self.photos.validation
        if not held_out:
            return {}
        chosen = [held_out[place] for place in spread(len(held_out), self.recipe.data.validated)]
        psnrs: list[float] = []
        clean_scores: list[float] = []
        draws: list[list[float]] = []
        count = _DRAWS if self.metric is not None else 1
        for index, (image, _) in enumerate(chosen):
            clean = to_images([image])
            generators = (generator_for(self.recipe.seed, "held out", index, draw) for draw in range(count))
            denoised = [self._denoise(clean, generator) for generator in generators]
            psnrs.append(psnr_rgb(denoised[0].cpu(), clean).item())
            if self.metric is not None:
                draws.append([scaled_scores(self.metric, x).item() for x in denoised])
                clean_scores.append(scaled_scores(self.metric, clean.to(self.device)).item())
        figures = {"psnr_rgb": sum(psnrs) / len(psnrs)}
        if self.metric is not None:
            first = [scores[0] for scores in draws]
            figures |= {
                "srocc_clean": srocc(first, clean_scores),
                "shift": float(np.mean(np.abs(np.array(first) - np.array(clean_scores)))),
                "std": float(np.mean(np.std(np.array(draws), axis=1, ddof=1))),
            }
            opinions = [mos for _, mos in chosen]
            if not any(math.isnan(mos) for mos in opinions):
                figures["srocc_mos"] = srocc(first, opinions)
        return figures

    def save(self, weights: Path, training: dict[str, object]) -> None:
        if self.metric is not None and self.metric.card is not None:
            name, (metric, denoiser) = self.metric.card.name, self._judged_by()
            # The recipe may name paths, which are a matter of this machine.
            reward = dataclasses.replace(self.recipe.reward, denoiser=self._denoiser_name())
            recipe = dataclasses.asdict(dataclasses.replace(self.recipe, metric=name, reward=reward))
            training = {**training, "recipe": recipe, "metric": {"name": name, "sha256": metric}}
            if denoiser:
                training["reward_denoiser"] = {"name": reward.denoiser, "sha256": denoiser}
        data, loss = self.recipe.data, self.recipe.loss
        terms = {"MSE": loss.mse, "target": loss.target, f"rank by {loss.order}": loss.rank}
        used = [f"{size:g} x {name}" for name, size in terms.items() if size > 0]
        balance = f", each balanced to the size of the MSE, which is alone for {loss.after} steps"
        metric, taught = "none", self.metric is None or loss.target + loss.rank + self.recipe.reward.weight > 0
        if self.metric is not None and self.metric.card is not None:
            metric = f"{self.metric.card.name}, sha256 `{self.metric.card.sha256}`"
        facts = {
            "input, output": "RGB float in [0, 1] with noise, clipped; the same without noise",
            "noise": f"Gaussian, standard deviation {self.recipe.sigma:g} on [0, 1]",
            "loss": " + ".join(used) + (balance if len(used) > 1 else "") + self._rewarded(),
            f"metric {'in the loop' if taught else 'of the validation'}": metric,
        }
        results = {"validation PSNR (RGB)": ("psnr_rgb", "{:.2f} dB")}
        if self.metric is not None:
            results |= {
                "validation SROCC, denoised with clean score": ("srocc_clean", "{:.3f}"),
                "validation shift of the score, share of the range": ("shift", "{:.4f}"),
                "validation spread of the score over noise, share of the range": ("std", "{:.4f}"),
                "validation SROCC with human scores": ("srocc_mos", "{:.3f}"),
            }
        steps = f"{data.batch} crops of {data.crop} x {data.crop}" + (f", shrunk from {data.crop} up" * data.zoom)
        save_with_card(self.model, weights, training, facts, steps, results)

    def _judged_by(self) -> tuple[str, str]:
        """Return the sha256 of the metric and of the denoiser before it, empty where there is none."""
        cards = [judge.card if judge is not None else None for judge in (self.metric, self.before)]
        metric, denoiser = (card.sha256 if card is not None else "" for card in cards)
        return metric, denoiser

    def _denoiser_name(self) -> str:
        denoiser = self.before
        return denoiser.card.name if denoiser is not None and denoiser.card is not None else ""

    def _denoise(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        x = noisy(clean, torch.randn(clean.shape, generator=generator), self.recipe.sigma)
        return self.model(x.to(self.device, memory_format=torch.channels_last)).clamp(0, 1)

    def _rewarded(self) -> str:
        reward = self.recipe.reward
        if self.reward is None:
            return ""
        defence = f", mean of {reward.draws} draws of noise of {reward.sigma:g}" if reward.defended else ""
        defence += f" through {self._denoiser_name()}" if reward.denoiser else ""
        return f" + {reward.weight:g} x (1 - score as a share of the range{defence})"


class _DenoiseParts(nn.Module):
    """The denoiser, and what else belongs into a checkpoint: the balance of the loss, and which metric it is for."""

    def __init__(self, model: nn.Module, balance: LossBalance, metric: str) -> None:
        super().__init__()
        self.model = model
        self.balance = balance
        self.metric = metric

    def get_extra_state(self) -> str:
        return self.metric

    def set_extra_state(self, state: str) -> None:
        if state != self.metric:
            raise ConfigError(
                "this run began with other weights of its metric, or of the denoiser before it; choose another --out, "
                "or delete it"
            )

    def forward(self, noisy: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.model(noisy)


def _decibel(error: Tensor) -> float:
    return -10 * math.log10(max(error.item(), 1e-10)) if math.isfinite(error.item()) else math.nan
