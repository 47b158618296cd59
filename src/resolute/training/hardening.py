"""``harden``: fine-tune a model so that attacks bite less, write its weights back, and judge what that was worth.

A folder holds the weights in the form in which they came, a card, ``harden.json`` with every figure, the attacked
images, ``log.jsonl`` and ``checkpoint.pt``. The same call goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import torch
from torch import nn

from resolute import runtime
from resolute.attacks.ascent import Attack, Precision
from resolute.defences.adversarial import Adversarial
from resolute.defences.consistency import Consistency
from resolute.defences.loading import load_defended
from resolute.errors import ConfigError, ImageError
from resolute.files import alone_in, write_text
from resolute.images import image_size
from resolute.of_file import own_code, told_in_one_line
from resolute.pairing import ImageFiles, matched_images
from resolute.training.harden_recipe import HardenRecipe
from resolute.training.harden_task import LARGEST, HardenTask
from resolute.training.hardened import Hardening
from resolute.training.judge import photographs
from resolute.training.judging import Judging
from resolute.training.loop import fabric_for, fit
from resolute.training.recipe import AnyRecipe, read_recipe
from resolute.training.subject import subject_of
from resolute.training.tables import OptimizerTable
from resolute.training.task import Figures

Table = TypeVar("Table", HardenRecipe, Adversarial, Consistency, OptimizerTable)

# Of photographs as they are cut; what lies beyond, in a fixed random order, would add little in minutes.
_PIXELS = 80_000_000

# Between checkpoints, so that little is lost by a kill, and between validations, as a share of the training.
_SECONDS, _VALIDATIONS = 20.0, 20

# Decay of the average of the weights that a limit on lost clean PSNR is held by.
_AVERAGED = 0.98

_PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Watcher:
    """Who is told how far a hardening is; by default nobody.

    Attributes:
        read: called with (photographs read, photographs in all).
        planned: called once with the recipe as it is carried out, and the seconds that a step takes; where it raises,
            nothing is kept.
        step: called with (step, figures) before the first and after every one.
        judged: called with (done, in all, what is being judged).
    """

    read: Callable[[int, int], None] | None = None
    planned: Callable[[HardenRecipe, float], None] | None = None
    step: Callable[[int, Figures], None] | None = None
    judged: Callable[[float, int, str], None] | None = None


def harden(
    model: nn.Module | str | Path,
    photos: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    recipe: HardenRecipe | str | Path = "harden",
    methods: Sequence[str] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    epsilon: float | None = None,
    share: float | None = None,
    clean_loss: float | None = None,
    seed: int | None = None,
    test: Path | str | Sequence[Path | str] = (),
    tested: int = 20,
    crop: int | None = None,
    attacks: Mapping[str, Attack] | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    watcher: Watcher | None = None,
) -> Hardening:
    """Make a super-resolution model robust by fine-tuning, and judge it before and after.

    Unless told otherwise, a fifth of every batch is attacked by ten steps of PGD (Madry et al., ICLR 2018) from
    random points of the ball, which raise the distance from the original; the loss is the L1 distance of clean and
    attacked patches from their originals. A model given as an object stays as it is.

    Killed at any moment, the same call goes on, and on a CPU ends with the same weights as an unbroken one. Under
    torchrun all processes train, and those but the first end when that is done; the first one judges.

    Args:
        model: name, file or address of a model (see ``load``), or a ``Restorer``, as ``as_restorer`` makes of a module.
        photos: folders or files of high-resolution photographs, with their low-resolution files where there are such
            (see ``matched_images``); a few are held out and judged on.
        out: folder for the result; ``runs/NAME-hardened`` if not given.
        recipe: the name or file of a recipe whose ``task`` is ``harden``, or the recipe itself.
        methods: names of ``hardening_methods`` or ``FILE.py:NAME`` of one's own, instead of the recipe's; they combine.
        minutes: of training, instead of the recipe's.
        steps: of training, instead of minutes.
        epsilon: largest change of a pixel, on the scale of [0, 1], instead of the recipe's 4/255.
        share: of every batch that is attacked, instead of the recipe's 0.2: a step takes longer with more.
        clean_loss: dB of clean PSNR that may be lost on photographs held out, instead of the recipe's 0.05: attacked
            patches weigh as much as that allows, and what costs more in the end is taken back. 0 for no limit: all
            patches weigh alike.
        seed: of everything random, instead of the recipe's.
        test: judge on these high-resolution images or folders instead of on what is held out, and by more attacks;
            those of them that are among ``photos`` are not trained on.
        tested: images to judge on at most, spread evenly.
        crop: side of the middle of each ``test`` image that is judged, in low-resolution pixels; None for all of it.
        attacks: by name, to judge by these alone: quicker than the judge's own, and weaker where they are.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: arithmetic of attacks, of the judge's and, but for float32, of those that are trained on; ``mixed``
            trains on those searched in float32 where the processor only emulates bfloat16.
        watcher: is told how far it is.

    Raises:
        CheckpointError: the model cannot be loaded, or its weights not be written back.
        ConfigError: too few or too small photographs; a model without gradients or weights to train; a budget below one
            level of 255; ``out`` holds another run.
        TrainingError: the loss is not finite; the last good weights are kept.
        OutputError: a file cannot be written.

    Example:
        >>> import resolute
        >>> made = resolute.harden("my_edsr_x4.pt", "photos/", minutes=10)  # doctest: +SKIP
        >>> made.weights, made.gain("truth"), made.model(images)  # doctest: +SKIP
    """
    watcher = watcher or Watcher()
    place = torch.device(runtime.resolve_device(device))
    address = str(model) if isinstance(model, str | Path) else ""
    found = read_recipe(recipe, methods) if isinstance(recipe, str | Path) else recipe
    if methods is not None and isinstance(recipe, HardenRecipe):
        raise ConfigError("methods belong to a recipe by name: set the tables of the recipe itself")
    asked = _asked(found, minutes=minutes, steps=steps, epsilon=epsilon, share=share, seed=seed, clean_loss=clean_loss)
    if precision == "bfloat16" or (precision == "mixed" and runtime.has_bfloat16(place)):
        asked = dataclasses.replace(asked, search="bfloat16")
    if crop is not None and crop < 16:
        raise ConfigError(f"crop: a side of 16 low-resolution pixels or more, not {crop}")
    asked = dataclasses.replace(asked, own=tuple(_known(table) for table in asked.own))
    subject = subject_of(load_defended(model) if isinstance(model, str | Path) else model, address)
    restorer = subject.model
    folder = Path("runs") / Path(subject.file_name).stem if out is None else Path(out)
    judged_on = matched_images(_paths(test), restorer.scale) if test else []
    found = matched_images(_paths(photos), restorer.scale)
    files = _chosen(found, judged_on, restorer.scale * asked.data.patch, 2 if asked.data.validation else 1)
    if not asked.data.validation and (not judged_on or clean_loss):
        what = "nothing is left to judge on" if not judged_on else "no clean PSNR can be watched"
        raise ConfigError(f"data.validation is 0, so {what}: hold photographs out, or name some to test")
    # Half of few photographs at most, so that some are left to train on.
    data = dataclasses.replace(asked.data, validation=min(asked.data.validation, len(files) // 2))
    asked = dataclasses.replace(asked, data=data, weights=subject.sha256, photos=_fingerprint(files))
    tests = photographs(judged_on, restorer.scale, tested) if judged_on else None
    if tests is not None and crop is not None:
        tests = [photograph.cut(crop) for photograph in tests]
    # Weights of a file were frozen by nobody who asks for this; those of a caller's own model may be.
    task = HardenTask(
        asked, copy.deepcopy(restorer).eval().to(place), files, subject.write, watcher.read, unfreeze=bool(address)
    )
    fabric = fabric_for(asked, str(place))
    first = fabric.is_global_zero
    with alone_in(folder) if first else contextlib.nullcontext(), told_in_one_line():
        # Measured by one for all of several processes, which take the same steps.
        planned, seconds = fabric.broadcast(_planned(asked, task, folder) if first else (asked, 0.0))
        if watcher.planned is not None and first:
            watcher.planned(planned, seconds)
        if first:
            _keep(folder, asked, planned, seconds)
        task.recipe = planned
        weights = fit(planned, task, folder, fabric, watcher.step, weights=folder / subject.file_name).weights
        if not first:
            raise SystemExit(0)
        before, after = copy.deepcopy(restorer), subject.read_back(weights, task.made)
        for judged in (before, after):
            judged.eval().to(place).to(memory_format=task.memory_format)  # pyright: ignore[reportCallIssue], a gap in the stubs
        judging = Judging(folder, planned, before, after, subject.name, precision, attacks)
        made = judging.result(weights, subject.note, task.held_out[:tested], tests, watcher.judged)
        made.facts.update(kept=task.kept, reach=dataclasses.asdict(task.reach))
        made.save(folder)
        write_text(weights.with_suffix(".md"), subject.page(made))
    return dataclasses.replace(made, model=after)


def _paths(given: Path | str | Sequence[Path | str]) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]


def _known(table: dict[str, Any]) -> dict[str, Any]:
    """Return the table of a method of one's own with the sha256 of its file, so that another one is another recipe."""
    code = own_code(str(table.get("method", "")))
    return table if code is None or code.load() is None else {**table, "sha256": code.sha256}


def _asked(
    found: AnyRecipe,
    *,
    minutes: float | None,
    steps: int | None,
    epsilon: float | None,
    share: float | None,
    seed: int | None,
    clean_loss: float | None,
) -> HardenRecipe:
    """Return the recipe with what the caller said otherwise."""
    if not isinstance(found, HardenRecipe):
        raise ConfigError(f"{found.name} trains a model from a recipe: run `resolute train` with it")
    if minutes is not None and not 0 < minutes < 1e5:
        raise ConfigError(f"minutes of training are a number above 0, not {minutes:g}")
    if steps is not None and steps < 1:
        raise ConfigError(f"steps of training are 1 or more, not {steps}")
    if epsilon is not None and not 1 / 256 < epsilon <= 1:
        raise ConfigError(f"a budget is from 1/255, one level of an 8-bit image, to 1, not {epsilon:g}")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"the attacked share of a batch is above 0 and at most 1, not {share:g}")
    if clean_loss is not None and not 0 <= clean_loss < math.inf:
        raise ConfigError(f"the clean PSNR that may be lost is above 0 dB, or 0 for no limit, not {clean_loss:g}")
    if share is not None and found.adversarial is None:
        raise ConfigError("share: no patches are attacked without the method adversarial")
    level = None if epsilon is None else round(epsilon * 255, 6)
    attack = None if found.adversarial is None else _replaced(found.adversarial, level=level, share=share)
    consistency = None if found.consistency is None else _replaced(found.consistency, level=level)
    optimizer = _replaced(found.optimizer, steps=steps)
    minutes = 0 if steps is not None else minutes
    asked = _replaced(
        found, adversarial=attack, consistency=consistency, optimizer=optimizer, minutes=minutes, seed=seed,
        level=level, clean_loss=clean_loss,
    )  # fmt: skip
    if asked.clean_loss and not asked.optimizer.ema:
        asked = dataclasses.replace(asked, optimizer=dataclasses.replace(asked.optimizer, ema=_AVERAGED))
    if asked.budget < 1:
        raise ConfigError(f"a budget of {asked.budget:g}/255 changes no sample of an 8-bit image; give 1/255 or more")
    return asked


def _replaced(table: Table, **values: object) -> Table:
    return dataclasses.replace(table, **{name: value for name, value in values.items() if value is not None})


def _chosen(files: Sequence[ImageFiles], but: Sequence[ImageFiles], side: int, least: int) -> list[ImageFiles]:
    """Return as many photographs as memory and minutes have room for, in the order given, each of them once.

    Args:
        files: the photographs.
        but: those that are judged on and may not be trained on.
        side: pixels that a photograph needs on both sides; smaller ones are left out.
        least: how many must be that large: one to train on, and one to hold out.
    """
    left_out = {image.path.resolve() for image in but}
    once = {image.path.resolve(): image for image in reversed(files) if image.path.resolve() not in left_out}
    # What is wrong with a file that has no size is said when it is read.
    heads = {image: image_size(image.path) for image in reversed(once.values())}
    sizes = {image: size or (LARGEST, LARGEST) for image, size in heads.items()}
    large = [image for image, size in sizes.items() if min(size) >= side]
    if len(sizes) > 1 and len(large) < least and None not in heads.values():
        raise ConfigError(
            f"{len(large) or 'none'} of the {len(sizes)} photographs has {side} "
            f"pixels on both sides, as a patch takes, and {least} must; give larger ones with --data, or a smaller "
            "data.patch in the recipe"
        )
    large = large if len(large) > 1 else list(sizes)
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(0)).tolist()
    chosen: list[int] = []
    pixels = 0
    for index in order:
        width, height = sizes[large[index]]
        pixels += min(width, LARGEST) * min(height, LARGEST)
        if pixels > _PIXELS and len(chosen) > 1:
            break
        chosen.append(index)
    if len(chosen) < 2:
        raise ConfigError(
            "one photograph cannot be both trained and judged on: give two or more with --data, better a hundred"
        )
    return [large[index] for index in sorted(chosen)]


def _fingerprint(images: Sequence[ImageFiles]) -> str:
    digest = hashlib.sha256()
    for path in (path for image in images for path in image.files):
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


def _planned(asked: HardenRecipe, task: HardenTask, folder: Path) -> tuple[HardenRecipe, float]:
    """Return the recipe with its number of steps, the same on every call for one folder, and the seconds of a step."""
    path, kind = folder / _PLAN, pydantic.TypeAdapter(HardenRecipe)
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            before, planned = (kind.validate_python(content[name]) for name in ("asked", "planned"))
            seconds = float(content["seconds_per_step"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(
                f"{path} is damaged ({type(error).__name__}); choose another --out, or delete it"
            ) from None
        if before != asked:
            raise ConfigError(
                f"{folder} holds a hardening of {_differences(before, asked)}; choose another --out, or delete it"
            )
        return planned, seconds
    seconds = task.seconds_per_step()
    steps = asked.optimizer.steps if asked.minutes == 0 else max(1, round(60 * asked.minutes / seconds))
    planned = dataclasses.replace(
        asked,
        minutes=0,
        optimizer=dataclasses.replace(asked.optimizer, steps=steps, warmup=min(asked.optimizer.warmup, steps // 5)),
        # Between two batches: the perturbation of one that is replayed is kept nowhere.
        checkpoint_every=_multiple(min(asked.checkpoint_every, round(_SECONDS / seconds)), asked.replay),
        validate_every=max(1, min(asked.validate_every, -(-steps // _VALIDATIONS))),
    )
    return planned, seconds


def _keep(folder: Path, asked: HardenRecipe, planned: HardenRecipe, seconds: float) -> None:
    """Write the plan, unless it is there, so that the same call goes on with it."""
    if not (path := folder / _PLAN).is_file():
        parts = {"asked": asked, "planned": planned}
        content = {name: dataclasses.asdict(part) for name, part in parts.items()} | {"seconds_per_step": seconds}
        write_text(path, json.dumps(content, indent=1) + "\n")


def _multiple(number: int, of: int) -> int:
    return max(1, round(number / of)) * of


def _differences(before: HardenRecipe, asked: HardenRecipe) -> str:
    words = {"weights": "other weights", "photos": "other photographs", "minutes": "other minutes"}
    changed = [name for name, value in vars(before).items() if value != getattr(asked, name)]
    return " and ".join(words.get(name, f"another {name}") for name in changed)
