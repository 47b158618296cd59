"""One attack at one budget on one super-resolution model and image, and what is measured on them."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from resolute.attacks.ascent import Adversarial, Attack
from resolute.attacks.batch import PIXELS, Job, attack_all
from resolute.attacks.targeted import with_truth
from resolute.defences import surrogate
from resolute.images import from_uint8, image_sha256, to_uint8
from resolute.measure.fidelity import SSIM_WINDOW, psnr_rgb, psnr_y, ssim_y
from resolute.models.base import Restorer, SplitRestorer
from resolute.of_file import described
from resolute.randomness import generator_for
from resolute.runtime import full_float32
from resolute.studies.record import Radius, Record, record_key
from resolute.studies.study import RestorerCell, about

Image = Float[Tensor, "1 3 h w"]
Large = Float[Tensor, "1 3 sh sw"]
Features = Float[Tensor, "1 c h1 w1"]

# What is left of an output that is not finite: the PSNR in dB of images that have nothing in common.
BROKEN = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One image of a study: what a model sees, the ground truth where there is one, and the set it belongs to.

    Where both images were ``given`` the first was not made from the second.
    """

    name: str
    low: Image
    truth: Large | None
    dataset: str = ""
    given: bool = False

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Set, name, and the sha256 of both images."""
        return self.dataset, self.name, self.pixels, self.truth_pixels

    @functools.cached_property
    def pixels(self) -> str:
        """The sha256 of the low-resolution image."""
        return image_sha256(self.low[0])

    @functools.cached_property
    def truth_pixels(self) -> str:
        """The sha256 of the ground truth; empty where there is none."""
        return image_sha256(self.truth[0]) if self.truth is not None else ""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRecord(Record):
    """What one attack at one budget did to one super-resolution model on one image.

    Figures are in dB for PSNR; None stands for infinity, where two images are equal.

    Attributes:
        defends: name of the model that this one defends in its study; empty where it defends none.
        attack: label of the attack.
        configuration: the attack with all its settings, and the sha256 of the files of one's own code in it.
        epsilon: radius of the attack on the scale of [0, 1]; times 255 for levels.
        clean_psnr_y: clean output against the ground truth, in dB, on Y, border shaved; None without one.
        clean_ssim_y: clean output against the ground truth, SSIM on Y, border shaved; None without one.
        attacked_psnr_y: attacked output against the ground truth, as ``clean_psnr_y``.
        attacked_ssim_y: attacked output against the ground truth, as ``clean_ssim_y``.
        lr_psnr: clean against attacked input, in dB, RGB (section 4.3).
        sr_psnr: clean against attacked output, in dB, RGB, for the attacked image as saved in 8 bits (section 4.3).
        sr_psnr_unrounded: ``sr_psnr`` before rounding the attacked image.
        sr_psnr_y: clean against attacked output, in dB, on Y, border shaved.
        sr_ssim: clean against attacked output, SSIM on Y, border shaved.
        linf: largest change of a pixel, in levels of 255.
        gradients: evaluations of the model that the search took: gradients, or values by attacks without.
        phi_mean: mean of the feature layer for the clean input.
        phi_std: standard deviation of the feature layer for the clean input.
        phi_range: largest less smallest value of the feature layer for the clean input.
        attacked_phi_mean: ``phi_mean`` for the attacked input.
        attacked_phi_std: ``phi_std`` for the attacked input.
        attacked_phi_range: ``phi_range`` for the attacked input.
        phi_moved: size of the features' change over the spread of the clean ones.
        signs_sr_psnr: ``sr_psnr`` for a change of the same size at random, each value up or down: the floor under every
            attack; None where the output did not move.
        signs_psnr_y: ``attacked_psnr_y`` for that change; None without ground truth.
        broken: the attacked output is not finite: its figures in dB are 0, its SSIM too, and those of features that are
            not finite either are None.
        tile: side of the tiles, in pixels, that were attacked one by one for want of memory; 0 where the image was
            attacked as a whole.
    """

    view: ClassVar[str] = "attacks"

    defends: str = ""
    attack: str
    configuration: str
    epsilon: Radius
    clean_psnr_y: float | None
    clean_ssim_y: float | None
    attacked_psnr_y: float | None
    attacked_ssim_y: float | None
    lr_psnr: float | None
    sr_psnr: float | None
    sr_psnr_unrounded: float | None
    sr_psnr_y: float | None
    sr_ssim: float | None
    linf: float
    gradients: int
    phi_mean: float
    phi_std: float
    phi_range: float
    attacked_phi_mean: float | None
    attacked_phi_std: float | None
    attacked_phi_range: float | None
    phi_moved: float | None
    signs_sr_psnr: float | None = None
    signs_psnr_y: float | None = None
    broken: bool = False
    tile: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AttackCell(RestorerCell):
    """One model, one attack at one budget, one image."""

    attack: Attack
    label: str
    subject: Subject
    seed: int
    defends: str = ""

    @property
    def judged(self) -> tuple[str, ...]:
        """What says which model and image this is, whatever the attack."""
        assert self.model.card is not None
        return self.model.card.name, self.model.card.sha256, self.subject.pixels, self.subject.truth_pixels

    @staticmethod
    def of(
        model: Restorer, attack: Attack, label: str, subject: Subject, seed: int, defends: str = "", written: str = ""
    ) -> AttackCell:
        """Return the cell that asks what this attack does to the model on an image.

        Where the same attack is in many cells, ``written`` saves describing it once more.
        """
        assert model.card is not None
        name, weights = model.card.name, model.card.sha256
        pixels = subject.low.shape[-2] * subject.low.shape[-1]
        return AttackCell(
            # Files of equal pixels are two images, so the name counts too.
            key=record_key("attack", name, weights, label, written or described(attack), *subject.identity, seed),
            title=f"{subject.name}, {name}, {label} {attack.epsilon * 255:g}/255",
            like=("attack", name, weights, label),
            shape=tuple(subject.low.shape),
            cost=float(pixels),
            together=max(1, 2 * PIXELS // pixels),
            model=model,
            attack=attack,
            label=label,
            subject=subject,
            seed=seed,
            defends=defends,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Clean:
    """What all attacks on one model and image share."""

    model: Restorer
    subject: Subject
    phi: Features
    output: Large
    psnr_y: float | None
    ssim_y: float | None

    @staticmethod
    def of(model: Restorer, subject: Subject) -> Clean:
        """Run the model on the clean image and measure the output."""
        phi, output = passed(model, subject.low.to(next(model.parameters(), subject.low).device))
        return Clean(model, subject, phi, output, *against_truth(output, subject, model.scale))


@dataclasses.dataclass(frozen=True, eq=False)
class AttackOutcome:
    """A record, the attacked image on the 8-bit grid, ``(3, h, w)``, and what the model makes of it."""

    record: AttackRecord
    attacked: Tensor
    output: Tensor


def measure_all(
    cells: Sequence[AttackCell],
    cleans: Sequence[Clean],
    progress: Callable[[float], None] | None = None,
    memory: int | None = None,
) -> list[AttackOutcome]:
    """Attack and measure cells of one model, in batches where their attacks can share them; see ``attack_all``.

    Raises:
        ValueError: the cells are of several models.
    """
    if len({id(cell.model) for cell in cells}) != 1:
        raise ValueError("cells that are measured together are of one model, and at least one")
    began = time.perf_counter()
    model = cells[0].model
    device = next(model.parameters(), cells[0].subject.low).device
    # An attacker who knows of a defence around the model climbs through it; what is found is judged on the defence.
    jobs = [Job(with_truth(cell.attack, cell.subject.truth), cell.subject.low.to(device), cell.seed) for cell in cells]
    found = attack_all(surrogate(model), jobs, memory=memory, values=False, progress=progress)
    seconds = (time.perf_counter() - began) / len(cells)
    return [_judged(*one, seconds) for one in zip(cells, cleans, found, strict=True)]


def _judged(cell: AttackCell, clean: Clean, found: Adversarial, seconds: float) -> AttackOutcome:
    subject, model = cell.subject, cell.model
    # Scored as a reader of the saved file would see it.
    saved = from_uint8(to_uint8(found.images[0])).unsqueeze(0)
    phi, attacked = passed(model, saved.to(found.images))
    with torch.no_grad(), full_float32():
        unrounded = model(found.unrounded).cpu()
    attacked_psnr_y, attacked_ssim_y = against_truth(attacked, subject, model.scale)
    signs = moved_at_random(cell.attack, found.clean, coins(cell)[None])
    with torch.no_grad(), full_float32():
        floor = model(signs).cpu()
    assert model.card is not None
    record = AttackRecord(
        **about(cell, model.card, subject.name, subject.low[0], cell.seed),
        defends=cell.defends,
        attack=cell.label,
        configuration=described(cell.attack),
        epsilon=cell.attack.epsilon,
        clean_psnr_y=clean.psnr_y,
        clean_ssim_y=clean.ssim_y,
        attacked_psnr_y=attacked_psnr_y,
        attacked_ssim_y=attacked_ssim_y,
        lr_psnr=psnr_between(subject.low, saved),
        sr_psnr=psnr_between(clean.output, attacked),
        sr_psnr_unrounded=psnr_between(clean.output, unrounded),
        sr_psnr_y=_shaved_psnr(clean.output, attacked, model.scale),
        sr_ssim=_ssim(clean.output, attacked, model.scale),
        linf=round(float((saved - subject.low).abs().max()) * 255, 4),
        gradients=found.gradients,
        seconds=round(seconds, 3),
        dataset=subject.dataset,
        phi_mean=float(clean.phi.mean()),
        phi_std=float(clean.phi.std(correction=0)),
        phi_range=float(clean.phi.max() - clean.phi.min()),
        attacked_phi_mean=_finite(phi.mean()),
        attacked_phi_std=_finite(phi.std(correction=0)),
        attacked_phi_range=_finite(phi.max() - phi.min()),
        phi_moved=_finite(relative_change(clean.phi, phi)),
        signs_sr_psnr=psnr_between(clean.output, floor),
        signs_psnr_y=None if subject.truth is None else _shaved_psnr(floor, subject.truth, model.scale),
        broken=not bool(attacked.isfinite().all()),
    )
    return AttackOutcome(record, saved[0].cpu(), attacked[0])


def coins(cell: AttackCell) -> Int8[Tensor, "3 h w"]:
    """Return plus or minus one at random for every value of a cell's image."""
    size = cell.subject.low.shape[1:]
    return torch.randint(0, 2, size, dtype=torch.int8, generator=generator_for(cell.seed, "signs")) * 2 - 1


def moved_at_random(attack: Attack, clean: Image, signs: Int8[Tensor, "1 3 h w"]) -> Image:
    """Return an image changed by these signs, as far as the budget allows: the floor under every attack."""
    ball = attack.aim()[1]
    return ball.round(ball.project(ball.ascend(clean, signs.to(clean), ball.epsilon), clean), clean)


def relative_change(clean: Features, attacked: Features) -> Tensor:
    """Return the size of a change of the features over the spread of the clean ones.

    Example:
        >>> relative_change(torch.tensor([[[[-1.0, 1.0]]]]), torch.tensor([[[[-2.0, 2.0]]]])).item()
        1.0
    """
    return (attacked - clean).norm() / (clean - clean.mean()).norm().clamp_min(1e-12)


def passed(model: Restorer, x: Image) -> tuple[Features, Large]:
    """Return what the model makes of an image, on the CPU: its features and its output."""
    with torch.no_grad(), full_float32():
        phi = model.features(x)
        # Twice through the body of a wrapper, which may do more than its two halves.
        return phi.cpu(), (model.reconstruct(phi) if isinstance(model, SplitRestorer) else model(x)).cpu()


def against_truth(output: Image, subject: Subject, border: int) -> tuple[float | None, float | None]:
    """Return PSNR and SSIM of an output on Y, the border shaved; None without ground truth, or where it is tiny."""
    if subject.truth is None:
        return None, None
    return _shaved_psnr(output, subject.truth, border), _ssim(output, subject.truth, border)


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value).all()) else None


def psnr_between(a: Image, b: Image) -> float | None:
    """Return the PSNR on RGB in dB; None where two images are equal, 0 where the second is not finite."""
    return _finite(psnr_rgb(a, b)) if bool(b.isfinite().all()) else BROKEN


# Tiny images lose figures that need a border or a window, and keep the others.


def _shaved_psnr(a: Image, b: Image, border: int) -> float | None:
    if min(a.shape[-2:]) <= 2 * border:
        return None
    return _finite(psnr_y(a, b, border)) if _both_finite(a, b) else BROKEN


def _ssim(a: Image, b: Image, border: int) -> float | None:
    if min(a.shape[-2:]) < SSIM_WINDOW + 2 * border:
        return None
    return float(ssim_y(a, b, border)) if _both_finite(a, b) else 0.0


def _both_finite(a: Image, b: Image) -> bool:
    return bool(a.isfinite().all()) and bool(b.isfinite().all())
