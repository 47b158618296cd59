"""An image too large for memory: attacked tile by tile, each as an image of its own, and then measured as a whole."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from torch import Tensor

from resolute.attacks.ascent import Ascent, Attack, GradientAttack
from resolute.attacks.ball import L2
from resolute.attacks.batch import PIXELS, Job, attack_all, footprint
from resolute.attacks.objective import OutputShift
from resolute.attacks.targeted import Given, OutputOf, Picture, with_truth
from resolute.defences import surrogate
from resolute.errors import ConfigError
from resolute.measure.fidelity import luma, ssim_y
from resolute.models.base import Restorer
from resolute.models.receptive import BLOCK, receptive_radius
from resolute.models.tiling import spans
from resolute.of_file import described
from resolute.runtime import full_float32, give_back
from resolute.studies.attacked import BROKEN, AttackCell, AttackRecord, coins, moved_at_random, passed
from resolute.studies.study import Answer, about

Box = tuple[slice, slice]

# Sides of tiles. A gradient is tried on a part of the image as large as the smallest; larger ones gain no time.
SMALLEST, LARGEST = 64, 512

# Of the memory that is left, the share that tiles fill: what the allocator and threads take beyond them over a long run
# is a tenth.
_FILLED = 0.8

# What a tile sees around it where the model looks at the whole image.
NEAR = 32

# Bytes a pixel, measured: copies of the input and of the output while a gradient is taken, and of the output while it
# is measured.
_INPUT, _OUTPUT, _MEASURED = 120, 108, 400

# Bytes a pixel of an image that is attacked in tiles, and of two outputs that are kept of it: during the attack, and
# while they are written.
_HELD, _WRITTEN = (18, 24), (45, 64)

# Measuring takes as long as so many gradients, and so many seconds for a pixel of the output.
_PASSES, _SECONDS = 3, 1e-6

# Half of the window of SSIM, in pixels of the output.
_SSIM = 5

# Of the progress, the share that is the search.
_SEARCH = 0.7


@final
@dataclasses.dataclass(frozen=True)
class Fit:
    """How an image is attacked within the memory that there is.

    Attributes:
        batch: bytes that a batch of whole images may take; None for as many as gain time.
        tile: side of the tiles; 0 where the image is attacked as a whole.
        halo: pixels that a tile sees around it.
        outputs: there is room to keep the outputs as pictures.
        words: what is to be said to a person; empty where the image is attacked as a whole.
    """

    batch: int | None = None
    tile: int = 0
    halo: int = 0
    outputs: bool = True
    words: str = ""


def fit(cell: AttackCell, model: Restorer, room: float) -> Fit:
    """Try a gradient on a small part of an image, and return how all of it is attacked within ``room`` bytes.

    Args:
        cell: one image, one attack.
        model: that of the cell, where it is attacked.
        room: bytes that may be taken beyond those in use.

    Raises:
        ConfigError: even the smallest tiles take more, or the attack is about the whole image.
    """
    height, width = cell.subject.low.shape[-2:]
    pixels, large = height * width, model.scale**2
    if pixels <= SMALLEST**2 or room == math.inf:
        return Fit()
    try:
        trial, gradients = _trial(cell, model)
        kept = trial()
    except Exception:  # Networks and attacks of others fail in any way, which the attack itself will tell better.
        return Fit()
    each = max(kept + _INPUT + _OUTPUT * large, _MEASURED * large)
    if pixels * each <= room:
        alone = each * max(pixels, PIXELS) <= room and _device(model).type == "cpu"
        return Fit(batch=None if alone else int(room))
    name = f"{cell.subject.name} of {width} x {height} pixels"
    if _about_all(cell.attack):
        raise ConfigError(
            f"{name} takes about {_size(pixels * each)}, --memory leaves {_size(room)}, and an attack on a region or "
            "towards a picture cannot be made in tiles; give it more, or a smaller image"
        )
    radius = receptive_radius(model, like=next(model.parameters(), None))
    halo = BLOCK * math.ceil((NEAR if radius is None else max(1, radius)) / BLOCK)

    def least(outputs: bool, side: int = SMALLEST) -> float:
        held, written = (pixels * (image + large * output * outputs) for image, output in (_HELD, _WRITTEN))
        return max(held + each * (side + 2 * halo) ** 2, written)

    if least(False) > room:
        raise ConfigError(
            f"{name} takes at least {_size(least(False))} even in tiles of {SMALLEST}, and --memory leaves "
            f"{_size(room)}; give it {_size(least(False) - room)} more, or a smaller image"
        )
    # Smaller tiles see more of their surroundings than of the image, and cost many times as much.
    outputs = least(True, max(SMALLEST, 2 * halo)) <= room
    filled = max(least(outputs), _FILLED * room)
    side = max(side for side in range(SMALLEST, LARGEST + 1, BLOCK) if least(outputs, side) <= filled)
    seen = math.prod(sum(into.stop - into.start for into, _ in spans(length, side, halo)) for length in (height, width))
    # Only now, since the first gradient takes many times as long; it is three passes through the model, a trial two.
    # Of the processor's time, since threads that wait for one another on a busy machine would make days of an hour.
    began = time.process_time()
    trial()
    seconds = 1.5 * (time.process_time() - began) / torch.get_num_threads() / min(SMALLEST**2, pixels)
    seconds = seen * (seconds * (gradients + _PASSES) + _SECONDS * large)
    assert cell.model.card is not None
    words = (
        f"{name} is attacked in tiles of {side} on {cell.model.card.name}, which takes about "
        f"{_size(least(outputs, side))} more"
    )
    # Where the processor only waits for a device its time tells nothing.
    words += f" and {math.ceil(seconds / 60)} min an attack" if _device(model).type == "cpu" else ""
    words += "; the model looks at the whole image, which tiles only approximate" if radius is None else ""
    return Fit(None, side, halo, outputs, words if outputs else f"{words}; its outputs are too large to be kept")


def attack_in_tiles(
    cell: AttackCell, model: Restorer, how: Fit, progress: Callable[[float], None], outputs: bool = False
) -> Answer:
    """Attack every tile of an image with what surrounds it, keep its inside, and measure what came of the whole.

    What is found lies in the budget of the whole image: that of l2 is shared out by area. The figures are of the
    attacked image as saved; SSIM counts a few pixels beside seams twice.

    Args:
        cell: one image, one attack.
        model: that of the cell, where it is to run.
        how: tiles and halo.
        progress: called with the share that is done.
        outputs: keep clean and attacked outputs as pictures too, where there is room.
    """
    began = time.perf_counter()
    low, truth, scale = cell.subject.low, cell.subject.truth, model.scale
    whole: Box = (slice(0, low.shape[-2]), slice(0, low.shape[-1]))
    tiles = list(_tiles(whole, how))
    attacked, unrounded, gradients = torch.empty_like(low, dtype=torch.uint8), torch.empty_like(low), 0
    for number, tile in enumerate(tiles):
        part = _cut(low, tile.seen, whole).to(_device(model))
        attack = with_truth(cell.attack, None if truth is None else _cut(truth, tile.seen, whole))
        job = Job(_of_part(attack, _area(tile.own) / _area(whole)), part, cell.seed)

        def step(share: float, number: int = number) -> None:
            progress((number + share) / len(tiles) * _SEARCH)

        (found,) = attack_all(surrogate(model), [job], memory=0, values=False, progress=step)
        _cut(attacked, tile.own, whole).copy_((_cut(found.images, tile.own, tile.seen) * 255).round())
        _cut(unrounded, tile.own, whole).copy_(_cut(found.unrounded, tile.own, tile.seen))
        gradients = found.gradients
        # Tiles at edges have sizes of their own, between which the heap would grow to twice what they take.
        give_back()
    kept = ("sr-clean", "sr-attacked") if outputs and how.outputs else ()
    pictures = {name: torch.empty(3, scale * low.shape[-2], scale * low.shape[-1]) for name in kept}
    sums, signs = _Sums(), coins(cell)[None]
    for number, tile in enumerate(tiles):
        images = [_cut(image, tile.seen, whole) for image in (low, attacked, unrounded, signs)]
        shown = _measure(cell, model, tile, whole, images, sums)
        for picture, output in zip(pictures.values(), shown, strict=False):
            _cut(picture, tile.own, whole).copy_(output[0])
        give_back()
        progress(_SEARCH + (1 - _SEARCH) * (number + 1) / len(tiles))
    record = _record(cell, sums, gradients, time.perf_counter() - began, how)
    return Answer(record, {"attacked": attacked[0].float().div_(255), **pictures})


class _Tile(NamedTuple):
    """What a tile sees of an image, and what is its own."""

    seen: Box
    own: Box


def _tiles(whole: Box, how: Fit) -> list[_Tile]:
    sides = [
        [
            (into, slice(into.start + own.start, into.start + own.stop))
            for into, own in spans(end.stop, how.tile, how.halo)
        ]
        for end in whole
    ]
    return [_Tile((rows, columns), (own, own_columns)) for rows, own in sides[0] for columns, own_columns in sides[1]]


def _cut(image: Tensor, box: Box, of: Box) -> Tensor:
    """Return what came of a box, of what came of the one around it, at any resolution."""
    rows, columns = (
        slice(
            (inner.start - outer.start) * length // (outer.stop - outer.start),
            (inner.stop - outer.start) * length // (outer.stop - outer.start),
        )
        for inner, outer, length in zip(box, of, image.shape[-2:], strict=True)
    )
    return image[..., rows, columns]


def _area(box: Box) -> int:
    return (box[0].stop - box[0].start) * (box[1].stop - box[1].start)


def _shaved(box: Box, whole: Box, beyond: int = 0) -> Box:
    """Return a box, and what is so far beyond it, less the outermost pixels of the whole: ``scale`` of the output."""
    rows, columns = (
        slice(start := max(one.start - beyond, 1), max(start, min(one.stop + beyond, end.stop - 1)))
        for one, end in zip(box, whole, strict=True)
    )
    return rows, columns


def _of_part(attack: Attack, share: float) -> Attack:
    """Return the attack with the budget of a part of the image, and so those inside it."""
    if not isinstance(attack.aim()[1], L2):
        return attack

    def smaller(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(smaller, value))
        return _of_part(value, share) if isinstance(value, Attack) else value

    own = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}
    inside = {name: smaller(value) for name, value in own.items() if isinstance(value, Attack | tuple)}
    return dataclasses.replace(attack, epsilon=attack.epsilon * share**0.5, **inside)


def _device(model: Restorer) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e8 else f"{max(size, 0) / 1e6:.0f} MB"


def _trial(cell: AttackCell, model: Restorer) -> tuple[Callable[[], float], int]:
    """Return what tries a gradient on a part of the image, for its bytes a pixel, and how many the attack takes."""
    whole: Box = (slice(0, cell.subject.low.shape[-2]), slice(0, cell.subject.low.shape[-1]))
    corner: Box = (slice(0, min(SMALLEST, whole[0].stop)), slice(0, min(SMALLEST, whole[1].stop)))
    part, truth = _cut(cell.subject.low, corner, whole).to(_device(model)), cell.subject.truth
    attack = with_truth(cell.attack, None if truth is None else _cut(truth, corner, whole))
    if isinstance(attack, GradientAttack):
        plan = attack.ascent()
        gradients = plan.steps * plan.restarts
    else:
        objective, ball = attack.aim()
        plan = Ascent(objective=objective, ball=ball, steps=1, step_size=ball.epsilon, start="uniform")
        gradients = int(getattr(attack, "queries", 1))
    if _about_all(attack):  # which a part has nothing of
        plan = dataclasses.replace(plan, objective=OutputShift(), start="tiny")
    return lambda: footprint(surrogate(model), plan, part) / _area(corner), gradients


def _about_all(part: object) -> bool:
    """Tell whether an attack, or a part of it, is about an image as a whole: a region of it, or a given picture."""
    if callable(getattr(part, "mask", None)) or isinstance(part, Given | OutputOf | Picture):
        return True
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return False
    return any(_about_all(getattr(part, field.name)) for field in dataclasses.fields(part))


@final
class _Sums:
    """Sums over tiles, from which the figures of the whole image follow."""

    def __init__(self) -> None:
        self.sums = defaultdict[str, float](float)
        self.counts = defaultdict[str, int](int)
        self.ends = defaultdict[str, tuple[float, float]](lambda: (math.inf, -math.inf))

    def add(self, name: str, value: float, count: int) -> None:
        self.sums[name] += value
        self.counts[name] += count

    def error(self, name: str, a: Tensor, b: Tensor) -> None:
        self.add(name, float((a.double() - b.double()).square().sum()), a.numel())

    def values(self, name: str, values: Tensor) -> None:
        self.add(name, float(values.double().sum()), values.numel())
        self.add(f"{name} squared", float(values.double().square().sum()), values.numel())
        low, high = self.ends[name]
        self.ends[name] = min(low, float(values.min())), max(high, float(values.max()))

    def likeness(self, name: str, a: Tensor, b: Tensor) -> None:
        if min(a.shape[-2:]) >= 11:
            count = (a.shape[-2] - 10) * (a.shape[-1] - 10)
            self.add(f"{name} ssim", float(ssim_y(a, b, 0)) * count, count)

    def mean(self, name: str) -> float | None:
        return self.sums[name] / self.counts[name] if self.counts[name] else None

    def deviation(self, name: str) -> float:
        square, mean = self.mean(f"{name} squared") or 0.0, self.mean(name) or 0.0
        return max(square - mean**2, 0.0) ** 0.5  # NaN stays NaN

    def range(self, name: str) -> float:
        return self.ends[name][1] - self.ends[name][0]

    def psnr(self, name: str, peak: float = 1.0) -> float | None:
        error = self.mean(name)
        if not error:  # nothing was measured, or the images are equal
            return None
        return 10 * math.log10(peak**2 / error) if math.isfinite(error) else BROKEN

    def ssim(self, name: str) -> float | None:
        value = self.mean(f"{name} ssim")
        return value if value is None or math.isfinite(value) else 0.0


def _measure(
    cell: AttackCell, model: Restorer, tile: _Tile, whole: Box, images: list[Tensor], sums: _Sums
) -> tuple[Tensor, Tensor]:
    """Add the figures of a tile to the sums, and return its clean and its attacked output."""
    clean, levels, unrounded, signs = images
    saved, device, scale = levels.float().div(255), _device(model), model.scale
    random = moved_at_random(_of_part(cell.attack, _area(tile.seen) / _area(whole)), clean, signs)
    (phi, before), (phi_after, after) = (passed(model, one.to(device)) for one in (clean, saved))
    with torch.no_grad(), full_float32():
        loose, floor = (model(one.to(device)).cpu() for one in (unrounded, random))
    # An infinite value would be clamped, and broken is broken.
    before, after, loose, floor = (one.where(one.isfinite(), torch.nan) for one in (before, after, loose, floor))

    def own(image: Tensor) -> Tensor:
        return _cut(image, tile.own, tile.seen)

    def compare(name: str, a: Tensor, b: Tensor) -> None:
        parts = [_cut(one, _shaved(tile.own, whole), tile.seen) for one in (a, b)]
        sums.error(f"{name} y", *map(luma, parts))
        # The windows of SSIM that are centred on the tile's own pixels, and a few more.
        beyond = math.ceil(_SSIM / scale)
        sums.likeness(name, *(_cut(one, _shaved(tile.own, whole, beyond), tile.seen) for one in (a, b)))

    sums.values("phi", own(phi))
    sums.values("attacked phi", own(phi_after))
    sums.error("phi moved", own(phi), own(phi_after))
    sums.values("change", own(saved) - own(clean))
    shown, attacked, unsaved, at_random = (own(one).clamp(0, 1) for one in (before, after, loose, floor))
    sums.error("lr", own(clean), own(saved))
    for name, output in (("sr", attacked), ("unrounded", unsaved), ("signs", at_random)):
        sums.error(name, shown, output)
    compare("sr", before, after)
    if cell.subject.truth is not None:
        truth = _cut(cell.subject.truth, tile.seen, whole)
        for name, output in (("clean", before), ("attacked", after), ("signs", floor)):
            compare(name, output, truth)
    return shown, attacked


def _record(cell: AttackCell, sums: _Sums, gradients: int, seconds: float, how: Fit) -> AttackRecord:
    subject, card = cell.subject, cell.model.card
    assert card is not None

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return AttackRecord(
        **about(cell, card, subject.name, subject.low[0], cell.seed),
        defends=cell.defends,
        attack=cell.label,
        configuration=described(cell.attack),
        epsilon=cell.attack.epsilon,
        clean_psnr_y=sums.psnr("clean y", 255),
        clean_ssim_y=sums.ssim("clean"),
        attacked_psnr_y=sums.psnr("attacked y", 255),
        attacked_ssim_y=sums.ssim("attacked"),
        lr_psnr=sums.psnr("lr"),
        sr_psnr=sums.psnr("sr"),
        sr_psnr_unrounded=sums.psnr("unrounded"),
        sr_psnr_y=sums.psnr("sr y", 255),
        sr_ssim=sums.ssim("sr"),
        linf=round(max(map(abs, sums.ends["change"])) * 255, 4),
        gradients=gradients,
        seconds=round(seconds, 3),
        dataset=subject.dataset,
        phi_mean=sums.mean("phi") or 0.0,
        phi_std=sums.deviation("phi"),
        phi_range=sums.range("phi"),
        attacked_phi_mean=finite(sums.mean("attacked phi") or 0.0),
        attacked_phi_std=finite(sums.deviation("attacked phi")),
        attacked_phi_range=finite(sums.range("attacked phi")),
        phi_moved=finite(sums.sums["phi moved"] ** 0.5 / max(sums.deviation("phi") * sums.counts["phi"] ** 0.5, 1e-12)),
        signs_sr_psnr=sums.psnr("signs"),
        signs_psnr_y=sums.psnr("signs y", 255),
        broken=not math.isfinite(sums.sums["sr"]),
        tile=how.tile,
    )
