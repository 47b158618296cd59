"""What benchmarks are run on: models, images, and a clock for a busy machine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from resolute import Restorer, load, sample_image
from resolute.folders import find_images
from resolute.images import read_image
from resolute.models.foreign import Foreign
from resolute.resize import downscale
from resolute.studies.grid import Grid
from resolute.studies.kinds import read_study

# Those with 320 rows and 480 columns or more.
SAMPLES = ("coffee", "astronaut", "rocket")

SUITE = "sr-linf-1"


def placed(address: str, device: str = "cpu") -> Restorer:
    """Return a model of scale 4 as studies attack it: on its device, frozen, its weights laid out as is fastest."""
    model = load(address, scale=None if "#" in address else 4).requires_grad_(False).to(device)
    if isinstance(model, Foreign):
        model.lay_out()
    return model


def suite_of(folder: Path, count: int, source: str = SUITE) -> Grid:
    """Return the standard suite, or another study, on the first ``count`` of its images, which are in a folder."""
    study = read_study(source)
    assert isinstance(study, Grid)
    return dataclasses.replace(study, images=(str(folder),), names=study.names[:count], quick=None)


def low_resolution(count: int, folder: Path | None = None) -> torch.Tensor:
    """Return the first ``count`` images of one size as a batch in [0, 1]; without a folder, up to six of 120 x 80."""
    if folder is None:
        photos = [(sample_image(name) * 255).round().byte().permute(1, 2, 0).numpy() for name in SAMPLES[:count]]
        crops = [downscale(photo[:320, :480], 4) for photo in photos]
        crops += [downscale(photo[:320, -480:], 4) for photo in photos]
        images = [torch.from_numpy(crop).permute(2, 0, 1) / 255.0 for crop in crops]
    else:
        images = [read_image(path) for path in find_images([folder])]
    same = [image for image in images if image.shape == images[0].shape]
    return torch.stack(same[:count])


def clock() -> Callable[[], float]:
    """Return what tells the time in seconds.

    On one thread of a processor it is the time that the thread was running, which other programs disturb least.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time if alone else time.perf_counter


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return seconds of each, all run in turns, after one round that does not count."""
    tick = clock()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = tick()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(tick() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}
