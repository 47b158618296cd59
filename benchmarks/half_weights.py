"""Store the built-in weights in 16 bits, where no figure moves: what they take in the wheel is halved.

``python benchmarks/half_weights.py`` compares each model with its rounded self, on the photographs inside scikit-image:
PSNR against the truth and SR-PSNR of images attacked by I-FGSM at 4/255, or the scores of a metric as shares of its
range. ``--write`` replaces the files of those that pass, and notes in their cards which weights they were rounded from.
``--type bfloat16`` is for large ones: a wheel, which is deflated, has a quarter less of it than of float16.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from resolute.attacks import IFGSM
from resolute.files import write_atomically
from resolute.images import SAMPLE_NAMES, from_uint8, sample_image, to_uint8
from resolute.measure import psnr_rgb
from resolute.models import Restorer, load, load_scorer
from resolute.models.base import Card, ScorerCard
from resolute.models.weights import built_in_weights, read_metadata, weights_sha256
from resolute.resize import downscale

SIDE, NOISE, STEPS = 160, 0.12, 10
DECIBELS, SHARE = 0.01, 0.01
ROW, FROM = "| sha256 of the weights |", "| rounded to {} from |"
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def rounded(path: Path, dtype: torch.dtype) -> bytes:
    """Return a weights file with its kernels in 16 bits; biases, means and statistics are small and stay."""
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
        metadata = file.metadata()
    state = {name: tensor.to(dtype) if tensor.dtype == torch.float32 and tensor.ndim > 1 else tensor
             for name, tensor in state.items()}  # fmt: skip
    card = json.loads(metadata["card"])
    facts = {"rounded_from": card["sha256"], **card["training"]}  # the first ones, where it was rounded before
    metadata["card"] = json.dumps({**card, "sha256": weights_sha256(state), "training": facts}, sort_keys=True)
    return save(state, metadata)


def photographs() -> list[Tensor]:
    """Return the middle of each photograph, ``(1, 3, 160, 160)``."""
    found = []
    for name in SAMPLE_NAMES:
        image = sample_image(name)
        top, left = ((length - SIDE) // 2 for length in image.shape[-2:])
        found.append(image[None, :, top : top + SIDE, left : left + SIDE])
    return found


def inputs(truth: Tensor, scale: int) -> Tensor:
    if scale > 1:
        return from_uint8(downscale(to_uint8(truth[0]), scale))[None]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    return (truth + NOISE * noise).clamp(0, 1)


def moves(path: Path, half: Path, photos: list[Tensor], again: bool) -> tuple[list[float], list[float]]:
    """Return the mean PSNR and SR-PSNR of a model in dB, and by how much both move when it is rounded.

    The attack is found on the model as it is, and its images are shown to both: an attack that is found anew parts from
    the first by chance. With ``again``, by how much SR-PSNR moves then, and by how much if the weights are off by a
    millionth only.
    """
    before, after, near = load(path), load(half), load(path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in near.parameters():
            weights.mul_(1 + 1e-6 * torch.randn(weights.shape, generator=generator))
    found: list[list[float]] = []
    for truth in photos:
        low = inputs(truth, before.scale)
        attacked = found_on(before, low)
        rows = [
            psnrs(before, truth, low, attacked),
            psnrs(after, truth, low, attacked),
            *([psnrs(model, truth, low, found_on(model, low)) for model in (after, near)] if again else []),
        ]
        found.append(
            [*rows[0], *(row - rows[0][i] for i, row in enumerate(rows[1])), *(r[1] - rows[0][1] for r in rows[2:])]
        )
    means = torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist()
    return means[:2], means[2:]


def found_on(model: Restorer, low: Tensor) -> Tensor:
    return IFGSM(epsilon=4 / 255, steps=STEPS)(model, low).images


@torch.no_grad()
def psnrs(model: Restorer, truth: Tensor, low: Tensor, attacked: Tensor) -> tuple[float, float]:
    clean = model(low)
    return psnr_rgb(clean, truth).item(), psnr_rgb(clean, model(attacked)).item()


def scores(path: Path, photos: list[Tensor]) -> Tensor:
    """Return the scores of the photographs, as shares of the metric's range."""
    metric = load_scorer(path)
    low, high = metric.card.usual or (metric.card.low, metric.card.high)
    with torch.no_grad():
        return torch.cat([metric(photo) for photo in photos]).double() / (high - low)


def note(path: Path, dtype: str) -> None:
    """Write into the model card which weights the file holds now, and which it was rounded from."""
    facts = json.loads(read_metadata(path)["card"])
    page = path.with_suffix(".md")
    old = (ROW, *(FROM.format(name) for name in TYPES))
    rows = [row for row in page.read_text(encoding="utf-8").splitlines() if not row.startswith(old)]
    rows += [f"{ROW} `{facts['sha256']}` |", f"{FROM.format(dtype)} `{facts['training']['rounded_from']}` |"]
    page.write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the files of the models that pass")
    parser.add_argument("--again", action="store_true", help="attack the rounded model too; three times as long")
    parser.add_argument("--type", choices=TYPES, default="float16", help="what to round to")
    parser.add_argument("names", nargs="*", help="of the models; all if none is given")
    options = parser.parse_args()
    photos = photographs()
    extra = (" attacked again | weights off by 1e-6 |", "--:|--:|") if options.again else ("", "")
    print(f"| model | PSNR, dB | SR-PSNR, dB | moves by | moves by |{extra[0]}\n|---|--:|--:|--:|--:|{extra[1]}")
    for name, path in {**built_in_weights(Card), **built_in_weights(ScorerCard)}.items():
        if options.names and name not in options.names:
            continue
        content = rounded(path, TYPES[options.type])
        with tempfile.TemporaryDirectory() as folder:
            half = Path(folder) / path.name
            half.write_bytes(content)
            if name in built_in_weights(ScorerCard):
                moved = (scores(half, photos) - scores(path, photos)).abs().max().item()
                print(f"| {name} | | | its scores by at most {moved:.5f} of its range | |", flush=True)
                passed = moved < SHARE
            else:
                (clean, attacked), moved = moves(path, half, photos, options.again)
                shown = " | ".join(f"{value:+.4f}" for value in moved)
                print(f"| {name} | {clean:.3f} | {attacked:.3f} | {shown} |", flush=True)
                passed = max(map(abs, moved[:2])) < DECIBELS
        if not passed:
            print(f"{name} moves too far and stays in float32")
        elif options.write:
            write_atomically(path, lambda temporary, content=content: temporary.write_bytes(content))
            note(path, options.type)


if __name__ == "__main__":
    main()
