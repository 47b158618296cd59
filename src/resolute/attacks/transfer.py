"""Attacks with help from another model: transferred from it, or started from what works on it."""

from __future__ import annotations

import dataclasses
from typing import final

import torch
from torch import nn

from resolute.attacks.ascent import Attack, Best, GradientAttack, Problem, Progress, climb, same_budget
from resolute.attacks.ball import Ball, Images
from resolute.attacks.objective import Objective, OutputShift
from resolute.attacks.options import EqualByRepr
from resolute.errors import ConfigError
from resolute.models.base import Restorer
from resolute.models.weights import weights_sha256


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Source(EqualByRepr):
    """A model that an attacker holds in place of the one under attack.

    Args:
        model: the model; it comes back as it was, on the device of the attacked images.

    Example:
        >>> from resolute.models import load
        >>> Source(load("bicubic"))
        Source('bicubic')
    """

    model: nn.Module

    def attacked(self, attack: Attack, x: Images, seed: int, progress: Progress | None) -> tuple[Images, int]:
        """Return what an attack finds on this model, and the evaluations it spent."""
        found = attack(self.model.to(x.device), x, seed=seed, progress=progress)
        return found.unrounded, found.gradients

    def __repr__(self) -> str:
        # Part of the keys of records, so it must tell one set of weights from another.
        card = self.model.card if isinstance(self.model, Restorer) else None
        name = card.name if card is not None else type(self.model).__name__
        state = self.model.state_dict()
        return f"Source({name!r}, sha256={weights_sha256(state)[:16]})" if state else f"Source({name!r})"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """An attack found on a source model and judged on the target, whose gradients nobody asked for.

    What transfers is no stronger than what the target's own gradients find, unless those are masked: a transfer from
    the undefended twin that beats the white-box attack tells that the defence hides.

    Args:
        source: the model to search on.
        attack: how, of the same budget.
        objective: of the verdict on the target.

    Example:
        >>> from resolute.attacks import IFGSM
        >>> from resolute.models import load
        >>> inside = IFGSM(epsilon=4 / 255, steps=2)
        >>> attack = Transfer(epsilon=4 / 255, source=Source(load("edsr-s")), attack=inside)
        >>> bool(attack(load("bicubic"), torch.rand(1, 3, 8, 8)).objective > 0)
        True
    """

    source: Source
    attack: Attack
    objective: Objective = OutputShift()

    def __post_init__(self) -> None:
        same_budget(self, self.attack)
        super().__post_init__()

    def aim(self) -> tuple[Objective, Ball]:
        return self.objective, self.attack.aim()[1]

    def search(self, task: Problem) -> tuple[Images, int]:
        return self.source.attacked(self.attack, task.clean, task.seed, task.progress)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart(Attack):
    """A gradient attack whose first run starts from images found elsewhere.

    The adaptive attack on a defence that flattens the loss around the clean image: what is found on the undefended twin
    lies beyond the flat part, and the target's own gradients lead on from there. Further restarts start as ``attack``
    says.

    Args:
        attack: of the same budget, climbs on the target.
        source: the undefended twin.
        scout: what finds the start on the source; ``attack`` itself if None.

    Example:
        >>> from resolute.attacks import PGD
        >>> from resolute.models import load
        >>> inside = PGD(epsilon=4 / 255, steps=2)
        >>> found = WarmStart(epsilon=4 / 255, attack=inside, source=Source(load("edsr-s")))(
        ...     load("edsr-s-entropy"), torch.rand(1, 3, 8, 8))
        >>> found.gradients
        4
    """

    attack: GradientAttack
    source: Source
    scout: Attack | None = None

    def __post_init__(self) -> None:
        same_budget(self, self.attack)
        same_budget(self, self.attack if self.scout is None else self.scout)
        super().__post_init__()

    def aim(self) -> tuple[Objective, Ball]:
        return self.attack.aim()

    def search(self, task: Problem) -> tuple[Images, int]:
        first, spent = self.source.attacked(self.scout or self.attack, task.clean, task.seed, None)
        best, climbed = climb(self.attack.ascent(), task, first)
        return best, spent + climbed


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class WorstOf(Attack):
    """The worst of several attacks, image by image: an ensemble, in the words of the field, with one verdict.

    Args:
        attacks: of one budget and one ball; each climbs its own objective.
        objective: decides which of the found images, rounded to 8 bits, is worst.

    Example:
        >>> from resolute.attacks import FDA, PGD
        >>> from resolute.models import load
        >>> e = 4 / 255
        >>> attack = WorstOf(epsilon=e, attacks=(PGD(epsilon=e, steps=2), FDA(epsilon=e, steps=3)))
        >>> attack(load("edsr-s"), torch.rand(1, 3, 8, 8)).gradients
        5
    """

    attacks: tuple[Attack, ...]
    objective: Objective = OutputShift()

    def __post_init__(self) -> None:
        if not self.attacks:
            raise ConfigError("the worst of no attacks is nothing: give one or more")
        for attack in self.attacks:
            same_budget(self, attack)
            if attack.aim()[1] != self.attacks[0].aim()[1]:
                raise ConfigError("attacks of different balls have no common worst case; give each norm a WorstOf")
        super().__post_init__()

    def aim(self) -> tuple[Objective, Ball]:
        return self.objective, self.attacks[0].aim()[1]

    def search(self, task: Problem) -> tuple[Images, int]:
        best, spent = Best(task.clean), 0
        for index, attack in enumerate(self.attacks):
            found = attack(task.model, task.clean, seed=task.seed)
            with torch.no_grad(), torch.autocast(task.clean.device.type, enabled=False):
                best.update(found.unrounded, task.bound(found.images))
            spent += found.gradients
            task.report(index + 1, len(self.attacks))
        return best.images, spent
