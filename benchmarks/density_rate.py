"""Does the density of the entropy regulariser need a learning rate of its own?

    python benchmarks/density_rate.py RUN_FOLDER IMAGES...

Takes a finished training run (its weights and its density), freezes the network, and trains the density alone until it
gains nothing more. What is left to gain tells how far the density lagged behind during training: with a rate too low
the bits that the network was charged would be too many.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from resolute import load
from resolute.defences import ChannelDensity
from resolute.folders import find_images
from resolute.images import from_uint8, read_image, to_uint8
from resolute.resize import downscale, mod_crop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=10)
    arguments = parser.parse_args()
    [weights] = arguments.run.glob("*.safetensors")
    model = load(weights)
    state = torch.load(weights.with_name(f"{weights.stem}.density.pt"), weights_only=True)
    density = ChannelDensity(state["matrices.0"].shape[0])
    density.load_state_dict(state)
    features = []
    with torch.no_grad():
        for path in find_images(arguments.images)[:: arguments.every]:
            low = downscale(mod_crop(to_uint8(read_image(path)), model.scale), model.scale)
            features.append(model.features(from_uint8(low)[None]).flatten(2)[0])
    phi = torch.cat(features, dim=1)
    phi = phi[:, torch.randperm(phi.shape[1], generator=torch.Generator().manual_seed(0))[:4000]]
    noise = torch.rand(phi.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    values = (phi + noise)[None, :, :, None]
    print(f"{len(features)} images, {phi.shape[1]} positions, {phi.shape[0]} channels, std {phi.std():.2f}")
    with torch.no_grad():
        print(f"bits as trained        {density.bits(values).mean():.3f}")
    optimizer = torch.optim.Adam(density.parameters(), lr=1e-2)
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / arguments.steps)
        bits = density.bits(values).mean()
        optimizer.zero_grad()
        bits.backward()
        optimizer.step()
    with torch.no_grad():
        print(f"bits, density refitted {density.bits(values).mean():.3f}")


if __name__ == "__main__":
    main()
