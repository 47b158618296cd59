"""Layers of a model by name, word or pattern."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import re
from collections.abc import Sequence

from torch import nn

from resolute.errors import CheckpointError, ConfigError
from resolute.models.base import Restorer

_WORDS: dict[str, tuple[type[nn.Module], ...]] = {
    "all-relu": (nn.ReLU, nn.LeakyReLU, nn.PReLU),
    "all-act": (
        nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    ),
    "all-conv": (nn.Conv2d, nn.ConvTranspose2d),
}  # fmt: skip


def find_layers(model: nn.Module, layers: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of submodules that are meant by names, words and patterns, each once; Φ where nothing is named.

    Words are ``phi``, the model's own feature layer; ``all-relu``, every ReLU, LeakyReLU and PReLU; ``all-act``, these
    and all other activations, such as GELU and SiLU; ``all-conv``, every convolution. Of words and patterns with ``|``
    between them the first one counts that finds anything. Patterns are those of ``fnmatch``, such as ``body.*.relu``,
    where ``*`` stands for dots as well. Names of a network inside a wrapper or a defence need no ``network.`` or
    ``inner.`` in front.

    What is a submodule counts: ``torch.nn.functional.relu`` in the code of a forward pass is none, and no word finds
    it. Blocks of CARN end in one, and all of MSRN's are.

    Raises:
        ConfigError: nothing is found for a name, word or pattern, or a plain module has no feature layer.

    Example:
        >>> from resolute.models import EDSR
        >>> model = EDSR(scale=2, blocks=2, channels=4)
        >>> find_layers(model, ["all-relu"])
        ('body.0.body.1', 'body.1.body.1')
        >>> find_layers(model, ["*.gelu|all-relu"]) == find_layers(model, ["all-relu"])
        True
        >>> find_layers(model), find_layers(model, ["phi", "head", "body.*.2"])
        (('long_skip',), ('long_skip', 'head', 'body.0.body.2', 'body.1.body.2'))
    """
    return tuple(dict.fromkeys(name for layer in layers or ("phi",) for name in _found(model, layer)))


def find_layer(model: nn.Module, layer: str = "") -> str:
    """Return the name of the one submodule that is meant, as ``find_layers`` does.

    Raises:
        ConfigError: none is found, or several are.
    """
    first, *others = find_layers(model, (layer,) if layer else ())
    if others:
        raise ConfigError(f"one layer is needed, and {layer!r} means {len(others) + 1}, such as {first}; name one")
    return first


def named_layer(model: nn.Module, name: str, called: str) -> str:
    """Return the full name of a layer that is called by its name in the model, or in the network that it wraps.

    Raises:
        CheckpointError: there is none; ``called`` is the model in its words.
    """
    names = [one for one, _ in model.named_modules() if one]
    found = next((one for one in (name, f"network.{name}") if one in names), None)
    if found is None:
        own = [re.sub(_AROUND, "", one) for one in names if one not in ("network", "output")]
        raise CheckpointError(f"{called} has no layer {name!r}; it has {_near(name, own)}")
    return found


def _found(model: nn.Module, layer: str) -> list[str]:
    modules = {name: module for name, module in model.named_modules() if name}
    if layer in modules:
        return [layer]
    if "|" in layer:
        *first, last = layer.split("|")
        for one in first:
            with contextlib.suppress(ConfigError):
                return _found(model, one)
        return _found(model, last)
    if layer == "phi":
        if isinstance(model, Restorer):
            return [model.feature_layer]
        raise ConfigError("this model declares no feature layer: name one or more with layers=(...)")
    if layer in _WORDS:
        found = [name for name, module in modules.items() if isinstance(module, _WORDS[layer])]
    else:
        found = [name for name in modules if layer and fnmatch.fnmatchcase(re.sub(_AROUND, "", name), layer)]
        found = found or [name for name in modules if fnmatch.fnmatchcase(name, layer)]
    if not found:
        raise ConfigError(f"no layer named {layer!r}; this model has {_near(layer, list(modules))}")
    return found


# What wrappers and defences put before the names of the network inside.
_AROUND = r"^((inner|network)\.)+"


def _near(layer: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(layer, names, n=6, cutoff=0.5) or names[:12]
    rest = len(names) - len(near)
    return f"{', '.join(near)}{f' and {rest} more' if rest else ''}"
