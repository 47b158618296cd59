"""What hardening is judged by: strong attacks on a model and on what it must beat, on images that it did not see.

An attack of thirty steps and one start flatters an undefended network, and a hardened one, by 4 to 5 dB; so the judge
takes a hundred steps of APGD and fifty of PGD with three starts each, and what lowers a figure most is the figure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Attack, Precision
from resolute.attacks.gradient import PGD
from resolute.attacks.square import Square
from resolute.attacks.targeted import ReferenceShift, Truth, with_truth
from resolute.attacks.transfer import Source, Transfer
from resolute.errors import ImageError
from resolute.images import from_uint8, read_image, to_uint8
from resolute.measure.fidelity import psnr_rgb, psnr_y
from resolute.models.base import Restorer, device_of, frozen
from resolute.pairing import ImageFiles, matched_images, read_pair
from resolute.resize import downscale, middle, mod_crop
from resolute.training.patches import distinct

# What a network that gives NaN or infinity under an attack is left with: nothing, the least that clamped images have.
BROKEN = 0.0

# The most that a figure can be: of outputs that are equal to the bit, as where a network answers one colour.
EQUAL = 100.0

# Side of a low-resolution image beyond which its middle is taken.
LARGEST_LOW = 192


@dataclasses.dataclass(frozen=True)
class Photograph:
    """An image to judge on.

    Attributes:
        name: of its file.
        low: as it was given, or else shrunk as MATLAB's ``imresize`` does it.
        high: the original.
    """

    name: str
    low: UInt8[ndarray, "h w 3"]
    high: UInt8[ndarray, "sh sw 3"]

    def cut(self, side: int) -> Photograph:
        """Return the middle, of at most ``side`` low-resolution pixels."""
        scale = self.high.shape[0] // self.low.shape[0]
        top, left = (max(0, (length - side) // 2) for length in self.low.shape[:2])
        low = self.low[top : top + side, left : left + side]
        height, width = (scale * length for length in low.shape[:2])
        high = self.high[scale * top : scale * top + height, scale * left : scale * left + width]
        return Photograph(self.name, low, high)

    def tensors(self, device: torch.device) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 3 sh sw"]]:
        """Return low-resolution image and original as batches of one, in [0, 1]."""
        return from_uint8(self.low)[None].to(device), from_uint8(self.high)[None].to(device)


@dataclasses.dataclass(frozen=True)
class Damage:
    """What one attack leaves of one model on one image, in dB.

    Attributes:
        kept: SR-PSNR, of the attacked output against the clean one; 0 where the output is not finite.
        truth: PSNR on Y of the attacked output against the original; likewise.
    """

    kept: float
    truth: float


@dataclasses.dataclass(frozen=True)
class Judged:
    """One model on one image.

    Attributes:
        image: name of the image.
        clean: PSNR on Y of the output without an attack.
        damage: by the name of the attack.
    """

    image: str
    clean: float
    damage: dict[str, Damage]

    @property
    def kept(self) -> float:
        """The least SR-PSNR that an attack leaves."""
        return min(found.kept for found in self.damage.values())

    @property
    def truth(self) -> float:
        """The least PSNR against the original that an attack leaves."""
        return min(found.truth for found in self.damage.values())


@dataclasses.dataclass(frozen=True)
class JudgedImages:
    """What a person looks at: the attacked image, and the outputs for the clean image and for it."""

    attacked: Float[Tensor, "3 h w"]
    clean_output: Float[Tensor, "3 sh sw"]
    output: Float[Tensor, "3 sh sw"]


def photographs(files: Sequence[Path | ImageFiles], scale: int, count: int) -> list[Photograph]:
    """Read images to judge on, spread evenly over the files; of very large ones the middle.

    Args:
        files: images or folders of them, of high resolution; of pairs both, see ``matched_images``.
        scale: of the model.
        count: how many at most.

    Raises:
        ImageError: none can be found or read, or one is smaller than 16 low-resolution pixels a side.
    """
    found = matched_images(files, scale)
    chosen = [found[int(i * len(found) / min(count, len(found)))] for i in range(min(count, len(found)))]
    read: list[Photograph] = []
    for image, name in zip(chosen, distinct([image.path for image in chosen]), strict=True):
        if image.low is None:
            high = middle(mod_crop(to_uint8(read_image(image.path)), scale), LARGEST_LOW * scale)
            low = downscale(high, scale)
        else:
            low, high = read_pair(image.path, image.low, scale)
            low, high = middle(low, LARGEST_LOW), middle(high, LARGEST_LOW, scale)
        if min(low.shape[:2]) < 16:
            raise ImageError(
                f"{image.path} has less than {16 * scale} pixels on one side, too few to judge on; leave it out"
            )
        read.append(Photograph(name, low, high))
    return read


def suite(epsilon: float, precision: Precision = "float32", restarts: int = 3) -> dict[str, Attack]:
    """Return the attacks by which every model is judged: APGD on the output, and PGD aimed at the original."""
    truth = ReferenceShift(Truth())
    return {
        "APGD": APGD(epsilon=epsilon, precision=precision, steps=100, restarts=restarts),
        "PGD on the truth": PGD(epsilon=epsilon, precision=precision, steps=50, restarts=restarts, objective=truth),
    }


def further(epsilon: float, twin: Restorer | None, precision: Precision = "float32") -> dict[str, Attack]:
    """Return attacks that do not follow the model's own gradient: a black box, and what was found on its twin.

    Either of them stronger than ``suite`` tells that a defence misleads gradients.

    Args:
        epsilon: largest change of a pixel.
        twin: the same model undefended; None where the model is that itself.
        precision: of the search on the twin.
    """
    found: dict[str, Attack] = {"Square": Square(epsilon=epsilon, queries=1000)}
    if twin is not None:
        inner = APGD(epsilon=epsilon, precision=precision, steps=100)
        found["transfer from the undefended"] = Transfer(epsilon=epsilon, source=Source(twin), attack=inner)
    return found


def judge(
    model: Restorer,
    photograph: Photograph,
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[Judged, JudgedImages]:
    """Attack a model on an image by every attack.

    Args:
        model: judged in evaluation mode, on the device that it is on.
        photograph: the image.
        attacks: by name; those that measure from the truth are given it.
        seed: of their random starts.
        progress: called with the share that is done.

    Returns:
        The figures, and the pictures of the attack that leaves the output farthest from its original.
    """
    low, high = photograph.tensors(device_of(model))
    with torch.no_grad(), frozen(model):
        clean = model(low)
    damage: dict[str, Damage] = {}
    worst, seen = float("inf"), JudgedImages(low[0], clean[0], clean[0])
    for number, (name, attack) in enumerate(attacks.items()):

        def report(done: int, total: int, before: int = number) -> None:
            if progress is not None:
                progress((before + done / total) / len(attacks))

        try:
            found = with_truth(attack, high)(model, low, seed=seed, progress=report).images
            with torch.no_grad(), frozen(model):
                output = model(found)
        except FloatingPointError:
            damage[name] = Damage(BROKEN, BROKEN)
            continue
        damage[name] = _damage(clean, output, high, model.scale)
        if damage[name].truth < worst:
            worst, seen = damage[name].truth, JudgedImages(found[0], clean[0], output[0])
    return Judged(photograph.name, _damage(clean, clean, high, model.scale).truth, damage), seen


def _damage(clean: Tensor, output: Tensor, high: Tensor, scale: int) -> Damage:
    if not bool(output.isfinite().all()):
        return Damage(BROKEN, BROKEN)
    kept, truth = float(psnr_rgb(clean, output)), float(psnr_y(output, high, border=scale))
    return Damage(min(kept, EQUAL), min(truth, EQUAL))
