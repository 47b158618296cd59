"""What names of image files and folders say in releases of data sets: high or low resolution, and of which scale."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

Role = Literal["high", "low", ""]

_HIGH = r"hr|gt(?:mod\d+)?|highres|high|original|orig|groundtruth"
_LOW = r"lr(?:bic?|bd|dn)?|lowres|low"
# The first may be how an image was shrunk or how it was enlarged.
_NEUTRAL = r"bicubic|bic|jpe?g|png|unknown|mild|difficult|wild"
_SCALE = r"srf[_-]?(\d)|x[_-]?(\d)[mdw]?\d?|(\d)x"

# Marks stand at the end with something before them, at the beginning with something behind them, or alone.
_WORD = rf"(?P<high>{_HIGH})|(?P<low>{_LOW})|(?P<neutral>{_NEUTRAL})|(?P<scale>{_SCALE})"
_AT_END = re.compile(rf"(?:^|[ _.-]+)(?:{_WORD})$", re.IGNORECASE)
_AT_START = re.compile(rf"^(?:{_WORD})[ _.-]+", re.IGNORECASE)

# Without anything between: 0801x4, babyHR.
_GLUED = re.compile(
    r"(?<=[A-Za-z0-9])(?:(?P<high>(?<![A-Z])(?:HR|GT))|(?P<low>(?<![A-Z])LR)|(?P<scale>x(\d)[mdw]?\d?))$"
)


@dataclasses.dataclass(frozen=True)
class Marks:
    """What a name says.

    Attributes:
        rest: the name without its marks.
        role: ``high`` or ``low`` resolution; empty where no word says so.
        scale: 0 where none is said.
    """

    rest: str
    role: Role = ""
    scale: int = 0


def marks_of(name: str) -> Marks:
    """Return what the name of a file, without its suffix, or of a folder says.

    Example:
        >>> marks_of("img_001_SRF_4_LR"), marks_of("baby_HR_x4").role, marks_of("0801x4").scale
        (Marks(rest='img_001', role='low', scale=4), 'high', 4)
        >>> marks_of("DIV2K_valid_LR_bicubic").role, marks_of("lighthouse")
        ('low', Marks(rest='lighthouse', role='', scale=0))
    """
    rest, role, scale = name, "", 0
    while found := _AT_END.search(rest) or _AT_START.search(rest) or _GLUED.search(rest):
        groups = found.groupdict()
        role = role or ("high" if groups["high"] else "low" if groups["low"] else "")
        if groups["scale"] and not scale:
            scale = int(re.sub(r"\D+(\d).*|(\d)x", r"\1\2", groups["scale"].lower()))
        rest = rest[: found.start()] + rest[found.end() :]
    return Marks(rest, "high" if role == "high" else "low" if role == "low" else "", scale)


def marks_of_file(path: Path) -> Marks:
    """Return what the name of a file says, and where it says nothing the folders around it, as in ``LR/X4``.

    Example:
        >>> marks_of_file(Path("Set5/LR_bicubic/X4/babyx4.png"))
        Marks(rest='baby', role='low', scale=4)
    """
    own, parent = marks_of(path.stem), marks_of(path.parent.name)
    # Above a folder of one scale alone another one says the rest.
    around = parent if parent.role or not parent.scale else marks_of(path.parent.parent.name)
    rest = own.rest or parent.rest or around.rest or path.stem
    return Marks(rest, own.role or around.role, own.scale or parent.scale or around.scale)
