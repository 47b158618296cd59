"""What commands cost beside the least that they could: to start, a folder of certificates, and a second worker.

    python benchmarks/speed.py [--rounds 5] [--images 1000] [--attacks 32] [--work runs/speed] [PART ...]

Contestants run in turns, each as a process of its own, which is how users meet them, and medians of the time by the
clock count. Start-up stands beside that of torch. A folder of certificates stands beside a script that does the same
forward passes of the metric and nothing else, and beside one that draws the noise as well; neither writes anything.
Two workers stand beside one, each with one thread, on a study whose cells are all alike; and beside two runs of the
study by one worker at the same time, which share nothing: half of what these take is all that a second core can give.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from resolute.images import sample_image, write_png
from resolute.provenance import provenance

PARTS = ("start", "certificates", "workers")
PYTHON = sys.executable
RESOLUTE = (PYTHON, "-m", "resolute")
SAMPLES, SIDE = 100, 96

FORWARDS = """
import sys
import torch
from resolute.certificates.noise import GaussianNoise
from resolute.folders import find_images
from resolute.images import read_image
from resolute.models.scorers import load_scorer
from resolute.runtime import tune_allocator
tune_allocator()
scorer, samples, together = load_scorer("quality-s").eval().requires_grad_(False), int(sys.argv[2]), int(sys.argv[3])
with torch.no_grad():
    for path in find_images([sys.argv[1]]):
        image = read_image(path)
        copies = image.repeat(together, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        noise = GaussianNoise(image, 0.12, 0)
        for first in range(0, samples, together):
            rows = copies[:samples - first]
            if "noise" in sys.argv:
                noise.fill(rows, first)
            scorer(rows)
"""

AT_ONCE = """
import subprocess, sys
runs = [subprocess.Popen([*sys.argv[1:-1], f"{sys.argv[-1]}-{number}"]) for number in range(2)]
sys.exit(sum(run.wait() for run in runs))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1000, help="of the folder of certificates")
    parser.add_argument("--attacks", type=int, default=32, help="of the study of workers")
    parser.add_argument("--work", type=Path, default=Path("runs/speed"))
    arguments = parser.parse_args()
    print(f"{provenance().hardware}; {os.cpu_count()} cores; medians of {arguments.rounds}")
    parts: dict[str, Callable[[], dict[str, list[str]]]] = {
        "start": start,
        "certificates": lambda: certificates(arguments.work / "certificates", arguments.images),
        "workers": lambda: workers(arguments.work / "workers", arguments.attacks),
    }
    for part in arguments.parts:
        seconds = measured(parts[part](), arguments.rounds, arguments.work / "out")
        least = next(iter(seconds.values()))
        for name, took in seconds.items():
            print(f"{name:44} {took:8.2f} s {took / least:7.2f}", flush=True)


def start() -> dict[str, list[str]]:
    """Return what starts, the least first."""
    return {
        "import torch": [PYTHON, "-c", "import torch"],
        "python": [PYTHON, "-c", "pass"],
        "import resolute": [PYTHON, "-c", "import resolute"],
        "resolute --version": [*RESOLUTE, "--version"],
        "resolute --help": [*RESOLUTE, "--help"],
        "resolute models": [*RESOLUTE, "models"],
    }


def certificates(folder: Path, images: int) -> dict[str, list[str]]:
    """Return the forward passes for crops of a sample photograph, and their certificates."""
    photo = sample_image("coffee")
    places = [(y, x) for y in range(0, photo.shape[1] - SIDE, 8) for x in range(0, photo.shape[2] - SIDE, 8)]
    for number, (y, x) in enumerate(places[:images]):
        write_png(folder / f"{number:04}.png", photo[:, y : y + SIDE, x : x + SIDE])
    certify = ["certify", str(folder), "--metric", "quality-s", "--samples", str(SAMPLES), "--fit", "0"]
    bare = [PYTHON, "-c", FORWARDS, str(folder), str(SAMPLES)]
    return {
        f"forward passes, {images} x {SAMPLES}, 8 at once": [*bare, "8"],
        "one at a time": [*bare, "1"],
        "8 noisy copies at once": [*bare, "8", "noise"],
        "resolute certify": [*RESOLUTE, *certify, "--sigma", "0.12", "--epsilon", "0.05", "--out"],
    }


def workers(folder: Path, attacks: int) -> dict[str, list[str]]:
    """Return a study with two workers, with one, and twice with one."""
    photo = sample_image("coffee")
    for number in range(attacks // 2):
        y, x = divmod(number, 16)
        write_png(folder / f"{number:03}.png", photo[:, y : y + 4 * SIDE, 8 * x : 8 * x + 4 * SIDE])
    study = folder / "study.toml"
    study.write_text(
        f"""
        name = "speed"
        models = ["edsr-s"]
        images = ["{folder.resolve()}"]
        epsilons = [1, 4]
        [[attacks]]
        kind = "ifgsm"
        steps = 10
        """
    )
    run = [*RESOLUTE, "study", str(study), "--workers"]
    return {
        "2 workers": [*run, "2", "--out"],
        "1 worker": [*run, "1", "--out"],
        "1 worker, two runs at once": [PYTHON, "-c", AT_ONCE, *run, "1", "--out"],
    }


def measured(commands: dict[str, list[str]], rounds: int, out: Path) -> dict[str, float]:
    """Return medians of seconds, all run in turns; what ends in ``--out`` gets an empty folder."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            for old in out.parent.glob(f"{out.name}*"):
                shutil.rmtree(old)
            told = [*command, str(out)] if command[-1] == "--out" else command
            began = time.perf_counter()
            subprocess.run(told, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
