"""Which tensors in a file are the network: nested dictionaries, wrappers, averages, several networks in one."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast, final

from torch import Tensor

from resolute.errors import CheckpointError, ModelWarning

State = dict[str, Tensor]

# Words in the names of averaged weights.
_AVERAGED = {"ema", "swa", "shadow", "avg", "average", "averaged", "averages"}

# What is commonly called the network that counts, or all of them, the most specific first.
_KNOWN = (
    *("params", "model_state_dict", "state_dict", "generator", "netg", "net_g", "model_g", "g", "gen", "student"),
    *("model", "module", "net", "network", "weights", "best"),
)

# Words in the names of what stands beside it, and of weights that are not averaged yet.
_BESIDE = {
    *("discriminator", "disc", "critic", "netd", "d", "teacher", "loss", "criterion", "vgg", "lpips", "perceptual"),
    *("initial", "previous"),
}
_CURRENT = {"online", "current"}
_SKIPPED = re.compile(r"optim|(lr_?)?sched|grad_?scaler", re.IGNORECASE)

# What torch.compile, several devices, sharding and checkpointing put into names.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_DEPTH = 8


@final
@dataclasses.dataclass(frozen=True, eq=False)
class WeightSet:
    """A mapping from names to tensors in a file.

    Attributes:
        route: the keys that lead to it.
        state: the tensors, by their names in the file.
        rest: the keys that lead to the set that has what this one lacks, as averages do without buffers.
    """

    route: tuple[str, ...]
    state: State
    rest: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """What it is called in what people read."""
        label = printable(".".join(self.route)) or "the top level"
        return label if self.rest is None else f"{label}, and what it lacks from {WeightSet(self.rest, {}).label}"


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """Weights by the names that they may have in their network.

    Attributes:
        state: the weights.
        keys: the names of them in their set.
        source: the set.
        prefix: what stands before the names of this network in the set, where that holds several; empty otherwise.
        left: what stands before the names of others in the set.
        sure: whether the part has a name that networks are known to have.
    """

    state: State
    keys: dict[str, str]
    source: WeightSet
    prefix: str = ""
    left: tuple[str, ...] = ()
    sure: bool = True

    @property
    def beside(self) -> bool:
        """Whether it is called as a network is that stands beside the one that counts."""
        return bool(_words([*self.source.route, self.prefix]) & _BESIDE)

    def words(self, sets: Sequence[WeightSet]) -> str:
        """Return what was taken and what was left out; empty where there was no choice."""
        left = [f"{printable(prefix)}*" for prefix in self.left]
        routes = (self.source.route, self.source.rest)
        left += [other.label for other in sets if other.route not in routes and _counts(other.state)]
        if not left and self.source.rest is None:
            return ""
        taken = printable(".".join([*self.source.route, f"{self.prefix}*"])) if self.prefix else self.source.label
        return f"{taken}; left out: {', '.join(left[:4])}{' ...' if len(left) > 4 else ''}" if left else taken


def find_sets(content: object, file: str) -> list[WeightSet]:
    """Return all sets of weights in a checkpoint, the averaged first and those that stand beside the network last.

    Raises:
        CheckpointError: it holds none.

    Example:
        >>> import torch
        >>> weights = {"a.weight": torch.zeros(2)}
        >>> sets = find_sets({"epoch": 3, "model": weights, "ema": {"shadow": dict(weights)}}, "x.pt")
        >>> [one.label for one in sets]
        ['ema.shadow', 'model']
    """
    found = sorted(_nested(content, (), set()), key=lambda one: _rank(one.route))
    if not found:
        held = cast("dict[object, object]", content) if isinstance(content, dict) else {}
        shown = ", ".join(f"{str(key)[:40]} ({type(value).__name__})" for key, value in list(held.items())[:5])
        raise CheckpointError(
            f"{file} holds no state_dict: expected a mapping from names to tensors, found "
            f"{shown or type(content).__name__}"
        )
    return found


def readings(sets: Sequence[WeightSet]) -> Iterator[Reading]:
    """Yield weights under the names that they may have in their network, the likeliest first.

    Training code puts its own names in front: of the wrapper, the attribute, or one of several networks.

    Example:
        >>> import torch
        >>> one = WeightSet((), {"module._orig_mod.a.w": torch.ones(1), "n_averaged": torch.ones(1)})
        >>> [list(reading.state) for reading in readings([one])]
        [['_orig_mod.a.w'], ['a.w'], ['w']]
    """
    for one in sets:
        for other in sets:
            if _rank(one.route)[0] == 0 and _rank(other.route)[0] > 0:
                yield from _completed(one, other)
        yield from _read(one, bare_names(one.state))
        groups = _groups(_whole(one.state))
        ranks = {prefix: _rank((prefix[:-1],)) for prefix in groups}
        real = [prefix for prefix in groups if _counts(_of(one, groups[prefix]))]
        for prefix in sorted(groups, key=ranks.__getitem__):
            left = tuple(other for other in real if other != prefix)
            yield from _read(one, groups[prefix], prefix, left, ranks[prefix][0] < 2)
        # What is left at the same level without averages and losses.
        beside = tuple(prefix for prefix, (rank, _) in ranks.items() if rank in (0, 3))
        if beside:
            rest = {name: key for name, key in _whole(one.state).items() if not name.startswith(beside)}
            yield from _read(one, rest, "", tuple(prefix for prefix in beside if prefix in real))


def tell_choice(reading: Reading, sets: Sequence[WeightSet], file: str) -> str:
    """Warn of which weights are taken where a file holds more, and return that in words; empty if it does not."""
    words = reading.words(sets)
    if words:
        warnings.warn(f"{file} holds several sets of weights: taken is {words}", ModelWarning, stacklevel=3)
    return words


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Return what wrappers for several devices and for averages made of names, and the names.

    Example:
        >>> bare_names(["module.a.w", "n_averaged"])
        {'a.w': 'module.a.w'}
    """
    return {name.removeprefix("module."): name for name in names if name.rpartition(".")[2] != "n_averaged"}


def printable(name: str, limit: int = 80) -> str:
    """Return a name from a file as it can be shown in one line.

    Example:
        >>> printable("conv.weight"), printable("conv" + chr(10) + "weight")
        ('conv.weight', 'conv?weight')
    """
    return "".join(letter if letter.isprintable() else "?" for letter in name[:limit])


def first_keys(state: Mapping[str, Tensor]) -> str:
    """Return the first names of weights and their shapes, for errors."""
    return ", ".join(f"{printable(name)} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:3])


def _nested(content: object, route: tuple[str, ...], seen: set[int]) -> Iterator[WeightSet]:
    if not isinstance(content, dict | list | tuple) or id(content) in seen or len(route) > _DEPTH:
        return
    pairs = cast("dict[object, object]", content).items() if isinstance(content, dict) else enumerate(content)
    held = {str(key): value for key, value in cast("Iterable[tuple[object, object]]", pairs)}
    seen.add(id(content))
    if "param_groups" in held:
        return
    tensors = {key: value for key, value in held.items() if isinstance(value, Tensor)}
    if tensors:
        yield WeightSet(route, tensors)
    for key, value in held.items():
        if not _SKIPPED.match(key):
            yield from _nested(value, (*route, key), seen)


def _words(route: Iterable[str]) -> set[str]:
    names = list(route)
    return {word.lower() for name in names for word in [name, *re.findall(r"[a-z]+|[A-Z]+[a-z]*", name)]}


def _rank(route: Sequence[str]) -> tuple[int, int]:
    """Return how likely a name is that of the network that counts: averages 0, known names 1, others 2 or 3."""
    words = _words(route)
    last = route[-1].lower() if route else ""
    place = _KNOWN.index(last) if last in _KNOWN else len(_KNOWN)
    if words & (_BESIDE | _CURRENT):
        return 3, place
    if words & _AVERAGED:
        return 0, place
    return (1 if place < len(_KNOWN) else 2), place


def _read(
    source: WeightSet, names: dict[str, str], prefix: str = "", left: tuple[str, ...] = (), sure: bool = True
) -> Iterator[Reading]:
    told = set[tuple[str, ...]]()
    for some in _stripped(names):
        if some and tuple(some) not in told:
            told.add(tuple(some))
            yield Reading(_of(source, some), some, source, prefix, left, sure)


def _completed(one: WeightSet, other: WeightSet) -> Iterator[Reading]:
    """Yield weights with what they lack from others, where the others have all that they have, and more."""
    some, names = _whole(one.state), _whole(other.state)
    if not _counts(one.state) or not some.keys() < names.keys():
        return
    if any(one.state[key].shape != other.state[names[name]].shape for name, key in some.items()):
        return
    union = WeightSet(one.route, {**other.state, **one.state}, other.route)
    keys = [some.get(name, key) for name, key in names.items()]
    for variant in _stripped(bare_names(other.state)):
        yield from _read(union, dict(zip(variant, keys, strict=True)))


def _of(source: WeightSet, names: Mapping[str, str]) -> State:
    return {name: source.state[key] for name, key in names.items()}


def _stripped(names: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield names, then without what stands before a dot in all of them, again and again."""
    yield names
    # Parts of a network can be wrapped by themselves.
    unwrapped = {_WRAPPERS.sub("", name): key for name, key in names.items()}
    if len(unwrapped) == len(names):
        yield unwrapped
    while len({name.partition(".")[0] for name in names}) == 1 and all("." in name for name in names):
        names = {name.partition(".")[2]: key for name, key in names.items()}
        yield names


def _whole(state: Iterable[str]) -> dict[str, str]:
    """Return the names without all that stands before a dot in all of them."""
    *_, last = _stripped(bare_names(state))
    return last


def _groups(names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return names by what stands before their first dot, and with it; nothing where that is the same in all."""
    groups: dict[str, dict[str, str]] = {}
    for name, key in names.items():
        first, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(f"{first}.", {})[rest] = key
    return groups if len(groups) > 1 or any("." not in name for name in names) else {}


def _counts(state: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors can be a network, or are counters and the like."""
    return any(tensor.ndim > 1 for tensor in state.values())
