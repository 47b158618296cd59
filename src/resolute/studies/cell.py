"""One cell of a study: one model, one attack at one budget, one image, and what is measured on them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Adversarial, Attack
from resolute.attacks.batch import Job, attack_all
from resolute.attacks.targeted import with_truth
from resolute.defences import surrogate
from resolute.images import from_uint8, image_sha256, to_uint8
from resolute.measure.fidelity import psnr_rgb, psnr_y, ssim_y
from resolute.models.base import Restorer
from resolute.runtime import full_float32
from resolute.studies.store import Record

Image = Float[Tensor, "1 3 h w"]
Large = Float[Tensor, "1 3 sh sw"]
Features = Float[Tensor, "1 c h1 w1"]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One image of a study: what a model sees, the ground truth where there is one, and the set it belongs to."""

    name: str
    low: Image
    truth: Large | None
    dataset: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One unit of work: its key says whether it is done."""

    key: str
    model: Restorer
    attack: Attack
    label: str
    subject: Subject
    seed: int

    @property
    def title(self) -> str:
        """What a person calls this cell."""
        name = self.model.card.name if self.model.card is not None else type(self.model).__name__
        return f"{self.subject.name}, {name}, {self.label} {self.attack.epsilon * 255:g}/255"


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
        phi, output = _pass(model, subject.low.to(next(model.parameters(), subject.low).device))
        return Clean(model, subject, phi, output, *_against_truth(output, subject, model.scale))

    def belongs_to(self, cell: Cell) -> bool:
        """Tell whether this is the clean output of the cell's model and image."""
        return self.model is cell.model and self.subject is cell.subject


def measure(cell: Cell, clean: Clean, progress: Callable[[float], None] | None = None) -> tuple[Record, Image]:
    """Attack one image and measure what became of it; return the record and the attacked image on the 8-bit grid.

    Args:
        cell: what is to be done.
        clean: of the cell's model and image.
        progress: called with the share of the work that is done.
    """
    return measure_all([cell], [clean], progress=progress)[0]


def measure_all(
    cells: Sequence[Cell],
    cleans: Sequence[Clean],
    *,
    memory: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[tuple[Record, Image]]:
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
    found = attack_all(surrogate(model), jobs, memory=memory, progress=progress)
    seconds = (time.perf_counter() - began) / len(cells)
    return [_judged(*one, seconds) for one in zip(cells, cleans, found, strict=True)]


def _judged(cell: Cell, clean: Clean, found: Adversarial, seconds: float) -> tuple[Record, Image]:
    subject, model = cell.subject, cell.model
    # Scored as a reader of the saved file would see it.
    saved = from_uint8(to_uint8(found.images[0])).unsqueeze(0)
    phi, attacked = _pass(model, saved.to(found.images))
    _, unrounded = _pass(model, found.unrounded)
    attacked_psnr_y, attacked_ssim_y = _against_truth(attacked, subject, model.scale)
    assert model.card is not None
    record = Record(
        key=cell.key,
        model=model.card.name,
        weights=model.card.sha256,
        attack=cell.label,
        configuration=repr(cell.attack),
        epsilon=cell.attack.epsilon,
        image=subject.name,
        pixels=image_sha256(subject.low[0]),
        width=subject.low.shape[-1],
        height=subject.low.shape[-2],
        seed=cell.seed,
        clean_psnr_y=clean.psnr_y,
        clean_ssim_y=clean.ssim_y,
        attacked_psnr_y=attacked_psnr_y,
        attacked_ssim_y=attacked_ssim_y,
        lr_psnr=_finite(psnr_rgb(subject.low, saved)),
        sr_psnr=_finite(psnr_rgb(clean.output, attacked)),
        sr_psnr_unrounded=_finite(psnr_rgb(clean.output, unrounded)),
        sr_psnr_y=_shaved_psnr(clean.output, attacked, model.scale),
        sr_ssim=_ssim(clean.output, attacked, model.scale),
        linf=round(float((saved - subject.low).abs().max()) * 255, 4),
        gradients=found.gradients,
        seconds=round(seconds, 3),
        dataset=subject.dataset,
        phi_mean=float(clean.phi.mean()),
        phi_std=float(clean.phi.std(correction=0)),
        phi_range=float(clean.phi.max() - clean.phi.min()),
        attacked_phi_mean=float(phi.mean()),
        attacked_phi_std=float(phi.std(correction=0)),
        attacked_phi_range=float(phi.max() - phi.min()),
        phi_moved=relative_change(clean.phi, phi),
    )
    return record, saved


def relative_change(clean: Features, attacked: Features) -> float:
    """Return the size of a change of the features over the spread of the clean ones.

    Example:
        >>> relative_change(torch.tensor([[[[-1.0, 1.0]]]]), torch.tensor([[[[-2.0, 2.0]]]]))
        1.0
    """
    return float((attacked - clean).norm() / (clean - clean.mean()).norm().clamp_min(1e-12))


def _pass(model: Restorer, x: Image) -> tuple[Features, Large]:
    # Twice through the body, since a wrapper around a model may do more than the two halves of it.
    with torch.no_grad(), full_float32():
        return model.features(x).cpu(), model(x).cpu()


def _against_truth(output: Image, subject: Subject, border: int) -> tuple[float | None, float | None]:
    if subject.truth is None:
        return None, None
    return _shaved_psnr(output, subject.truth, border), _ssim(output, subject.truth, border)


def _finite(value: Tensor) -> float | None:
    return float(value) if bool(torch.isfinite(value).all()) else None


# Tiny images lose figures that need a border or a window, and keep the others.


def _shaved_psnr(a: Image, b: Image, border: int) -> float | None:
    return _finite(psnr_y(a, b, border)) if min(a.shape[-2:]) > 2 * border else None


def _ssim(a: Image, b: Image, border: int) -> float | None:
    return float(ssim_y(a, b, border)) if min(a.shape[-2:]) >= 11 + 2 * border else None
