import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resolute.attacks.ball import L2, Linf

BALLS = [Linf, L2]
balls = st.sampled_from(BALLS)
seeds = st.integers(0, 2**32 - 1)
radii = st.floats(1e-3, 1.0)
spreads = st.floats(1e-4, 3.0)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def grid_images(seed, *shape):
    return torch.randint(0, 256, shape, generator=generator(seed)) / 255


def shifted(clean, seed, spread):
    return clean + spread * torch.randn(clean.shape, generator=generator(seed + 1), dtype=clean.dtype)


@given(balls, seeds, radii, spreads)
def test_projection_lands_inside_and_stays_there(ball, seed, radius, spread):
    ball = ball(radius)
    clean = grid_images(seed, 3, 3, 4, 5)
    once = ball.project(shifted(clean, seed, spread), clean)
    assert ((once >= 0) & (once <= 1)).all()
    assert (ball.norm(once - clean) <= radius + 2e-7).all()
    torch.testing.assert_close(ball.project(once, clean), once, rtol=0, atol=2e-7)


@given(balls, seeds, radii)
def test_projection_leaves_points_inside_bit_for_bit(ball, seed, radius):
    ball = ball(radius)
    clean = grid_images(seed, 2, 3, 4, 5)
    direction = shifted(clean, seed, 1.0) - clean
    direction *= (0.99 * radius / ball.norm(direction)).view(-1, 1, 1, 1)
    inside = (clean + direction).clamp(0, 1)
    assert torch.equal(ball.project(inside, clean), inside)


def plain_ball(ball, clean, radius):
    def onto(z):
        shift = z - clean
        return clean + (shift.clamp(-radius, radius) if ball is Linf else shift * min(1.0, radius / shift.norm()))

    return onto


@given(balls, seeds, st.floats(0.01, 2.0), st.floats(0.01, 2.0))
@settings(max_examples=30, deadline=None)
def test_projection_is_the_nearest_allowed_image(ball, seed, radius, spread):
    clean = grid_images(seed, 1, 3, 2, 2).double()
    x = shifted(clean, seed, spread)
    found = ball(radius).project(x, clean)

    nearest = x.clone()
    corrections = [torch.zeros_like(x), torch.zeros_like(x)]
    # Dykstra's alternating projections between ball and box converge to the nearest point of both.
    for _ in range(500):
        for i, onto in enumerate((plain_ball(ball, clean, radius), lambda z: z.clamp(0, 1))):
            before = nearest + corrections[i]
            nearest = onto(before)
            corrections[i] = before - nearest
    assert (nearest - clean).abs().max() > 0
    torch.testing.assert_close(found, nearest, rtol=0, atol=1e-3)
    assert (found - x).norm() <= (nearest - x).norm() + 1e-6


@pytest.mark.parametrize("ball", BALLS)
def test_each_image_is_projected_by_itself(ball):
    ball = ball(0.1)
    clean = grid_images(0, 3, 3, 4, 4)
    x = shifted(clean, 0, torch.tensor([1e-3, 1.0, 100.0]).view(-1, 1, 1, 1))
    alone = torch.cat([ball.project(x[i : i + 1], clean[i : i + 1]) for i in range(3)])
    assert torch.equal(ball.project(x, clean), alone)


@given(balls, seeds, radii)
def test_random_points_have_norm_up_to_the_radius(ball, seed, radius):
    clean = torch.full((4, 3, 5, 5), 0.5)
    shift = ball(1.0).random(clean, generator(seed), radius) - clean
    norms = ball(1.0).norm(shift)
    assert (norms <= radius + 2e-7).all()
    assert (norms >= 0.5 * radius).all()


@pytest.mark.parametrize("ball", BALLS)
def test_random_points_are_centred_and_reproducible(ball):
    clean = torch.full((400, 1, 3, 3), 0.5, dtype=torch.float64)
    first, again, other = (ball(1.0).random(clean, generator(seed), 0.3) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shift = first - clean
    assert abs(float(shift.mean())) < 5 * float(shift.std()) / shift.numel() ** 0.5
    assert float(shift.flatten(1).std(dim=0).max() / shift.flatten(1).std(dim=0).min()) < 1.3


def test_random_points_are_uniform_in_the_ball():
    clean = torch.zeros(4000, 1, 1, 2, dtype=torch.float64)
    within_half = (L2(1.0).norm(L2(1.0).random(clean, generator(0), 1.0)) < 0.5).double().mean()
    assert abs(float(within_half) - 0.25) < 0.03
    cube = Linf(1.0).random(clean, generator(0), 1.0)
    assert abs(float((cube > 0.5).double().mean()) - 0.25) < 0.03


@given(balls, seeds, st.floats(1e-3, 1.0))
def test_no_step_of_the_same_length_raises_a_linear_objective_more(ball, seed, step):
    ball = ball(1.0)
    gradient = torch.randn(2, 3, 4, 4, generator=generator(seed), dtype=torch.float64)
    x = torch.rand(2, 3, 4, 4, generator=generator(seed + 1), dtype=torch.float64)
    taken = ball.ascend(x, gradient, step) - x
    torch.testing.assert_close(ball.norm(taken), torch.full((2,), step, dtype=torch.float64))
    rise = (taken * gradient).flatten(1).sum(dim=1)
    for other in range(20):
        direction = torch.randn(x.shape, generator=generator(seed + 2 + other), dtype=x.dtype)
        direction = direction.sign() if ball == Linf(1.0) and other % 2 else direction
        direction *= (step / ball.norm(direction)).view(-1, 1, 1, 1)
        assert (rise >= (direction * gradient).flatten(1).sum(dim=1)).all()


@pytest.mark.parametrize("ball", BALLS)
def test_an_image_without_gradient_stays_where_it_is(ball):
    x = grid_images(0, 2, 3, 4, 4)
    gradient = torch.ones_like(x)
    gradient[0] = 0
    moved = ball(0.1).ascend(x, gradient, 0.05)
    assert torch.equal(moved[0], x[0])
    assert (moved[1] > x[1]).all()


def levels(x):
    return (x * 255).round()


@given(seeds, st.floats(0.3, 40.0), balls)
def test_rounding_never_leaves_the_ball(seed, level, ball):
    ball = ball(level / 255)
    clean = grid_images(seed, 2, 3, 6, 5)
    x = ball.project(shifted(clean, seed, ball.epsilon), clean)
    rounded = ball.round(x, clean)
    assert ((rounded >= 0) & (rounded <= 1)).all()
    assert torch.equal(rounded, levels(rounded) / 255)
    # A ten-thousandth of a level a pixel, some steps of float32 at 1.
    slack = clean[0].numel() ** 0.5 * 5e-7
    assert (ball.norm((rounded - clean).double()) <= ball.epsilon + slack).all()
    assert ((rounded - x).abs() * 255 < 1 + 1e-4).all()


@given(seeds, st.floats(1.0, 40.0))
def test_rounding_stays_in_the_cube_around_images_off_the_grid(seed, level):
    ball = Linf(level / 255)
    clean = torch.rand(2, 3, 6, 5, generator=generator(seed))
    rounded = ball.round(ball.project(shifted(clean, seed, ball.epsilon), clean), clean)
    assert torch.equal(rounded, levels(rounded) / 255)
    assert (ball.norm(rounded - clean) <= ball.epsilon + 1e-6).all()


@pytest.mark.parametrize("ball", BALLS)
def test_rounding_keeps_every_whole_number_of_levels(ball):
    clean = (torch.arange(256) / 255).view(256, 1, 1, 1)
    for k in range(256):
        radius = ball(max(k, 1) / 255)
        for x in (clean + k / 255, clean - k / 255, clean + torch.tensor(k / 255), radius.project(clean + 2, clean)):
            x = x.clamp(0, 1)
            assert torch.equal(levels(radius.round(x, clean)), levels(x)), k
    assert torch.equal(ball(0.1).round(clean, clean), clean)


@pytest.mark.parametrize("ball", BALLS)
def test_rounding_to_the_nearest_level_alone_would_leave_the_ball(ball):
    ball = ball(7.65 / 255)
    clean = torch.full((1, 1, 1, 1), 100 / 255)
    above, below = ball.project(clean + 1, clean), ball.project(clean - 1, clean)
    assert ball.norm(levels(above) / 255 - clean) > ball.epsilon + 1e-3
    assert levels(ball.round(above, clean)).item() == 107
    assert levels(ball.round(below, clean)).item() == 93


@pytest.mark.parametrize("short", [5e-4, 2e-4])
@pytest.mark.parametrize("ball", BALLS)
def test_rounding_does_not_reach_for_a_level_just_outside_the_ball(ball, short):
    epsilon = (8 - short) / 255
    clean = torch.full((1, 1, 1, 1), 100 / 255)
    assert levels(ball(epsilon).round(clean + epsilon, clean)).item() == 107


def test_rounding_takes_the_nearest_level_that_the_cube_holds():
    clean = torch.full((1, 1, 1, 6), 100 / 255)
    x = torch.tensor([97.2, 97.8, 99.9, 100.1, 102.4, 103.2]).view(1, 1, 1, 6) / 255
    assert levels(Linf(3.3 / 255).round(x, clean)).flatten().tolist() == [97, 98, 100, 100, 102, 103]
    # Towards the clean value, nothing would be left of an attack that ends a hair short of one level.
    assert levels(Linf(1 / 255).round(clean + 0.98 / 255, clean)).flatten().tolist() == [101] * 6


def test_rounding_never_lengthens_a_euclidean_perturbation():
    clean = torch.full((1, 1, 1, 4), 100 / 255)
    x = torch.tensor([97.2, 99.9, 100.1, 103.9]).view(1, 1, 1, 4) / 255
    assert levels(L2(1.0).round(x, clean)).flatten().tolist() == [98, 100, 100, 103]
