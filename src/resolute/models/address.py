"""The one textual form of a model: ``FILE#x4,range=255``, wherever a model is named.

In front of ``#`` stands a built-in name, a weights file, ``FILE.py:NAME`` or a hub's address; behind it, with commas
between them, what the file does not tell: ``xN`` its scale, ``range=R`` or ``range=IN:OUT`` what white is to it,
``bgr`` its order of channels, ``weights=FILE`` for the code of FILE.py, ``layer=NAME`` its feature layer Φ,
``res_scale=NUMBER`` for EDSR, ``sha256=HEX``. Behind FILE.py any other ``NAME=VALUE`` is an argument of NAME.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import final

from resolute.errors import ConfigError, quoted

FORM = "FILE#x4,range=255"
CODE = "FILE.py:NAME#x4,range=255,weights=FILE.pth"

# What stands between commas; a comma inside of brackets or quotation marks is one of a value.
_OPTION = re.compile(r"""(?:\[[^\]]*\]|\([^)]*\)|'[^']*'|"[^"]*"|[^,])+""")
# Of a residual scale; float32 holds what a network makes of it.
_LARGEST = 1000
_WORDS = {"true": True, "false": False, "none": None}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """A model by name or file, and what is said about it.

    Attributes:
        target: built-in name, weights file, hub's address, or the FILE.py of ``FILE.py:NAME``.
        name: the NAME of ``FILE.py:NAME``; empty otherwise.
        scale: upscaling factor; None if not said.
        range: what white is to the network on its way in and on its way out; None if not said.
        bgr: whether the network takes and returns blue, green, red.
        weights: weights file for the code of FILE.py; empty if there is none.
        layer: name of the feature layer; empty to let it be found.
        res_scale: residual scale of EDSR; None if not said.
        sha256: that the file must have; empty if not said.
        arguments: of NAME.
    """

    target: str
    name: str = ""
    scale: int | None = None
    range: tuple[float, float] | None = None
    bgr: bool = False
    weights: str = ""
    layer: str = ""
    res_scale: float | None = None
    sha256: str = ""
    arguments: tuple[tuple[str, object], ...] = ()

    @property
    def code(self) -> bool:
        """Whether the model is built by Python code in a file."""
        return bool(self.name)

    def holding(self, weights: Path) -> Address:
        """Return the address of the same network with the weights of another file."""
        held = {"weights": str(weights)} if self.code else {"target": str(weights)}
        return dataclasses.replace(self, sha256="", **held)  # pyright: ignore[reportArgumentType]

    def __str__(self) -> str:
        """Return the address in its one form."""
        options = [f"x{self.scale}"] if self.scale is not None else []
        if self.range is not None:
            options.append(f"range={write_range(self.range)}")
        options += ["bgr"] if self.bgr else []
        options += [f"{name}={value}" for name, value in (("weights", self.weights), ("layer", self.layer)) if value]
        options += [f"res_scale={self.res_scale:g}"] if self.res_scale is not None else []
        options += [f"sha256={self.sha256}"] if self.sha256 else []
        options += [f"{name}={_written(value)}" for name, value in self.arguments]
        where = f"{self.target}:{self.name}" if self.name else self.target
        return f"{where}#{','.join(options)}" if options else where


def parse_address(text: str) -> Address:
    """Read an address.

    A file that exists under the whole text is that file, whatever its name looks like.

    Raises:
        ConfigError: an option is unknown, badly written or given twice.

    Example:
        >>> address = parse_address("nets/rlfn.py:RLFN#x4,range=255,weights=rlfn.pth,nf=48")
        >>> address.target, address.name, address.scale, address.range, address.arguments
        ('nets/rlfn.py', 'RLFN', 4, (255.0, 255.0), (('nf', 48),))
        >>> str(address)
        'nets/rlfn.py:RLFN#x4,range=255,weights=rlfn.pth,nf=48'
        >>> parse_address("carn.pth#x4").scale, parse_address("edsr-s").scale
        (4, None)
        >>> parse_address("edsr.pt#rnage=255")
        Traceback (most recent call last):
        ...
        resolute.errors.ConfigError: 'rnage=255' in 'edsr.pt#rnage=255' is no option of a file; as in FILE#x4,range=255
    """
    # What is too long for a name of a file is none.
    with contextlib.suppress(OSError):
        if Path(text).is_file():
            return Address(target=text)
    where, _, options = text.rpartition("#") if "#" in text else (text, "", "")
    match = re.fullmatch(r"(.+\.py):([A-Za-z_]\w*)", where)
    target, name = (match[1], match[2]) if match is not None else (where, "")
    found: dict[str, object] = {}
    arguments: dict[str, object] = {}
    for option in filter(None, map(str.strip, _OPTION.findall(options))):
        key, value = _option(option, text, code=bool(name))
        kept, key = (arguments, key[1:]) if key.startswith("=") else (found, key)
        if key in kept:
            raise ConfigError(f"{quoted(text)} says {key} twice")
        kept[key] = value
    return Address(target=target, name=name, arguments=tuple(arguments.items()), **found)  # pyright: ignore[reportArgumentType]


def complete(
    address: Address, *, scale: int | None = None, weights: str = "", range: str = "", arguments: Sequence[str] = ()
) -> Address:
    """Return the address with what was said beside it.

    Raises:
        ConfigError: the address says something else already, or an argument belongs to no code.

    Example:
        >>> str(complete(parse_address("net.py:Net"), scale=4, range="1:255", arguments=["nf=48"]))
        'net.py:Net#x4,range=1:255,nf=48'
    """
    said: dict[str, object] = {"scale": scale, "weights": weights, "range": parse_range(range) if range else None}
    for name, value in said.items():
        before = getattr(address, name)
        if value and before and value != before:
            raise ConfigError(
                f"{address} says scale {before}, and {value} is asked for beside it; leave one of the two out, or take "
                "models of one scale"
                if name == "scale"
                else f"{address} says {name} as well, and something else; leave one of the two out"
            )
    if arguments and not address.code:
        raise ConfigError(f"--argument is for code, as in {CODE}; {address.target} is none")
    if weights and not address.code:
        raise ConfigError(f"--weights is for code, as in {CODE}; {address.target} holds its own")
    more: dict[str, object] = {}
    for text in arguments:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--argument is NAME=VALUE, as nf=48, not {quoted(text)}")
        more[name] = read_value(value)
    return dataclasses.replace(
        address,
        arguments=tuple({**dict(address.arguments), **more}.items()),
        **{name: value for name, value in said.items() if value},  # pyright: ignore[reportArgumentType]
    )


def parse_range(text: str) -> tuple[float, float]:
    """Return what white is on the way in and on the way out.

    Raises:
        ConfigError: no positive number, nor two with a colon between them.

    Example:
        >>> parse_range("255"), parse_range("1:255")
        ((255.0, 255.0), (1.0, 255.0))
    """
    ends = text.split(":")
    try:
        numbers = [float(end) for end in ends]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or not all(0 < number < math.inf for number in numbers):
        raise ConfigError(f"a range is 255, or 1:255 where input and output differ, not {quoted(text)}")
    return numbers[0], numbers[-1]


def write_range(range: tuple[float, float]) -> str:
    """Return a range as it is typed.

    Example:
        >>> write_range((255.0, 255.0)), write_range((1.0, 255.0))
        ('255', '1:255')
    """
    first, last = range
    return f"{first:g}" if first == last else f"{first:g}:{last:g}"


def read_value(text: str) -> object:
    """Return a number, truth value, None, list or tuple of them, or else the text itself.

    Example:
        >>> [read_value(text) for text in ("48", "0.1", "True", "none", "pixelshuffle", "[1,2]")]
        [48, 0.1, True, None, 'pixelshuffle', [1, 2]]
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _written(value: object) -> str:
    if isinstance(value, str):
        return value if read_value(value) == value and not set(value) & set(",#+'\"()[]") else repr(value)
    return repr(value).replace(" ", "")


def _option(option: str, text: str, *, code: bool) -> tuple[str, object]:
    """Return name and value of an option; the name of an argument begins with ``=`` if an option has the same."""
    name, equals, value = option.partition("=")
    if not equals:
        if re.fullmatch(r"x[1-9]\d?", option):
            return "scale", int(option[1:])
        if option == "bgr":
            return "bgr", True
    match name:
        case "range" if equals:
            return "range", parse_range(value)
        case "weights" if equals and code:
            return "weights", value
        case "layer" if equals:
            return "layer", value
        case "sha256" if equals:
            if re.fullmatch("[0-9a-fA-F]{64}", value) is None:
                raise ConfigError(f"behind sha256= go 64 hexadecimal digits, not {quoted(value)}")
            return "sha256", value.lower()
        case "res_scale" if equals and not code:
            number = read_value(value)
            if not isinstance(number, float | int) or not abs(number) <= _LARGEST:
                raise ConfigError(f"res_scale is a number such as 0.1, not {quoted(value)}")
            return "res_scale", float(number)
        case _ if equals and code and name.isidentifier():
            return f"={name}", read_value(value)
        case _:
            form = f"code; as in {CODE}" if code else f"a file; as in {FORM}"
            raise ConfigError(f"{quoted(option)} in {quoted(text)} is no option of {form}")
