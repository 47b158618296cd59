"""What benchmarks are run on: images that are always there or those of a folder, and a clock for a busy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from resolute import sample_image
from resolute.folders import find_images
from resolute.images import read_image
from resolute.resize import downscale

# Those with 320 rows and 480 columns or more.
SAMPLES = ("coffee", "astronaut", "rocket")


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


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return seconds of each, all run in turns, after one round that does not count.

    On one thread of a processor it is the time that the thread was running, which other programs disturb least.
    """
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    clock = time.process_time if alone else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}
