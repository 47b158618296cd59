"""Peak memory and time of a large image whole and in tiles, forwards and for one attack step.

    python benchmarks/tiles.py [MODEL] [--side 384] [--tile 128]

Each is run in a process of its own; memory is what the process holds at most beyond the model and the image.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from resolute import load
from resolute.models.tiling import Tiled
from resolute.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="edsr-s")
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--one", choices=["forward", "step"], help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        peak(arguments.model, arguments.side, 0 if arguments.whole else arguments.tile, arguments.one)
        return
    print(f"{provenance().hardware}; {arguments.model}, {arguments.side}x{arguments.side}, tiles of {arguments.tile}")
    for one in ("forward", "step"):
        for whole in (["--whole"], []):
            options = ["--side", str(arguments.side), "--tile", str(arguments.tile), "--one", one, *whole]
            subprocess.run([sys.executable, __file__, arguments.model, *options], check=True)


def peak(name: str, side: int, tile: int, one: str) -> None:
    model = load(name, scale=4).requires_grad_(False)
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if tile:
        model = Tiled(model, tile=tile)
    began = time.process_time()
    if one == "forward":
        with torch.no_grad():
            total = model(x).sum()
    else:
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
        total = gradient.abs().sum()
    taken = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    title = f"{one}, in tiles" if tile else f"{one}, whole"
    print(f"  {title:18} {grown:8.0f} MiB {taken:8.2f} s of the processor   checksum {total.item():.6g}", flush=True)


if __name__ == "__main__":
    main()
