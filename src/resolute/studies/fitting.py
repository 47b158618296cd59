"""How an attack on a large image is made to fit into memory: whole, through tiles, or window by window."""

from __future__ import annotations

import dataclasses
import warnings
from typing import final

from torch import Tensor

from resolute.attacks.ascent import Attack
from resolute.attacks.need import SIDE, Need, need_of
from resolute.attacks.targeted import with_truth
from resolute.attacks.transfer import Transfer, WarmStart
from resolute.defences import surrogate, undefended
from resolute.errors import ConfigError, ImageNote
from resolute.models.base import Restorer, device_of
from resolute.models.tiling import radius_of, spans
from resolute.studies.attacked import AttackCell

TILES = (512, 256, 128, 64, 32, 16)

# On a CPU one step in a larger one would last so long that progress seems to stand still.
_LARGEST_ON_CPU = 256

# Around the windows of a model that looks at the whole image, in pixels.
NEAR = 32

# Bytes and seconds a pixel of an output: measuring compares three outputs in double precision, and takes SSIM.
_MEASURING = 300
_MEASURING_SECONDS = 1e-6

# Bytes a pixel that are in memory for an image that is attacked in windows: the attacked one before rounding and as
# saved, and what is made of it on the way.
_STATE = 30

# Of the passes through the model, for an image: forwards and backwards of a gradient in a tile, and of what is
# measured, both in units of a plain gradient.
_AGAIN, _MEASURED = 1.5, 2.5

_told = set[tuple[str, str]]()


@final
@dataclasses.dataclass(frozen=True)
class Fit:
    """How an image is attacked.

    Attributes:
        memory: bytes that it takes, estimated.
        seconds: that it takes, estimated.
        tile: side of the tiles that the model works in, with the same result; 0 for whole images.
        window: side of the windows that are attacked one by one; 0 where the image is attacked as a whole.
        halo: what the windows see around them, in pixels.
        exact: whether a window sees all that its output depends on.
    """

    memory: float
    seconds: float
    tile: int = 0
    window: int = 0
    halo: int = 0
    exact: bool = True


def fit(cell: AttackCell, model: Restorer, need: Need | None, room: float, outputs: bool) -> Fit:
    """Return how the image of a cell is attacked within ``room`` bytes: the exact way that needs least time.

    Args:
        cell: one image, one attack.
        model: that of the cell, where it will be attacked.
        need: of the attack; None where it cannot be told, and the image is attacked as a whole.
        room: bytes.
        outputs: whether outputs are kept as pictures.

    Raises:
        ConfigError: there is no way; the text says how much it takes.
    """
    height, width = cell.subject.low.shape[-2:]
    pixels = height * width
    if need is None:
        return Fit(0.0, 0.0)
    on_cpu = device_of(model).type == "cpu"
    measuring = _MEASURING * model.scale**2 if on_cpu else 0
    seconds = pixels * need.seconds * (need.gradients + 1)
    whole = pixels * max(need.bytes, measuring)
    if whole <= room:
        return Fit(whole, seconds)
    hindrance = whole_only(cell.attack)
    tiled = pixels * max(need.images, measuring)
    if tiled < room and in_tiles(cell.attack, model):
        radius = radius_of(model)
        for tile in TILES if radius is not None else ():
            taken = tiled + need.kept * min(pixels, _area(tile, radius or 0))
            if taken <= room and tile < max(height, width):
                return Fit(taken, seconds * _AGAIN * _excess(height, width, tile, radius or 0), tile=tile)
    if hindrance:
        raise ConfigError(f"{cell.title} takes about {gigabytes(whole)}, more than --memory leaves; {hindrance}")
    radius = radius_of(model)
    halo = NEAR if radius is None else radius
    least = whole
    for window in TILES:
        if window > _LARGEST_ON_CPU and on_cpu:
            continue
        strip = 6 * width * window * model.scale**2 if outputs else 0
        host = pixels * _STATE + strip if on_cpu else 0
        taken = host + max(need.bytes, measuring) * min(pixels, _area(window, halo))
        least = min(least, taken)
        if taken <= room:
            passes = need.seconds * (need.gradients + _MEASURED) + _MEASURING_SECONDS * model.scale**2
            seconds = pixels * _excess(height, width, window, halo) * passes
            return Fit(taken, seconds, window=window, halo=halo, exact=radius is not None)
    lacking = least - room
    raise ConfigError(
        f"{cell.subject.name} of {width} x {height} pixels takes at least {gigabytes(least)} even in windows of "
        f"{TILES[-1]}, and --memory leaves {gigabytes(max(room, 0))}; give it {gigabytes(lacking)} more, or a smaller "
        "image"
    )


def tell(cell: AttackCell, model: Restorer, found: Fit) -> None:
    """Say once of a model and an image how it is attacked, and what that takes, where it is not attacked whole."""
    assert model.card is not None
    key = (cell.subject.pixels, model.card.name)
    if key in _told or not (found.tile or found.window):
        return
    _told.add(key)
    height, width = cell.subject.low.shape[-2:]
    way = f"through tiles of {found.tile}" if found.tile else f"in windows of {found.window}, each by itself,"
    about = "" if found.exact else "; the model looks at the whole image, which windows only approximate"
    warnings.warn(
        f"{cell.subject.name} of {width} x {height} pixels is attacked {way} on {model.card.name}, which takes about "
        f"{gigabytes(found.memory)} and {_minutes(found.seconds)} an attack{about}",
        ImageNote,
        stacklevel=2,
    )


def whole_only(attack: Attack) -> str:
    """Return why an attack cannot be made window by window; empty where it can."""
    for part in _parts(attack):
        if callable(getattr(part, "mask", None)):
            return "a region is one of the whole image; give more --memory or a smaller image"
        if type(part).__name__ in ("Picture", "Given", "OutputOf"):
            return "its objective is about a whole picture; give more --memory or a smaller image"
    return ""


def in_tiles(attack: Attack, model: Restorer) -> bool:
    """Return whether the model can work in tiles under this attack, which reach no layer inside it but Φ."""
    inside = any(getattr(part, "layers", ()) or getattr(part, "layer", "") for part in _parts(attack))
    return undefended(model) is model and not inside and not isinstance(attack, Transfer | WarmStart)


def gigabytes(size: float) -> str:
    """Return a number of bytes as people say it.

    Example:
        >>> gigabytes(2.5e9), gigabytes(3e6)
        ('2.5 GB', '3 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 5e8 else f"{size / 1e6:.0f} MB"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def tried(cell: AttackCell, model: Restorer) -> Need | None:
    """Return what the attack of a cell takes a pixel; None where it fails, as the attack itself will tell better."""
    low, truth, scale = cell.subject.low, cell.subject.truth, model.scale
    part = low[..., :SIDE, :SIDE].to(device_of(model))
    truth = None if truth is None else truth[..., : part.shape[-2] * scale, : part.shape[-1] * scale]
    try:
        return need_of(surrogate(model), with_truth(cell.attack, truth), part, scale)
    except Exception:  # Networks and attacks of others fail in any way.
        return None


def require_room(model: Restorer, attack: Attack, low: Tensor, room: float) -> None:
    """Refuse an image that is attacked whole and takes more than ``room`` bytes.

    Raises:
        ConfigError: it does.
    """
    taken = need_of(model, attack, low[..., :SIDE, :SIDE], model.scale).bytes * low.shape[-2] * low.shape[-1]
    if taken > room:
        raise ConfigError(
            f"an image of {low.shape[-1]} x {low.shape[-2]} pixels takes about {gigabytes(taken)}, and --memory leaves "
            f"{gigabytes(max(room, 0))}; give it {gigabytes(taken - room)} more"
        )


def _area(side: int, halo: int) -> int:
    around = next(iter(spans(3 * side + 10**4, side, halo)))[0].stop - side
    return (side + 2 * around) ** 2


def _excess(height: int, width: int, side: int, halo: int) -> float:
    """Return how many pixels the tiles of an image see, relative to its own."""
    seen = [sum(into.stop - into.start for into, _ in spans(length, side, halo)) for length in (height, width)]
    return seen[0] * seen[1] / (height * width)


def _parts(value: object) -> list[object]:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return [value]
    inside = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [value, *(part for one in inside if not isinstance(one, Tensor) for part in _parts(one))]
