"""Small networks, small images and objectives that keep a diary, for the tests of attacks."""

import contextlib
import dataclasses
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from resolute.attacks.ascent import Attack
from resolute.attacks.ball import Linf
from resolute.attacks.objective import OutputShift
from resolute.attacks.registry import AttackTable
from resolute.engine.store import Store, append_line, loaded
from resolute.images import sample_image, write_png
from resolute.measure import agreement
from resolute.models import EDSR, Card
from resolute.models.vision import import_library
from resolute.models.weights import save_model
from resolute.studies import certified_iqa_summary
from resolute.studies.grid import Grid
from resolute.training import judge


def network(seed=0, **sizes):
    """A small random network, with weights large enough for its ReLUs to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EDSR(**{"scale": 2, "blocks": 2, "channels": 6, **sizes})
    with torch.no_grad():
        for block in model.body:
            for parameter in block.parameters():
                parameter.mul_(2)
    return model.eval()


def needs(library, extra):
    """Skip where a library is not installed; else import it as the product does."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library}, of the extra [{extra}], is not installed", allow_module_level=True)
    import_library(library)


def images(count=1, height=7, width=6, seed=0):
    return torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed)) / 255


def tiny(path, name, seed=0):
    """Write a small random EDSR x4 and return its file."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EDSR(scale=4, blocks=1, channels=4, upsampler="direct")
    save_model(model, path, Card(name=name, architecture=model.arguments(), scale=4, licence="MIT"))
    return path


def grid(folder, models=("tiny", "tiny-entropy", "bicubic"), seed=0):
    """A study of small models, of which the first is the baseline, two attacks, two budgets and two images.

    All its files lie in ``folder``.
    """
    for image in ("chelsea", "coffee"):
        write_png(folder / "photos" / f"{image}.png", sample_image(image)[:, 100:148, 200:248])
    files = [
        name if name == "bicubic" else str(tiny(folder / f"{name}.safetensors", name, seed + number))
        for number, name in enumerate(models)
    ]
    return Grid(
        name="small",
        models=tuple(files),
        attacks=(AttackTable(kind="ifgsm", steps=2), AttackTable(kind="fda", steps=2)),
        epsilons=(4, 16),
        images=(str(folder / "photos"),),
        baseline=files[0],
    )


def edit(folder, change):
    """Rewrite the records of a study's folder."""
    rewrite(folder, [change(record) for record in Store(folder).read()])


def rewrite(folder, records):
    """Let a study's folder hold these records alone."""
    (folder / "records.jsonl").unlink(missing_ok=True)
    append_line(folder / "records.jsonl", *[record.as_line() for record in records])


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An objective that keeps what it was asked and what it answered."""

    inner: object = OutputShift()
    asked: list = dataclasses.field(default_factory=list, compare=False)
    answered: list = dataclasses.field(default_factory=list, compare=False)

    def bind(self, model, clean):
        bound = self.inner.bind(model, clean)

        def recorded(x):
            value = bound(x)
            self.asked.append(x.detach().clone())
            self.answered.append(value.detach().clone())
            return value

        return recorded


@dataclasses.dataclass(frozen=True)
class Plane:
    """A linear objective: the inner product with fixed weights; it knows no model."""

    seed: int = 0

    def weights(self, like):
        return torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(self.seed), dtype=like.dtype)

    def bind(self, model, clean):
        weights = self.weights(clean)
        return lambda x: (x * weights).flatten(1).sum(dim=1)

    def highest(self, clean, epsilon):
        """The largest value that any image within ``epsilon`` of a clean one and in [0, 1] can have."""
        weights = self.weights(clean)
        best = (clean + epsilon * weights.sign()).clamp(0, 1)
        return (best * weights).flatten(1).sum(dim=1)


@dataclasses.dataclass(frozen=True)
class Broken:
    """An objective that answers NaN, as a model with damaged weights would."""

    def bind(self, model, clean):
        return lambda x: x.flatten(1).sum(dim=1) * torch.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fatal(Attack):
    """An attack that ends its process, as the kernel does when memory runs out."""

    def aim(self):
        return OutputShift(), Linf(self.epsilon)

    def search(self, task):
        os.kill(os.getpid(), signal.SIGKILL)


class Stepped(nn.Module):
    """A synthetic defence that hides gradients: the input is rounded, and the derivative of that is zero."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(torch.round(x * 255) / 255)


def judge_by_few_steps(monkeypatch):
    """Let hardening be judged by the attacks that it is judged by, of a step or two, and watched at two moments."""
    monkeypatch.setattr("resolute.training.hardening._VALIDATIONS", 2)

    def suite(epsilon, *_):
        return {name: dataclasses.replace(one, steps=2, restarts=1) for name, one in judge.suite(epsilon).items()}

    def further(epsilon, twin, *_):
        short = judge.further(epsilon, twin)
        short["Square"] = dataclasses.replace(short["Square"], queries=4)
        if twin is not None:
            transfer = short["transfer from the undefended"]
            attack = dataclasses.replace(transfer.attack, steps=2)
            short["transfer from the undefended"] = dataclasses.replace(transfer, attack=attack)
        return short

    monkeypatch.setattr("resolute.training.judging.suite", suite)
    monkeypatch.setattr("resolute.training.judging.further", further)


def few_resamples(patch):
    """Let tables of agreement resample fifty times: a thousand logistic curves through a few images take long."""
    for name in ("agreement_of", "agreement_difference"):
        measure = getattr(agreement, name)

        def quick(*arguments, resamples, measure=measure):
            return measure(*arguments, resamples=min(resamples, 50))

        patch.setattr(certified_iqa_summary, name, quick)


def read_lines(path):
    """The whole lines of a file of JSON lines; a missing file has none."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(loaded(line))
    return found


def script_of(name):
    """A script of the documentation as a module."""
    path = Path(__file__).parents[1] / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses are looked up there.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def four_photographs(folder, height=56, width=60):
    """A folder of photographs large enough to harden a small network on."""
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100 : 100 + height, 150 : 150 + width])
    return folder
