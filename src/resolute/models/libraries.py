"""No-reference metrics of piq and torchmetrics by name; anything else that maps images to scores goes to ``as_scorer``.

Example:
    >>> sorted(METRICS)[0]
    'piq:brisque'
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import sys
from collections.abc import Callable
from typing import Any, final

from torch import Tensor

from resolute.errors import CheckpointError, ConfigError, first_line
from resolute.models.base import Scorer
from resolute.models.external import remedy, weights_only
from resolute.models.function import as_scorer
from resolute.models.vision import import_library

LIBRARIES = ("piq:", "torchmetrics:")


@final
@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a library, and what its authors say about it.

    Attributes:
        module, attribute: where it lies.
        options: that make it return one score an image.
        built: it is a class, to be made first.
        low, high: the range that its last operation, a softmax, cannot leave; None where nothing is proven.
        lower_better: True where a lower score means better quality.
        needs: further packages, as pip knows them.
    """

    module: str
    attribute: str
    options: dict[str, object] = dataclasses.field(default_factory=dict[str, object])
    built: bool = False
    low: float | None = None
    high: float | None = None
    lower_better: bool = False
    needs: str = ""


_EACH: dict[str, object] = {"reduction": "none"}

METRICS = {
    "piq:brisque": Metric("piq", "brisque", _EACH, lower_better=True),
    "piq:clip_iqa": Metric("piq", "CLIPIQA", built=True, low=0.0, high=1.0),
    "piq:total_variation": Metric("piq", "total_variation", _EACH, lower_better=True),
    "torchmetrics:arniqa": Metric("torchmetrics.functional.image", "arniqa", _EACH),
    "torchmetrics:clip_iqa": Metric(
        "torchmetrics.functional.multimodal",
        "clip_image_quality_assessment",
        low=0.0,
        high=1.0,
        needs="transformers piq",
    ),
    "torchmetrics:total_variation": Metric(
        "torchmetrics.functional.image", "total_variation", _EACH, lower_better=True
    ),
}


def load_from_library(name: str) -> Scorer:
    """Load a metric of ``METRICS``, probed.

    Raises:
        ConfigError: no such metric; its library is missing or cannot be imported; it fails on sample images.
        CheckpointError: its weights are neither there nor to be downloaded.
    """
    library = name.partition(":")[0]
    metric = METRICS.get(name)
    if metric is None:
        known = [other for other in METRICS if other.startswith(f"{library}:")]
        near = ", ".join(difflib.get_close_matches(name, known, 3, 0.4) or known)
        raise ConfigError(f"no metric {name!r} is known here; {library} has {near}, and as_scorer takes any callable")
    try:
        found: Any = getattr(import_library(metric.module), metric.attribute)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} needs the module {error.name}: pip install {library} {metric.needs}".strip()
        ) from None
    except AttributeError:
        # Libraries leave names out whose own dependencies are missing.
        raise ConfigError(f"{name} needs more packages: pip install {library} {metric.needs}".strip()) from None
    except Exception as error:  # Built for another torch, its libraries raise a RuntimeError.
        raise ConfigError(f"{library} is installed but {name} cannot be imported: {first_line(error)}") from error
    function: Callable[[Tensor], Tensor] = functools.partial(found, **metric.options)
    try:
        # What they print is no result, and their checkpoints are pickles.
        with contextlib.redirect_stdout(sys.stderr), weights_only():
            return as_scorer(
                function() if metric.built else function,  # pyright: ignore[reportCallIssue, reportArgumentType]
                name,
                low=metric.low,
                high=metric.high,
                lower_better=metric.lower_better,
                licence=f"{library}: Apache-2.0; weights: see their authors",
            )
    except OSError as error:
        raise CheckpointError(f"the weights of {name} are not there: {remedy(error)}") from None
    except ConfigError as error:
        # Some fetch their weights when they are called first.
        if isinstance(error.__cause__, OSError):
            raise CheckpointError(f"the weights of {name} are not there: {remedy(error.__cause__)}") from None
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise ConfigError(f"{name} needs more packages: pip install {library} {metric.needs}") from None
        raise
