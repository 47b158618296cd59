import itertools
import math

import pytest
import torch
from small import Plane, Recorded, images, network
from torch import nn

from resolute.attacks.apgd import APGD, checkpoints
from resolute.attacks.ball import L2, Linf
from resolute.attacks.gradient import IFGSM, MIFGSM, PGD
from resolute.attacks.objective import OutputShift

EPSILON = 8 / 255


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]
    assert checkpoints(1) == [1]


def slow_apgd(value_and_gradient, x, clean, epsilon, steps):
    """Algorithm 1 of the paper for one image in the l-infinity ball, a list of all that it ever saw."""

    def project(z):
        return z.clamp(clean - epsilon, clean + epsilon).clamp(0, 1)

    eta, seen, compared = 2 * epsilon, [], []
    before, best, last = None, None, math.inf
    checked = {"step": 0, "halved": False}
    for k in range(steps):
        value, gradient = value_and_gradient(x)
        seen.append(x)
        compared.append(value > last)
        if best is None or value > best[0]:
            best = (value, x, gradient)
        checked.setdefault("best", best[0])
        if k in checkpoints(steps):
            rarely = sum(compared[checked["step"] + 1 : k + 1]) < 0.75 * (k - checked["step"])
            stuck = not checked["halved"] and checked["best"] == best[0]
            checked = {"step": k, "halved": rarely or stuck, "best": best[0]}
            if rarely or stuck:
                eta /= 2
                value, x, gradient = best
        z = project(x + eta * gradient.sign())
        after = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x, last = x, after, value
    return seen, eta


@pytest.mark.parametrize("seed", range(4))
def test_a_run_is_algorithm_1_of_the_paper(seed):
    model, clean = network(seed).double(), images(1, 6, 5, seed).double()
    bound = OutputShift().bind(model, clean)

    def value_and_gradient(x):
        x = x.clone().requires_grad_()
        value = bound(x).sum()
        return float(value.detach()), torch.autograd.grad(value, x)[0]

    recorded = Recorded()
    APGD(epsilon=EPSILON, steps=30, objective=recorded)(model, clean, seed=seed)
    expected, eta = slow_apgd(value_and_gradient, recorded.asked[0], clean, EPSILON, 30)
    # The point after the last step and the two verdicts come after these.
    torch.testing.assert_close(torch.cat(recorded.asked[:30]), torch.cat(expected), rtol=0, atol=1e-12)
    assert eta < 2 * EPSILON, "no step was ever halved"


def test_the_first_step_is_twice_the_radius():
    objective = Recorded(Plane())
    clean = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    APGD(epsilon=EPSILON, steps=40, objective=objective)(nn.Identity(), clean)
    found = torch.stack(objective.answered[:40]).flatten()
    # One step of twice the radius crosses the ball, so the second point is the corner already.
    assert float(found[1]) == pytest.approx(float(Plane().highest(clean, EPSILON)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_stays_in_its_ball_and_moves_to_the_border(norm):
    epsilon = EPSILON if norm == "linf" else 0.3
    ball = Linf(epsilon) if norm == "linf" else L2(epsilon)
    x = images(2)
    found = APGD(epsilon=epsilon, steps=20, norm=norm)(network(), x)
    for shift in (found.images - x, found.unrounded - x):
        assert (ball.norm(shift) <= epsilon + 1e-6).all()
    assert (ball.norm(found.unrounded - x) >= 0.95 * epsilon).all()


def test_it_is_no_weaker_than_pgd_at_equal_steps():
    """On average over networks and images; a single one may go either way by a few per cent."""
    attacks = (APGD(epsilon=EPSILON), PGD(epsilon=EPSILON), IFGSM(epsilon=EPSILON))
    reached = torch.stack(
        [
            torch.cat([attack(network(seed), images(2, 8, 8, seed)).objective_unrounded for seed in range(4)])
            for attack in attacks
        ]
    )
    ratio = reached[0] / reached[1]
    assert float(ratio.log().mean().exp()) > 0.99
    assert float(ratio.min()) > 0.9
    assert (reached[0] > reached[2]).all()


def test_a_step_length_is_an_images_own():
    """Two images of which one is solved at once: its halvings must not slow the other down."""
    easy, hard = torch.full((1, 3, 6, 6), 0.5).double(), images(1, 6, 6).double()
    model, attack = network().double(), APGD(epsilon=EPSILON, steps=30)
    both = attack(model, torch.cat([easy, hard]))
    for index, image in enumerate((easy, hard)):
        torch.testing.assert_close(both.unrounded[index : index + 1], attack(model, image).unrounded, rtol=0, atol=1e-9)


def test_restarts_draw_other_starts():
    objective = Recorded()
    APGD(epsilon=EPSILON, steps=3, restarts=3, objective=objective)(network(), images())
    starts = objective.asked[:-2:4]
    assert len(starts) == 3
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(starts, 2))


# Momentum.


def test_momentum_follows_the_sum_of_normalised_gradients():
    objective = Recorded()
    model, x = network().double(), images().double() * 0.5 + 0.25
    MIFGSM(epsilon=EPSILON, steps=4, objective=objective)(model, x)
    bound = OutputShift().bind(model, x)
    carried = torch.zeros_like(x)
    for before, after in itertools.pairwise(objective.asked[:5]):
        point = before.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(bound(point).sum(), point)
        carried = carried + gradient / gradient.abs().sum()
        expected = Linf(EPSILON).project(before + EPSILON / 4 * carried.sign(), x)
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)


def test_without_memory_it_is_ifgsm():
    model, x = network(), images(2)
    plain = IFGSM(epsilon=EPSILON, steps=10)(model, x)
    assert torch.equal(MIFGSM(epsilon=EPSILON, steps=10, decay=0.0)(model, x).unrounded, plain.unrounded)
    assert not torch.equal(MIFGSM(epsilon=EPSILON, steps=10)(model, x).unrounded, plain.unrounded)
    with pytest.raises(ValueError, match="decay"):
        MIFGSM(epsilon=EPSILON, decay=-0.1)
