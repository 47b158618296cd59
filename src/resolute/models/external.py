"""Quality metrics of pyiqa (github.com/chaofengc/IQA-PyTorch): an optional extra, for it is non-commercial.

Example:
    >>> from resolute.models import load_scorer
    >>> metric = load_scorer("pyiqa:dbcnn")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import difflib
import os
import pickle
import sys
import traceback
from collections.abc import Generator
from types import ModuleType
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import CheckpointError, ConfigError, class_and_line, first_line
from resolute.models.base import Scorer
from resolute.models.vision import import_library
from resolute.models.weights import weights_sha256

LICENCE = "pyiqa: PolyForm Noncommercial 1.0.0; weights: see their authors"

# Their last layer is a softmax over a pair of prompts, of which the first is the score.
_SOFTMAX = ("clipiqa", "clipiqa+", "clipiqa+_rn50_512", "clipiqa+_vitL14_512")


@final
class ExternalScorer(Scorer):
    """A no-reference metric of pyiqa by its name there; its network is called directly.

    pyiqa's own wrapper decides by a constructor flag whether there are gradients, checks that images lie in [0, 1],
    and averages; none of that is wanted under noise and attacks.

    Args:
        name: as ``pyiqa.list_models("NR")`` has it.

    Raises:
        ConfigError: pyiqa is missing, cannot be imported, or has no such metric.
        CheckpointError: its weights are neither there nor to be downloaded, or could run code.
    """

    size_rule = "that of pyiqa"

    def __init__(self, name: str) -> None:
        super().__init__()
        metric = _create(_pyiqa(), name)
        self.name = name
        self.network = cast("nn.Module", metric.net).requires_grad_(False)
        # CLIP hides in a list, so that pyiqa's checkpoints do without it; here it is to be frozen and hashed too.
        lists = [cast("list[Any]", value) for value in vars(self.network).values() if isinstance(value, list)]
        hidden = [entry for entries in lists for entry in entries if isinstance(entry, nn.Module)]
        self.hidden = nn.ModuleList(hidden).requires_grad_(False)
        self.lower_better = bool(metric.lower_better)
        self.usual = _stated_range(metric.score_range)
        if name in _SOFTMAX:
            self.low, self.high = 0.0, 1.0

    def arguments(self) -> dict[str, object]:
        return {"class": "ExternalScorer", "name": self.name}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        scores = self.network(x)
        if isinstance(scores, tuple | list):
            scores = scores[0]
        scores = scores.reshape(len(x), -1).squeeze(1)
        return scores if self.low is None else scores.clamp(self.low, self.high)


def load_external(name: str) -> ExternalScorer:
    """Build the metric of pyiqa called ``name``, in evaluation mode, with a card that is not probed yet.

    Raises:
        ConfigError, CheckpointError: see ``ExternalScorer``.
    """
    scorer = ExternalScorer(name).eval()
    scorer.card = scorer.describe(f"pyiqa:{name}", licence=LICENCE, sha256=weights_sha256(scorer.state_dict()))
    return scorer


def _pyiqa() -> ModuleType:
    try:
        return import_library("pyiqa")
    except ModuleNotFoundError as error:
        if error.name == "pyiqa":
            raise ConfigError("metrics of pyiqa need it installed: pip install 'resolute[iqa]'") from None
        raise ConfigError(f"pyiqa needs the module {error.name}: pip install 'resolute[iqa]'") from None
    except Exception as error:  # Built for another torch, its libraries raise a RuntimeError.
        raise ConfigError(f"pyiqa is installed but cannot be imported: {first_line(error)}") from error


def _create(pyiqa: ModuleType, name: str) -> Any:
    known = [str(metric) for metric in pyiqa.list_models("NR")]
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4) or known[:3]
        raise ConfigError(f"pyiqa has no no-reference metric {name!r}; it has, among {len(known)}, {', '.join(near)}")
    try:
        # What pyiqa prints is no result. Its checkpoints are pickles, and it would let them run code.
        with contextlib.redirect_stdout(sys.stderr), weights_only():
            return pyiqa.create_metric(name, as_loss=True, loss_reduction="none", device=torch.device("cpu"))
    except ModuleNotFoundError as error:
        raise ConfigError(f"pyiqa:{name} needs the module {error.name}: pip install 'resolute[iqa]'") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"the weights of pyiqa:{name} hold more than tensors and were not loaded ({first_line(error)}); where you "
            "trust them, wrap the metric of pyiqa with as_scorer"
        ) from None
    except OSError as error:
        raise CheckpointError(f"the weights of pyiqa:{name} are not there: {remedy(error)}") from None
    except Exception as error:  # Weights that are something else, or a dependency of another version: anything.
        raise CheckpointError(f"pyiqa cannot build {name}: {class_and_line(error)}") from error


@contextlib.contextmanager
def weights_only() -> Generator[None]:
    """Let torch.load read tensors alone, whoever calls it."""
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def remedy(error: OSError) -> str:
    """Say which file to fetch and where to put it, from the call that could not."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        values = frame.f_locals
        target = values.get("dst", values.get("download_target"))
        if "url" in values and target is not None:
            return f"fetch {values['url']} and save it as {target}"
        if {"repo_id", "filename"} <= values.keys():
            return f"run `hf download {values['repo_id']}` where there is a network, and copy its cache (HF_HOME) here"
    return first_line(error)


def _stated_range(text: str | None) -> tuple[float, float] | None:
    # pyiqa writes "0, 1", and "~0, ~1" where it is not exact.
    try:
        low, high = (float(end.strip(" ~")) for end in (text or "").split(","))
    except ValueError:
        return None
    return low, high
