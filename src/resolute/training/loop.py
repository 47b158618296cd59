"""The training loop: one command for CPU, one GPU or several, resumable to the bit, whatever is trained.

It knows a ``Task``, which says what a step computes, and adds all that trainings share: optimiser and schedule,
processes, the weight average, checkpoints, the log, and what to do when a number is no longer finite.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import pickle
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import pydantic
import torch
from torch import Tensor, nn

import resolute
from resolute.errors import CheckpointError, ConfigError, TrainingError
from resolute.files import alone_in, beside, write_text
from resolute.models.archive import load_archive, save_archive
from resolute.shipped import WEIGHTS
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.recipe import AnyRecipe
from resolute.training.restore_recipe import Recipe
from resolute.training.task import Figures, Task, describe_failure

if TYPE_CHECKING:
    import lightning_fabric

Cut = TypeVar("Cut")

# Seconds after which a checkpoint is written, whatever the recipe says: what is lost at most.
KEEP = 60.0


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training run left behind.

    Attributes:
        weights: the safetensors file with the model and its card.
        figures: the last validation.
    """

    weights: Path
    figures: Figures


def train(
    recipe: AnyRecipe,
    data: Sequence[Path],
    out: Path,
    *,
    device: str = "auto",
    devices: int = 1,
    on_step: Callable[[int, Figures], None] | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train a model, or go on where a killed run of the same recipe stopped.

    On a CPU, a resumed run ends with the same weights as an unbroken one: batches and noise depend on (seed, step)
    alone, and the checkpoint holds all the rest.

    Args:
        recipe: what to train and how.
        data: folders of high-resolution images, or for a quality metric of rated ones (see ``rated.read_ratings``).
        out: folder for checkpoint, log, weights and model card.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: processes to train on together; the batch of the recipe is shared among them. Under torchrun, its own.
        on_step: called with (step, figures) after every step, in the first process.
        on_read: called with (images read, images in all).

    Raises:
        ConfigError: ``out`` holds a run of another recipe, another process trains there, or the data does not fit.
        TrainingError: the loss is not finite; the last good checkpoint is kept and written as the model.
        OutputError: a file cannot be written.
    """
    fabric = fabric_for(recipe, device, devices)
    with alone_in(out) if fabric.is_global_zero else contextlib.nullcontext():
        return fit(recipe, task_of(recipe, data, out, on_read), out, fabric, on_step)


def fabric_for(recipe: AnyRecipe, device: str, devices: int = 1) -> lightning_fabric.Fabric:
    """Return what places a training on devices and processes, started.

    Raises:
        ConfigError: its batch cannot be shared evenly among the processes.
    """
    from lightning_fabric import Fabric  # as slow to import as torch

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    here, nodes = _processes(devices)
    fabric = Fabric(accelerator=device, devices=here, num_nodes=nodes, precision=recipe.precision)
    fabric.launch()
    if recipe.data.batch % fabric.world_size:
        # Shares of different sizes would weigh differently in the mean of the gradients.
        raise ConfigError(
            f"a batch of {recipe.data.batch} cannot be shared evenly among {fabric.world_size} processes; change "
            "data.batch in the recipe, or the number of processes"
        )
    return fabric


def fit(
    recipe: AnyRecipe,
    task: Task[Any],
    out: Path,
    fabric: lightning_fabric.Fabric,
    on_step: Callable[[int, Figures], None] | None = None,
    weights: Path | None = None,
) -> Trained:
    """Carry out the steps of a recipe on a task, or go on where a killed run stopped; see ``train``.

    Args:
        recipe: how many steps, and how.
        task: what a step is.
        out: folder for checkpoint and log.
        fabric: devices and processes.
        on_step: called with (step, figures) after every step, and before the first where the recipe validates first.
        weights: the file to write; by default named after the recipe.
    """
    run = _TrainingRun(recipe, task, out, fabric, weights or out / f"{recipe.name}.safetensors")
    if not run.resume():
        run.begin()
        if recipe.validate_first:
            figures = run.validate()
            run.log(figures)
            if on_step is not None and fabric.is_global_zero:
                on_step(0, figures)
    kept = time.monotonic()
    while run.step < recipe.optimizer.steps:
        figures = run.advance()
        if not math.isfinite(figures["loss"]):
            raise run.abandon(figures)
        if run.step % recipe.validate_every == 0 or run.step == recipe.optimizer.steps:
            figures |= run.validate()
            run.log(figures)
        late = time.monotonic() - kept > KEEP and fabric.world_size == 1
        if late or run.step % recipe.checkpoint_every == 0 or run.step == recipe.optimizer.steps:
            if not run.is_finite():
                raise run.abandon(figures)
            run.save()
            kept = time.monotonic()
        if on_step is not None and fabric.is_global_zero:
            on_step(run.step, figures)
    return run.finish()


def _processes(devices: int) -> tuple[int, int]:
    """Return how many processes train on this node, and on how many nodes: as torchrun says, where it started this."""
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return devices, 1
    here, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if devices not in (1, here):
        raise ConfigError(f"torchrun started {here} processes here, and --devices asks for {devices}; leave it out")
    return here, all_of_them // here


def task_of(
    recipe: AnyRecipe, data: Sequence[Path], out: Path, progress: Callable[[int, int], None] | None = None
) -> Task[Any]:
    """Return what the recipe trains, its images read.

    Raises:
        ConfigError: the data does not fit the recipe, or something that the recipe names is not there.
    """
    from resolute.training.denoise import DenoiseTask
    from resolute.training.restore import RestoreTask
    from resolute.training.score import ScoreTask
    from resolute.training.score_recipe import ScoreRecipe

    if isinstance(recipe, HardenRecipe):
        raise ConfigError(f"{recipe.name} hardens a model that is there already: run `resolute harden MODEL` with it")
    if isinstance(recipe, Recipe):
        return RestoreTask(recipe, data, progress)
    if isinstance(recipe, ScoreRecipe):
        return ScoreTask(recipe, data, progress)
    metric, denoiser = beside(out, recipe.metric), beside(out, recipe.reward.denoiser)
    return DenoiseTask(recipe, data, metric, progress, denoiser=denoiser)


class _TrainingRun:
    def __init__(
        self, recipe: AnyRecipe, task: Task[Any], out: Path, fabric: lightning_fabric.Fabric, weights: Path
    ) -> None:
        self.recipe = recipe
        self.weights = weights
        self.task = task
        self.out = out
        self.fabric = fabric
        self.step = 0
        self.last: Figures = {}
        self.started_from = ""
        self.seconds = 0.0
        self.average = self._state()
        groups = [
            {"params": parameters, "scale": scale * pace}
            for module, scale in task.rates
            for pace, parameters in _by_pace(module, task.paces)
        ]
        on_gpu = fabric.device.type == "cuda"
        optimizer = torch.optim.Adam(groups, lr=recipe.optimizer.rate, fused=on_gpu or None)
        task.model.to(memory_format=task.memory_format)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
        self.batch = Ahead(self._pinned_batch).take if on_gpu else self._batch
        self.module, self.optimizer = fabric.setup(task.parts, optimizer)
        task.move(fabric.device)

    def begin(self) -> None:
        """Take the weights that the recipe starts from, if it names any."""
        start = self.recipe.start
        if not start:
            self.task.begin()
            self.average = self._state()
            return
        is_file = start.endswith((".safetensors", ".pth", ".pt"))
        path = Path(start) if is_file else beside(self.out, start) or WEIGHTS / f"{start}.safetensors"
        if not path.is_file():
            lacks = "which is not there" if is_file else f"which is neither beside {self.out} nor built in"
            raise ConfigError(f"{self.recipe.name} starts from {start}, {lacks}: train that first")
        try:
            self.started_from = self.task.start(path)
        except (RuntimeError, pickle.UnpicklingError) as error:
            raise ConfigError(f"{self.recipe.name} cannot start from {path}: {' '.join(str(error).split())}") from None
        self.average = self._state()

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def _batch(self, step: int) -> tuple[Tensor, ...]:
        return self.task.batch(step, self.fabric.global_rank, self.fabric.world_size)

    def _pinned_batch(self, step: int) -> tuple[Tensor, ...]:
        return tuple(part.pin_memory() for part in self._batch(step))

    def advance(self) -> Figures:
        """Take one optimiser step and return its figures."""
        began = time.perf_counter()
        table = self.recipe.optimizer
        rank = self.fabric.global_rank
        batch = self.batch(self.step)
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.module.train()
        loss, parts = self.task.loss(self.module, batch, self.step, rank)
        figures = self._of_all({"loss": loss.item(), **parts}) | {"rate": rate}
        if not math.isfinite(figures["loss"]):
            return figures
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if table.clip > 0:
            # What is not finite is told of by the loss of the next step, or by the weights.
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=table.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.step += 1
        if table.ema > 0:
            # The usual correction: early averages would otherwise remember the initial weights.
            decay = min(table.ema, (1 + self.step) / (10 + self.step))
            for name, tensor in self.task.model.state_dict().items():
                # Counts, such as those of BatchNorm, have no average.
                weight = 1 - decay if tensor.is_floating_point() else None
                average = self.average[name]
                average.copy_(tensor) if weight is None else average.lerp_(tensor.to(average), weight)
        self.seconds += time.perf_counter() - began
        return figures

    def _of_all(self, figures: Figures) -> Figures:
        """Return the means over all processes, so that the log tells of the whole batch, and all stop at a NaN."""
        if self.fabric.world_size == 1:
            return figures
        own = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.fabric.device)
        means = self.fabric.all_reduce(own, reduce_op="mean")
        assert isinstance(means, torch.Tensor)
        return dict(zip(figures, means.tolist(), strict=True))

    def is_finite(self) -> bool:
        """Tell whether all weights are finite: a finite loss can still have had a gradient that was not."""
        return all(bool(parameter.isfinite().all()) for parameter in self.task.parts.parameters())

    def validate(self) -> Figures:
        """Return the task's figures on what was held out."""
        with self._evaluated():
            return self.task.validate()

    def log(self, figures: Figures) -> None:
        """Append the figures of this step, dropping what a broken run had logged beyond it."""
        self.last = figures
        if not self.fabric.is_global_zero:
            return
        path = self.out / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) < self.step]
        write_text(path, "\n".join([*kept, json.dumps({"step": self.step, **figures})]) + "\n")

    def save(self) -> None:
        """Write the checkpoint: all that is needed to go on as if nothing had happened."""
        if not self.fabric.is_global_zero:
            return
        content = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe), sort_keys=True),
            "step": self.step,
            "parts": self.task.parts.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "figures": self.last,
            "started_from": self.started_from,
            "seconds": self.seconds,
        }
        save_archive(content, self.checkpoint)

    def resume(self) -> bool:
        """Take up the checkpoint in ``out``, and tell whether there is one."""
        if not self.checkpoint.exists():
            return False
        damaged = CheckpointError(
            f"{self.checkpoint} is damaged, or no checkpoint of a training: move it away to start afresh, or choose "
            "another --out"
        )
        try:
            content = load_archive(self.checkpoint)
            same = self._same(content["recipe"])
        except Exception:  # A damaged file can raise anything.
            raise damaged from None
        if not same:
            raise ConfigError(f"{self.out} holds a run of another recipe; choose another --out, or delete it")
        try:
            self.task.parts.load_state_dict(content["parts"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.average = content["average"]
            self.step, self.last = content["step"], content["figures"]
            self.started_from, self.seconds = content["started_from"], content.get("seconds", 0.0)
        except ConfigError:
            raise
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError):
            raise damaged from None
        return True

    def _same(self, recipe: str) -> bool:
        # Read as a recipe, so that a key which has come to the package since then stands at its default.
        try:
            return pydantic.TypeAdapter(type(self.recipe)).validate_python(json.loads(recipe)) == self.recipe
        except pydantic.ValidationError:
            return False

    def abandon(self, figures: Figures) -> TrainingError:
        """Go back to the last good checkpoint, write it as the model, and return the error to raise."""
        failed = self.step + 1
        kept = "there was no checkpoint yet"
        if self.checkpoint.exists():
            self.resume()
            self.finish()
            kept = f"the weights of step {self.step} are in {self.out}"
        return TrainingError(f"step {failed}: {describe_failure(figures)}, and train again; {kept}")

    def finish(self) -> Trained:
        """Write the weights and all that belongs to them."""
        if self.fabric.is_global_zero:
            training: dict[str, object] = {
                "recipe": dataclasses.asdict(self.recipe),
                "started_from": self.started_from,
                "steps": self.step,
                "seconds_per_step": round(self.seconds / max(self.step, 1), 5),
                "images": self.task.images,
                "validation": self.last,
                "resolute": resolute.__version__,
                "torch": torch.__version__,
            }
            with self._evaluated():
                self.task.save(self.weights, training)
        self.fabric.barrier()
        return Trained(self.weights, self.last)

    def _state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.task.model.state_dict().items()}

    @contextlib.contextmanager
    def _evaluated(self) -> Generator[None]:
        """Put the task's model in evaluation mode, with averaged weights where the recipe asks for them."""
        live = self._state()
        if self.recipe.optimizer.ema > 0:
            self.task.model.load_state_dict(self.average)
        self.task.parts.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.task.model.load_state_dict(live)
            self.task.parts.train()


def _by_pace(module: nn.Module, paces: Mapping[str, float]) -> list[tuple[float, list[nn.Parameter]]]:
    """Return the parameters of a module that train, in groups of one pace."""
    found: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            found.setdefault(paces.get(name, 1.0), []).append(parameter)
    return list(found.items())


@final
class Ahead(Generic[Cut]):
    """Cuts the batch of the next step while a GPU works on that of this one; on a CPU the two would take turns.

    Args:
        cut: returns the batch of a step.

    Example:
        >>> ahead = Ahead(lambda step: 10 * step)
        >>> ahead.take(3), ahead.take(4), ahead.take(0)
        (30, 40, 0)
    """

    def __init__(self, cut: Callable[[int], Cut]) -> None:
        self._cut = cut
        self._worker = ThreadPoolExecutor(1)
        self._coming: dict[int, Future[Cut]] = {}

    def take(self, step: int) -> Cut:
        """Return the batch of a step, and begin with that of the next."""
        coming = self._coming.pop(step, None)
        found = self._cut(step) if coming is None else coming.result()
        self._coming = {step + 1: self._worker.submit(self._cut, step + 1)}
        return found


def _step_of(line: str) -> float:
    """Return the step that a line of the log tells of; infinity for a torn one, which is left out."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf


def learning_rate(recipe: AnyRecipe, step: int) -> float:
    """Return the learning rate of the given step, counted from zero.

    Example:
        >>> from resolute.training import read_recipe
        >>> recipe = read_recipe("edsr-s")
        >>> learning_rate(recipe, recipe.optimizer.steps) < 1e-9
        True
    """
    table = recipe.optimizer
    rise = min(1.0, (step + 1) / table.warmup) if table.warmup else 1.0
    if table.schedule == "cosine":
        return table.rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / table.steps)))
    return table.rate * rise * table.factor ** (step // table.halve_every)
