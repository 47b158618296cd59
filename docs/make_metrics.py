"""Make docs/metrics.md: load every no-reference metric that is known by name, and say what the probe saw.

    python docs/make_metrics.py

pyiqa is tried where it is installed, the extra [iqa], and its rows are kept as they are where it is not. Weights that
are neither there nor to be downloaded are a reason like any other.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import warnings
from pathlib import Path

from resolute import load_scorer
from resolute.errors import ResoluteError
from resolute.models.libraries import METRICS
from resolute.models.scorers import built_in_scorers

PAGE = Path(__file__).with_name("metrics.md")

PREFACE = """\
# Quality metrics

`load_scorer(NAME)`, and every command that takes a metric, know these names; `as_scorer(callable, "name")` takes any
other callable that maps images `(b, 3, h, w)` in [0, 1] to one score an image, a module of a library or a network of
your own alike. Each is probed on sample images when it loads: whether a gradient reaches the image, whether an image
scores alone as it does among others, and whether twice the same. Attacks need the first, certificates the other two.

`python docs/make_metrics.py` made this page on a machine without a network: what it says of weights that cannot be
fetched is what anyone without them reads. Metrics of pyiqa need `pip install 'resolute[iqa]'`, and are for
non-commercial use.

| metric | better | proven range | gradient | batches | repeats | if not, why |
|---|---|---|---|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A metric and what came of it: empty reason where it loads."""

    name: str
    better: str = ""
    span: str = ""
    gradient: str = ""
    batches: str = ""
    repeats: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"| {' | '.join(dataclasses.astuple(self))} |"


def row(name: str) -> Row:
    """Load a metric and say what its card says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            card = load_scorer(name).card
    except ResoluteError as error:
        # Places of caches belong to this machine.
        reason = re.sub(r" and save it as \S+|, and copy its cache.*", "", str(error)).replace("|", "/")
        return Row(name, reason=reason)
    words = {True: "yes", False: "no", None: "not known"}
    span = "none" if card.low is None or card.high is None else f"{card.low:g} to {card.high:g}"
    better = "lower" if card.lower_better else "higher"
    found = (words[one] for one in (card.differentiable, card.batch_invariant, card.deterministic))
    return Row(name, better, span, *found)


def main() -> None:
    rows = [row(name) for name in (*built_in_scorers(), "niqe", "brisque", *METRICS)]
    if importlib.util.find_spec("pyiqa") is not None:
        import pyiqa

        theirs = [str(row(f"pyiqa:{name}")) for name in pyiqa.list_models("NR")]
    else:
        text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
        theirs = re.findall(r"^\| pyiqa:.*$", text, re.MULTILINE)
    PAGE.write_text(PREFACE + "\n".join([*map(str, rows), *theirs, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
