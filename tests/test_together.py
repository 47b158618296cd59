"""Restarts climbed in one batch."""

import dataclasses

import pytest
import torch
from small import Recorded, images, network

from resolute.attacks.apgd import APGD
from resolute.attacks.gradient import IFGSM, PGD
from resolute.attacks.momentum import MIFGSM
from resolute.attacks.targeted import Given, ReferenceShift
from resolute.attacks.transfer import Source, WarmStart

EPSILON = 8 / 255
ATTACKS = [kind(epsilon=EPSILON, steps=4, restarts=5) for kind in (IFGSM, MIFGSM, PGD, APGD)]


@pytest.mark.parametrize(
    "attack",
    [*ATTACKS, WarmStart(epsilon=EPSILON, attack=ATTACKS[2], source=Source(network(1).double()))],
    ids=lambda attack: type(attack).__name__,
)
@pytest.mark.parametrize("together", [2, 5, 100])
def test_restarts_in_a_batch_find_what_they_find_one_after_the_other(attack, together):
    model, x = network().double(), images(3).double()
    expected, found = attack(model, x), attack(model, x, together=together)
    torch.testing.assert_close(found.unrounded, expected.unrounded, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.objective, expected.objective)
    assert found.gradients == expected.gradients


def test_no_more_restarts_share_a_batch_than_asked_for():
    objective, calls = Recorded(), []
    attack = PGD(epsilon=EPSILON, steps=2, restarts=5, objective=objective)
    attack(network(), images(2), together=2, progress=lambda *call: calls.append(call))
    # Two steps and the last point a group of restarts, then the two verdicts.
    assert [len(x) // 2 for x in objective.asked] == [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]
    assert calls == [(2, 10), (4, 10), (6, 10), (8, 10), (9, 10), (10, 10)]


def test_an_objective_with_a_picture_of_its_own_is_repeated_for_one_image():
    model, x = network(), images()
    attack = dataclasses.replace(ATTACKS[2], objective=ReferenceShift(Given(torch.zeros(1, 3, 14, 12))))
    torch.testing.assert_close(attack(model, x, together=5).objective, attack(model, x).objective)


def test_the_verdict_and_the_reference_stay_float32():
    model, x = network(), images()
    attack = dataclasses.replace(ATTACKS[2], precision="bfloat16")
    found = attack(model, x, together=5)
    assert found.objective.dtype == torch.float32
    torch.testing.assert_close(found.objective, attack.objective.bind(model, found.images)(x), rtol=1e-4, atol=0)


def test_no_restart_at_a_time_is_refused():
    with pytest.raises(ValueError, match="at least one restart"):
        ATTACKS[0](network(), images(), together=0)
