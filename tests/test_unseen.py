"""Attacks that hide a higher score: inside their ball, better than chance, and hidden as they say."""

import pytest
import torch

from resolute import load_scorer
from resolute.attacks.objective import ScoreGain
from resolute.attacks.unseen import MADC, Korhonen, activity
from resolute.images import sample_image

EPSILON = 4 / 255


@pytest.fixture(scope="module")
def metric():
    return load_scorer("quality-s")


@pytest.fixture(scope="module")
def image():
    return sample_image("coffee")[None, :, 100:164, 100:164]


def score(metric, image):
    with torch.no_grad():
        return float(metric(image))


@pytest.mark.parametrize("kind", [Korhonen, MADC])
def test_it_raises_the_score_within_its_ball(kind, metric, image):
    found = kind(epsilon=EPSILON, objective=ScoreGain())(metric, image).images
    random = (image + EPSILON * torch.randn(image.shape).sign()).clamp(0, 1)
    assert (found - image).abs().max() <= EPSILON * 1.001
    assert score(metric, found) > max(score(metric, image), score(metric, random)) + 5


def test_what_is_flat_is_left_alone(metric):
    image = torch.full((1, 3, 64, 64), 128 / 255)
    image[..., 40:] = 180 / 255
    found = Korhonen(epsilon=EPSILON, objective=ScoreGain())(metric, image).images
    changed = (found != image).any(dim=1)[0]
    assert not changed[:, :36].any()
    assert changed[:, 38:42].any()


def test_the_activity_is_that_of_a_loop_over_pixels():
    x = torch.rand(1, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    luma = 0.299 * x[0, 0] + 0.587 * x[0, 1] + 0.114 * x[0, 2]

    def at(i, j):
        return float(luma[min(max(i, 0), 6), min(max(j, 0), 7)])

    def slope(i, j):
        across = sum(w * (at(i + d, j + 1) - at(i + d, j - 1)) for d, w in ((-1, 1), (0, 2), (1, 1)))
        down = sum(w * (at(i + 1, j + d) - at(i - 1, j + d)) for d, w in ((-1, 1), (0, 2), (1, 1)))
        return (across**2 + down**2) ** 0.5

    slopes = {(i, j): slope(i, j) for i in range(7) for j in range(8)}
    near = [(a, b) for a in range(-2, 3) for b in range(-2, 3) if abs(a) + abs(b) < 4]
    expected = [
        max(slopes[i + a, j + b] for a, b in near if (i + a, j + b) in slopes) / max(slopes.values()) for i, j in slopes
    ]
    assert activity(x).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_steps_of_madc_are_orthogonal_to_the_change_so_far(image):
    plan = MADC(epsilon=1.0, relative_step=0.001).ascent()
    x = image * 0.5 + 0.25
    move = plan.rule.begin(plan, x)
    shift = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    # Along the change there is nothing left to climb.
    assert torch.allclose(move(x + shift, torch.zeros(1), 3 * shift), x + shift, atol=0.0011)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    aside = gradient - (gradient * shift).sum() / shift.square().sum() * shift
    moved = move(x + shift, torch.zeros(1), gradient) - (x + shift)
    assert float((moved.sign() == aside.sign()).float().mean()) > 0.999
