"""The flags that a check of a model can raise: what was measured, the limit, and what it says in words.

``docs/flags.md`` has a paragraph on each: raised if, why, what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.measure.fidelity import psnr_rgb

Values = Float[Tensor, " b"]

# Stands for the infinite SR-PSNR of an output that did not move, so that means stay finite.
UNMOVED = 100.0


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a flag is raised, its figure lying above a limit or below it, and what that means.

    Attributes:
        limit: of the figure.
        unit: of both, and what the figure is.
        why: it is raised, in a sentence.
        remedy: what to do, in a sentence.
        below: raised below the limit instead of above.
    """

    limit: float
    unit: str
    why: str
    remedy: str
    below: bool = False

    @property
    def words(self) -> str:
        """The condition as tables write it.

        Example:
            >>> RULES["restarts-matter"].words
            '> 0.5 dB'
        """
        return f"{'<' if self.below else '>'} {self.limit:g} {self.unit}"


_AROUND = "attack a differentiable stand-in (BPDA), transfer from the undefended model (--twin), or use no gradients"

RULES: dict[str, Rule] = {
    "zero-gradients": Rule(1, "%", "A gradient attack cannot move pixels that have no gradient.", _AROUND),
    "finite-differences-disagree": Rule(
        25, "%", "The gradient is not the slope of the output, so attacks climb something other than the model.",
        "find the step whose backward pass is not the derivative of its forward pass",
    ),
    "noise-stronger-than-gradient": Rule(
        0.1, "dB", "Noise does more harm than the gradient, which therefore points nowhere.",
        f"quote no figure of a gradient attack; {_AROUND}",
    ),
    "transfer-stronger-than-white-box": Rule(
        0.1, "dB", "The detour through another model works better than the model's own gradient.",
        "report the worst case over both, and start the attack from what transfers",
    ),
    "black-box-stronger": Rule(
        0.1, "dB", "A search without gradients finds more than the gradient: it is masked, or ends in poor maxima.",
        "report the worst case over both attacks",
    ),
    "single-step-stronger": Rule(
        0.1, "dB", "One step finds more than many, which could have taken it first.",
        "take smaller steps, and average the gradient where the model is random",
    ),
    "larger-budget-not-stronger": Rule(
        0.1, "dB", "A larger budget finds nothing more: the attack is at its limit, and not the model.",
        _AROUND, below=True,
    ),
    "large-budget-does-not-reach-noise": Rule(
        0.1, "dB", "Without a limit the attack does not even reach what random images do.", _AROUND,
    ),
    "non-deterministic": Rule(
        0.1, "levels", "Outputs for one image differ, so the attack climbs on one draw and is judged on another.",
        "average the attack over draws (EOT), judge on fresh ones, and report what two clean runs differ by",
    ),
    "restarts-matter": Rule(
        0.5, "dB", "Where the attack ends is a matter of luck, and each further start finds more.",
        "take ten restarts or more, and keep the worst case of every image",
    ),
    "loss-has-not-plateaued": Rule(
        0.1, "dB", "The attack was stopped on its way, and its figure flatters the model.",
        "take more steps (--steps), until twice as many make no difference",
    ),
    "rounding-sensitive": Rule(
        0.5, "dB", "The perturbation lives between the levels of a file.",
        "report the figure in 8 bits where images arrive as files",
    ),
    "output-not-finite": Rule(
        0, "% of images", "The network gives infinity or no number at all, which counts as 0 dB.",
        "find the operation that overflows, such as an exponential or a division, and bound what goes into it",
    ),
    "output-saturates": Rule(
        5, "%", "Many values of the output are cut at the ends of the range, where no gradient passes.",
        "attack the output before it is clamped",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Flag:
    """One check and what came of it.

    Attributes:
        name: one of ``RULES``.
        raised: whether the figure is on the wrong side of the limit.
        figure: what was measured, in the rule's unit; None where the check needs something that was not given.
        words: what was seen, in a sentence.
    """

    name: str
    raised: bool
    figure: float | None
    words: str

    @staticmethod
    def of(name: str, figure: float | None, words: str) -> Flag:
        """Hold a figure against the rule of a flag.

        Example:
            >>> Flag.of("zero-gradients", 100.0, "no gradient at all").raised
            True
        """
        rule = RULES[name]
        raised = figure is not None and (figure < rule.limit if rule.below else figure > rule.limit)
        return Flag(name, raised, figure, words)


# The plain runs that flags are raised by, see ``Evidence``.
RUNS = ("climb", "twice", "half", "double", "whole", "single", "noise", "square")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What a check measured: SR-PSNR in dB, one an image, after each of its attacks, and a few facts on the model.

    Attributes:
        steps: of the run ``climb``.
        runs: the plain runs: ``climb``, ``twice`` as long, ``half`` and ``double`` the budget, the ``whole`` range,
            ``single`` step, ``noise``, ``square``.
        unrounded: of ``climb`` before its images were rounded to 8 bits.
        restarts: of runs from random starts.
        transfers: of images found on other models, by name.
        random_images: of unrelated, random images.
        flat: share of the input's values whose gradient is zero or not finite, in percent.
        error: of the slope that the gradient promises, against differences of the output, in percent of the larger.
        jump: largest difference between outputs of the same image, in levels of 255.
        saturated: share of output values at or beyond the ends of the range, less that of the input, in percent;
            0 where there are fewer.
    """

    steps: int
    runs: Mapping[str, Values]
    unrounded: Values
    restarts: Sequence[Values]
    transfers: Mapping[str, Values]
    random_images: Values
    flat: float
    error: float
    jump: float
    saturated: float

    def flags(self) -> list[Flag]:
        """Return all flags, the raised ones first."""
        found = [*self._model(), *self._rivals(), *self._budgets(), *self._search()]
        order = list(RULES)
        return sorted(found, key=lambda flag: (not flag.raised, order.index(flag.name)))

    @property
    def best(self) -> Values:
        """The worst case over all gradient attacks on the model itself, image by image."""
        return torch.stack([self.runs["climb"], self.runs["twice"], *self.restarts]).amin(dim=0)

    def _rivals(self) -> list[Flag]:
        white = f"the model's own gradients reach {_db(self.best)}"
        rivals = {"noise-stronger-than-gradient": "noise", "black-box-stronger": "square"}
        titles = {"noise": "random noise", "square": "random search without gradients (Square)"}
        found = [
            Flag.of(name, _gap(self.best, self.runs[run]), f"{titles[run]} reaches {_db(self.runs[run])}, {white}")
            for name, run in rivals.items()
        ]
        name = "transfer-stronger-than-white-box"
        if not self.transfers:
            return [*found, Flag.of(name, None, "not checked: name the undefended twin of the model with --twin")]
        source, strongest = min(self.transfers.items(), key=lambda item: float(item[1].mean()))
        words = f"what was found on {source} reaches {_db(strongest)}, {white}"
        return [*found, Flag.of(name, _gap(self.best, strongest), words)]

    def _budgets(self) -> list[Flag]:
        half, climb, double = (self.runs[run] for run in ("half", "climb", "double"))
        whole, single = self.runs["whole"], self.runs["single"]
        steps = f"half the budget reaches {_db(half)}, the budget {_db(climb)}, twice the budget {_db(double)}"
        far = f"with no limit the attack reaches {_db(whole)}, unrelated random images {_db(self.random_images)}"
        one = f"one step reaches {_db(single)}, many steps {_db(climb)}"
        return [
            Flag.of("single-step-stronger", _gap(climb, single), one),
            Flag.of("larger-budget-not-stronger", min(_gap(half, climb), _gap(climb, double)), steps),
            Flag.of("large-budget-does-not-reach-noise", _gap(whole, self.random_images), far),
        ]

    def _search(self) -> list[Flag]:
        climb, twice = self.runs["climb"], self.runs["twice"]
        worst = torch.stack(list(self.restarts)).amin(dim=0)
        more = f"one random start reaches {_db(self.restarts[0])}, the best of {len(self.restarts)} {_db(worst)}"
        longer = f"{self.steps} steps reach {_db(climb)}, {2 * self.steps} steps {_db(twice)}"
        rounded = f"the attack reaches {_db(self.unrounded)} in floating point, {_db(climb)} as saved in 8 bits"
        return [
            Flag.of("restarts-matter", _gap(self.restarts[0], worst), more),
            Flag.of("loss-has-not-plateaued", _gap(climb, twice), longer),
            Flag.of("rounding-sensitive", abs(_gap(self.unrounded, climb)), rounded),
        ]

    def _model(self) -> list[Flag]:
        flat = f"the gradient is zero or not finite at {self.flat:.3g} % of the input's values"
        slope = f"the slope that the gradient promises and the one that is found differ by {self.error:.3g} %"
        same = f"outputs for the same image differ by up to {self.jump:.3g} levels of 255"
        least = torch.stack([*self.runs.values(), *self.restarts]).amin(dim=0)
        broken = 100 * float((least <= 0).float().mean())
        ends = f"{self.saturated:.2f} % more values lie at the ends of the range or beyond than in the input"
        return [
            Flag.of("zero-gradients", self.flat, flat),
            Flag.of("finite-differences-disagree", self.error, slope),
            Flag.of("non-deterministic", self.jump, same),
            Flag.of("output-not-finite", broken, f"the output is not finite on {broken:.3g} % of the attacked images"),
            Flag.of("output-saturates", self.saturated, ends),
        ]


def sr_psnr(clean: Float[Tensor, "b 3 h w"], output: Float[Tensor, "b 3 h w"]) -> Values:
    """Return SR-PSNR in dB, one an image, ``UNMOVED`` for outputs that are equal or nearly so, 0 for those not finite.

    Example:
        >>> sr_psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)).item()
        100.0
    """
    return psnr_rgb(clean, output).nan_to_num(0.0, posinf=UNMOVED).clamp_max(UNMOVED)


def _gap(before: Values, after: Values) -> float:
    """Return by how many dB the second is lower, a mean over images."""
    return float((before - after).mean())


def _db(values: Values) -> str:
    mean = float(values.mean())
    return "no change" if mean >= UNMOVED else f"{mean:.2f} dB"
