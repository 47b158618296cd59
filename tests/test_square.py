import pytest
import torch
from small import Broken, Plane, Recorded, Stepped, images, network
from torch import nn

from resolute.attacks.ball import L2, Linf
from resolute.attacks.gradient import PGD
from resolute.attacks.noise import RandomNoise
from resolute.attacks.objective import OutputShift
from resolute.attacks.square import Square
from resolute.errors import ModelWarning

EPSILON = 8 / 255


def test_square_finds_the_known_optimum_of_a_linear_objective():
    clean = images(2, 5, 4).double()
    found = Square(epsilon=EPSILON, queries=4000, objective=Plane())(nn.Identity(), clean)
    torch.testing.assert_close(found.objective_unrounded, Plane().highest(clean, EPSILON))


def test_square_changes_whole_squares_to_the_border_and_never_goes_back():
    objective = Recorded()
    clean = torch.full((1, 3, 12, 10), 0.5).double()
    Square(epsilon=EPSILON, queries=60, objective=objective)(network().double(), clean)
    asked, answered = objective.asked[:60], torch.stack(objective.answered[:60]).flatten()
    for x in asked:
        assert ((x - clean).abs() - EPSILON).abs().max() < 1e-12
    stripes = asked[0] - clean
    assert torch.equal(stripes, stripes[..., :1, :].expand_as(stripes))
    best = 0
    for query in range(1, 60):
        changed = (asked[query] != asked[best]).any(dim=1)[0]
        rows, columns = changed.nonzero(as_tuple=True)
        if len(rows):
            assert max(rows.max() - rows.min(), columns.max() - columns.min()) < 10
        if answered[query] > answered[best]:
            best = query
    sides = [Square(epsilon=0.1, queries=1000, share=0.8)._side(query, 100, 100) for query in range(1000)]
    assert sides[0] == 89
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] < 5


def test_square_uses_no_gradient():
    """A model that rounds its input has no gradient to show, and falls to a random search all the same."""
    hidden, x = Stepped(network()), images(1, 8, 8)
    with pytest.warns(ModelWarning, match="zero"):
        by_gradient = PGD(epsilon=EPSILON, steps=20, start="tiny")(hidden, x)
    by_queries = Square(epsilon=EPSILON, queries=200)(hidden, x)
    assert by_queries.objective > 2 * by_gradient.objective


def test_square_beats_noise_and_gradients_beat_square():
    model, x = network(), images(3, 8, 8)
    noise = RandomNoise(epsilon=EPSILON, draws=300)(model, x).objective
    square = Square(epsilon=EPSILON, queries=300)(model, x).objective
    pgd = PGD(epsilon=EPSILON, steps=50)(model, x).objective
    assert (square > noise).all()
    assert (pgd > square).all()


@pytest.mark.parametrize(
    "attack",
    [Square(epsilon=EPSILON, queries=20), RandomNoise(epsilon=EPSILON, draws=20)],
    ids=lambda a: type(a).__name__,
)
def test_searches_without_gradients_run_where_there_is_no_graph(attack):
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach() * 2

    found = attack(Detached(), images())
    assert found.gradients == 20
    assert found.objective > 0


@pytest.mark.parametrize("attack", [Square, RandomNoise])
def test_a_broken_model_is_told_from_a_robust_one(attack):
    with pytest.raises(FloatingPointError, match="NaN"):
        attack(epsilon=EPSILON, objective=Broken())(nn.Identity(), images())


def test_more_queries_are_never_worse():
    # The schedule of squares follows the budget, so only a longer run of noise repeats a shorter one.
    model, x = network(), images(2)
    few, many = (RandomNoise(epsilon=EPSILON, draws=draws)(model, x).objective_unrounded for draws in (4, 40))
    assert (many >= few).all()
    assert (many > few).any()


def test_noise_is_of_the_shape_asked_for():
    clean = torch.full((2, 3, 9, 8), 0.5).double()
    asked = {}
    for shape in ("uniform", "signs", "both"):
        objective = Recorded()
        RandomNoise(epsilon=EPSILON, draws=4, shape=shape, objective=objective)(nn.Identity(), clean)
        asked[shape] = [(x - clean).abs() / EPSILON for x in objective.asked[:4]]
    assert all((size > 1 - 1e-9).all() for size in asked["signs"])
    for size in asked["uniform"]:
        assert abs(float(size.mean()) - 0.5) < 0.05
        assert size.max() <= 1 + 1e-9
    assert [bool((size > 1 - 1e-9).all()) for size in asked["both"]] == [False, True, False, True]
    assert not torch.equal(asked["signs"][0], asked["uniform"][0])


@pytest.mark.parametrize("shape", ["uniform", "signs"])
def test_euclidean_noise_is_in_its_ball(shape):
    x = images(2)
    found = RandomNoise(epsilon=0.5, draws=6, shape=shape, norm="l2")(network(), x)
    lengths = L2(1.0).norm(found.unrounded - x)
    assert (lengths <= 0.5 + 1e-6).all()
    assert (lengths > 0.3).all()


def test_the_worst_draw_is_kept_for_every_image():
    objective = Recorded()
    model, x = network(), images(3)
    found = RandomNoise(epsilon=EPSILON, draws=10, objective=objective)(model, x)
    torch.testing.assert_close(found.objective_unrounded, torch.stack(objective.answered[:10]).amax(dim=0))
    assert (found.objective_unrounded >= OutputShift().bind(model, x)(x)).all()
    assert (Linf(1.0).norm(found.images - x) <= EPSILON + 1e-6).all()


@pytest.mark.parametrize(
    ("kind", "options"), [(Square, {"queries": 0}), (Square, {"share": 0.0}), (RandomNoise, {"draws": 0})]
)
def test_searches_of_no_length_are_refused(kind, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(epsilon=EPSILON, **options)
