"""An image too large to be attacked as a whole: attacked window by window, measured and written strip by strip."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from resolute.attacks.ascent import Attack
from resolute.attacks.ball import L2
from resolute.attacks.batch import Job, attack_all
from resolute.attacks.targeted import with_truth
from resolute.defences import surrogate
from resolute.images import to_uint8
from resolute.measure.fidelity import luma, ssim_y
from resolute.models.base import device_of
from resolute.models.tiling import inner, spans
from resolute.of_file import described
from resolute.runtime import full_float32
from resolute.strips import PngWriter
from resolute.studies.attacked import BROKEN, AttackCell, AttackRecord, passed
from resolute.studies.fitting import Fit
from resolute.studies.study import about

# Half of the window of SSIM, in pixels of the output.
_SSIM = 5


@final
@dataclasses.dataclass(frozen=True)
class _Window:
    """Rows and columns of the image that a window sees, and those inside of it that are its own."""

    rows: slice
    columns: slice
    own_rows: slice
    own_columns: slice

    def seen(self, image: Tensor, scale: int = 1) -> Tensor:
        return image[..., _times(self.rows, scale), _times(self.columns, scale)]

    def own(self, image: Tensor) -> Tensor:
        return image[..., self.top : self.bottom, self.left : self.right]

    @property
    def top(self) -> int:
        return self.rows.start + self.own_rows.start

    @property
    def bottom(self) -> int:
        return self.rows.start + self.own_rows.stop

    @property
    def left(self) -> int:
        return self.columns.start + self.own_columns.start

    @property
    def right(self) -> int:
        return self.columns.start + self.own_columns.stop


def attack_in_windows(
    cell: AttackCell, fit: Fit, folder: Path, outputs: bool, progress: Callable[[float], None]
) -> tuple[AttackRecord, dict[str, Path]]:
    """Attack every window of an image by itself, and measure what came of the whole.

    Every window is attacked with its surroundings, as the image is, and of those nothing is kept. What is found lies in
    the ball of the whole image: an l2 budget is shared out by area. The figures are exact where the model sees no
    further than the surroundings: they are of the whole attacked image.

    Args:
        cell: of a model that is where it is to run.
        fit: says how large windows are.
        folder: for the pictures.
        outputs: write clean and attacked outputs too.
        progress: called with the share that is done.

    Returns:
        the record, and the pictures as files by the folder that they belong in.
    """
    began = time.perf_counter()
    low = cell.subject.low
    height, width = low.shape[-2:]
    windows = [window for row in _rows(height, width, fit.window, fit.halo) for window in row]
    attacked = torch.empty(low.shape[1:], dtype=torch.uint8)
    unrounded = torch.empty_like(low)
    model, device = surrogate(cell.model), device_of(cell.model)
    gradients = 0
    # Of the work by what a gradient costs; measuring runs the model forwards five times.
    share = 0.8
    for number, window in enumerate(windows):
        part = window.seen(low).to(device)
        truth = None if cell.subject.truth is None else window.seen(cell.subject.truth, cell.model.scale)
        attack = _of_window(with_truth(cell.attack, truth), window.own(low).numel() / low.numel())
        job = Job(attack, part, cell.seed)

        def step(done: float, number: int = number) -> None:
            progress(share * (number + done) / len(windows))

        (found,) = attack_all(model, [job], memory=0, values=False, progress=step)
        levels = (inner(found.images, part, window.own_rows, window.own_columns)[0] * 255).round().to(torch.uint8)
        window.own(attacked).copy_(levels)
        window.own(unrounded).copy_(inner(found.unrounded, part, window.own_rows, window.own_columns))
        gradients = found.gradients
    sums = _Sums()
    pictures = _Pictures(cell, folder, outputs)
    rows = list(_rows(height, width, fit.window, fit.halo + math.ceil(_SSIM / cell.model.scale)))
    with pictures:
        for number, row in enumerate(rows):
            strips: tuple[list[Tensor], ...] = ([], [], [])
            for place, window in enumerate(row):
                shown = (window.own(attacked).permute(1, 2, 0), *_measured(cell, window, attacked, unrounded, sums))
                for strip, one in zip(strips, shown, strict=True):
                    strip.append(one)
                progress(share + (1 - share) * (number + (place + 1) / len(row)) / len(rows))
            pictures.add(*strips)
    record = _record(cell, sums, gradients, time.perf_counter() - began, fit)
    return record, pictures.files


@final
class _Pictures:
    """The files of the attacked image, and of clean and attacked outputs where these are wanted."""

    def __init__(self, cell: AttackCell, folder: Path, outputs: bool) -> None:
        scales = {"attacked": 1} | (dict.fromkeys(("sr-clean", "sr-attacked"), cell.model.scale) if outputs else {})
        self.files = {name: folder / f".{cell.key}.{name}.png" for name in scales}
        height, width = cell.subject.low.shape[-2:]
        self._writers = [PngWriter(self.files[name], scale * width, scale * height) for name, scale in scales.items()]

    def add(self, *strips: list[Tensor]) -> None:
        for writer, parts in zip(self._writers, strips, strict=False):
            writer.add(torch.cat(parts, dim=1).contiguous().numpy())

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        for writer in self._writers:
            writer.__exit__(*error)  # pyright: ignore[reportArgumentType]


@final
class _Sums:
    """Sums over windows, from which the figures of the whole image follow."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.ends: dict[str, tuple[float, float]] = {}
        self.largest = 0.0
        self.broken = self.broken_unrounded = False

    def add(self, name: str, values: float, count: int) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + values
        self.counts[name] = self.counts.get(name, 0) + count

    def error(self, name: str, a: Tensor, b: Tensor) -> None:
        self.add(name, float((a.double() - b.double()).square().sum()), a.numel())

    def features(self, name: str, phi: Tensor) -> None:
        self.add(name, float(phi.double().sum()), phi.numel())
        self.add(f"{name} squared", float(phi.double().square().sum()), phi.numel())
        low, high = self.ends.get(name, (math.inf, -math.inf))
        self.ends[name] = min(low, float(phi.min())), max(high, float(phi.max()))

    def mean(self, name: str) -> float | None:
        return self.sums[name] / self.counts[name] if self.counts.get(name) else None

    def psnr(self, name: str, peak: float, broken: bool) -> float | None:
        error = self.mean(name)
        if error is None:
            return BROKEN if broken else None
        if broken or not math.isfinite(error):
            return BROKEN
        return 10 * math.log10(peak**2 / error) if error > 0 else None


def _of_window(attack: Attack, share: float) -> Attack:
    ball = attack.aim()[1]
    return dataclasses.replace(attack, epsilon=attack.epsilon * share**0.5) if isinstance(ball, L2) else attack


def _rows(height: int, width: int, side: int, halo: int) -> Iterator[list[_Window]]:
    for rows, own_rows in spans(height, side, halo):
        yield [_Window(rows, columns, own_rows, own) for columns, own in spans(width, side, halo)]


def _measured(
    cell: AttackCell, window: _Window, attacked: Tensor, unrounded: Tensor, sums: _Sums
) -> tuple[Tensor, Tensor]:
    """Add the figures of a window to the sums, and return its outputs in 8 bits, ``(h, w, 3)``."""
    model, low = cell.model, cell.subject.low
    device, scale = device_of(model), model.scale
    clean, saved = window.seen(low), window.seen(attacked).float().div(255)[None]
    own = window.own_rows, window.own_columns
    before, output = passed(model, clean.to(device))
    after, moved = passed(model, saved.to(device))
    with torch.no_grad(), full_float32():
        loose = model(window.seen(unrounded).to(device)).cpu()
    sums.error("lr", inner(clean, clean, *own), inner(saved, clean, *own))
    sums.largest = max(sums.largest, float((inner(clean, clean, *own) - inner(saved, clean, *own)).abs().max()))
    sums.broken |= not bool(inner(moved, clean, *own).isfinite().all())
    sums.broken_unrounded |= not bool(inner(loose, clean, *own).isfinite().all())
    outputs = [inner(one, clean, *own).clamp(0, 1) for one in (output, moved, loose)]
    sums.error("sr", outputs[0], outputs[1])
    sums.error("sr unrounded", outputs[0], outputs[2])
    pairs = {"": (output, moved)}
    if cell.subject.truth is not None:
        truth = window.seen(cell.subject.truth, scale)
        pairs |= {"clean ": (output, truth), "attacked ": (moved, truth)}
    whole = [scale * side for side in low.shape[-2:]]
    for name, pair in pairs.items():
        if not all(bool(one.isfinite().all()) for one in pair):
            continue
        for measure, edge in (("y", scale), ("ssim", scale + _SSIM)):
            part = _clipped(window, scale, whole, edge, edge - scale)
            if part is None:
                continue
            a, b = (one[..., part[0], part[1]] for one in pair)
            if measure == "y":
                sums.error(f"{name}y", luma(a), luma(b))
            else:
                count = (a.shape[-2] - 2 * _SSIM) * (a.shape[-1] - 2 * _SSIM)
                sums.add(f"{name}ssim", float(ssim_y(a, b, 0)) * count, count)
    phi, phi_after = (inner(one, clean, *own) for one in (before, after))
    sums.features("phi", phi)
    sums.features("attacked phi", phi_after)
    sums.error("phi moved", phi_after, phi)
    return torch.from_numpy(to_uint8(outputs[0][0])), torch.from_numpy(to_uint8(outputs[1][0]))


def _clipped(window: _Window, scale: int, whole: list[int], edge: int, around: int) -> tuple[slice, slice] | None:
    """Return what of a window's output lies ``edge`` inside the whole, with so much ``around``; None if nothing."""
    found: list[slice] = []
    ends = ((window.rows, window.top, window.bottom), (window.columns, window.left, window.right))
    for (seen, first, last), length in zip(ends, whole, strict=True):
        begin, end = max(first * scale, edge), min(last * scale, length - edge)
        if begin >= end:
            return None
        found.append(slice(begin - around - seen.start * scale, end + around - seen.start * scale))
    return found[0], found[1]


def _record(cell: AttackCell, sums: _Sums, gradients: int, seconds: float, fit: Fit) -> AttackRecord:
    card, subject = cell.model.card, cell.subject
    assert card is not None
    spread = [_spread(sums, name) for name in ("phi", "attacked phi")]
    centred = (spread[0] or 0.0) * sums.counts["phi"] ** 0.5
    moved = sums.sums["phi moved"] ** 0.5 / max(centred, 1e-12)

    def ssim(name: str) -> float | None:
        return 0.0 if sums.broken and name != "clean ssim" else sums.mean(name)

    return AttackRecord(
        **about(cell, card, subject.name, subject.low[0], cell.seed),
        defends=cell.defends,
        attack=cell.label,
        configuration=described(cell.attack),
        epsilon=cell.attack.epsilon,
        clean_psnr_y=sums.psnr("clean y", 255, broken=False),
        clean_ssim_y=ssim("clean ssim"),
        attacked_psnr_y=sums.psnr("attacked y", 255, sums.broken) if subject.truth is not None else None,
        attacked_ssim_y=ssim("attacked ssim") if subject.truth is not None else None,
        lr_psnr=sums.psnr("lr", 1, broken=False),
        sr_psnr=sums.psnr("sr", 1, sums.broken),
        sr_psnr_unrounded=sums.psnr("sr unrounded", 1, sums.broken_unrounded),
        sr_psnr_y=sums.psnr("y", 255, sums.broken),
        sr_ssim=ssim("ssim"),
        linf=round(sums.largest * 255, 4),
        gradients=gradients,
        seconds=round(seconds, 3),
        dataset=subject.dataset,
        phi_mean=sums.mean("phi") or 0.0,
        phi_std=spread[0] or 0.0,
        phi_range=sums.ends["phi"][1] - sums.ends["phi"][0],
        attacked_phi_mean=_finite(sums.mean("attacked phi")),
        attacked_phi_std=spread[1],
        attacked_phi_range=_finite(sums.ends["attacked phi"][1] - sums.ends["attacked phi"][0]),
        phi_moved=_finite(moved),
        broken=sums.broken,
        window=fit.window,
    )


def _spread(sums: _Sums, name: str) -> float | None:
    mean, square = sums.mean(name), sums.mean(f"{name} squared")
    assert mean is not None
    assert square is not None
    return _finite(max(0.0, square - mean**2) ** 0.5)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _times(span: slice, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)
