import copy
import dataclasses
import itertools
import math

import numpy as np
import pydantic
import pytest
import torch
from small import Recorded, images, network
from torch import nn

from resolute.attacks.apgd import APGD
from resolute.attacks.ascent import Ascent, GradientAttack, arithmetic
from resolute.attacks.ball import L2, Linf, Rectangle
from resolute.attacks.gradient import FDA, FGSM, IFGSM, MIFGSM, PGD
from resolute.attacks.names import ATTACKS, OBJECTIVES
from resolute.attacks.noise import RandomNoise
from resolute.attacks.objective import FeatureDisruption, FeatureShift, OutputShift
from resolute.attacks.partial import Partial
from resolute.attacks.registry import AttackTable
from resolute.attacks.square import Square
from resolute.attacks.transfer import Source, Transfer, WarmStart, WorstOf
from resolute.errors import ConfigError
from resolute.images import sample_image
from resolute.measure.fidelity import psnr_rgb
from resolute.models import Bicubic, load
from resolute.models.base import frozen
from resolute.runtime import has_bfloat16

EPSILON = 8 / 255
SHORT = [
    FGSM(epsilon=EPSILON),
    IFGSM(epsilon=EPSILON, steps=5),
    PGD(epsilon=EPSILON, steps=5, relative_step=0.3),
    FDA(epsilon=EPSILON, steps=5),
    MIFGSM(epsilon=EPSILON, steps=5),
    APGD(epsilon=EPSILON, steps=5),
    RandomNoise(epsilon=EPSILON, draws=5),
    Square(epsilon=EPSILON, queries=5),
]
HELP = Source(network(1))
AROUND = [
    Partial(epsilon=EPSILON, attack=SHORT[1], region=Rectangle(), objective=OutputShift()),
    Transfer(epsilon=EPSILON, attack=SHORT[1], source=HELP),
    WarmStart(epsilon=EPSILON, attack=SHORT[1], source=HELP),
    WorstOf(epsilon=EPSILON, attacks=(SHORT[1], SHORT[7])),
]
each_attack = pytest.mark.parametrize("attack", SHORT + AROUND, ids=lambda attack: type(attack).__name__)


@dataclasses.dataclass(frozen=True)
class Negated:
    inner: object

    def bind(self, model, clean):
        bound = self.inner.bind(model, clean)
        return lambda x: -bound(x)


@dataclasses.dataclass(frozen=True)
class Peak:
    """Highest where every pixel is ``at`` above the clean one, falling on both sides; knows no model."""

    at: float

    def bind(self, model, clean):
        return lambda x: -(x - clean - self.at).square().flatten(1).mean(dim=1)


@each_attack
def test_attacked_images_are_allowed_and_stronger_than_the_clean_ones(attack):
    model, x = network(), images(2)
    found = attack(model, x)
    for attacked in (found.images, found.unrounded):
        assert attacked.shape == x.shape
        assert ((attacked >= 0) & (attacked <= 1)).all()
        assert (Linf(1.0).norm(attacked - x) <= EPSILON + 1e-6).all()
    levels = found.images.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    bound = attack.aim()[0].bind(model, x)
    torch.testing.assert_close(found.objective, bound(found.images).detach())
    torch.testing.assert_close(found.objective_unrounded, bound(found.unrounded).detach())
    assert (found.objective > bound(x)).all()
    assert (found.objective_unrounded > bound(x)).all()
    assert found.gradients == {"FGSM": 1, "WarmStart": 10, "WorstOf": 10}.get(type(attack).__name__, 5)


@pytest.mark.parametrize("epsilon", [0.5 / 255, 7.65 / 255])
def test_a_budget_between_two_levels_is_never_exceeded(epsilon):
    x = images(2)
    shift = PGD(epsilon=epsilon, steps=10, relative_step=0.5)(network(), x).images - x
    assert float(shift.abs().max()) * 255 == pytest.approx(math.floor(epsilon * 255), abs=1e-3)


@pytest.mark.parametrize("attack", [IFGSM, FDA, PGD])
def test_a_file_holds_the_attack_and_not_a_shadow_of_it(attack):
    """The path of I-FGSM is as long as the radius: rounded towards the clean image, its last step would be lost."""
    for level in (1, 2, 4):
        model, x = network(), images(2, 12, 12)
        found = attack(epsilon=level / 255)(model, x)
        clean = found.objective_unrounded - attack(epsilon=level / 255).objective.bind(model, x)(x)
        assert ((found.objective_unrounded - found.objective) < 0.1 * clean).all()


@each_attack
def test_attacks_repeat_for_a_seed_and_only_then(attack):
    model, x = network(), images()
    first, again, other = (attack(model, x, seed=seed).unrounded for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_attacks_leave_the_global_stream_alone():
    before = torch.random.get_rng_state()
    PGD(epsilon=EPSILON, steps=2)(network(), images())
    assert torch.equal(torch.random.get_rng_state(), before)


@each_attack
@pytest.mark.parametrize("restarts", [1, 2])
def test_a_batch_is_attacked_as_each_of_its_images_alone(attack, restarts):
    if isinstance(attack, IFGSM | MIFGSM | PGD | APGD | FDA):
        attack = dataclasses.replace(attack, restarts=restarts)
    if isinstance(attack, Transfer | WarmStart):
        attack = dataclasses.replace(attack, source=Source(network(1).double()))
    model, x = network().double(), images(3).double()
    together = attack(model, x)
    alone = [attack(model, x[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together.unrounded, torch.cat([found.unrounded for found in alone]), rtol=0, atol=1e-9)
    torch.testing.assert_close(together.images, torch.cat([found.images for found in alone]), rtol=0, atol=1e-9)
    torch.testing.assert_close(together.objective, torch.cat([found.objective for found in alone]))
    backwards = attack(model, x.flip(0))
    torch.testing.assert_close(together.images, backwards.images.flip(0), rtol=0, atol=1e-9)


def test_the_first_step_of_the_default_ifgsm_moves():
    objective = Recorded()
    IFGSM(epsilon=EPSILON, objective=objective)(network(), images())
    start, moved = objective.asked[:2]
    assert 0 < float((start - images()).abs().max()) <= 1.05e-3 / 255
    steps = (moved - start).abs() * 255
    inside = (images() > 0.1) & (images() < 0.9)
    assert (steps[inside] > 0.99 * 8 / 50).double().mean() > 0.95
    assert float(steps.max()) <= 1.01 * 8 / 50
    assert objective.answered[-3] > 1e3 * objective.answered[0]


@pytest.mark.parametrize("kind", [FGSM, IFGSM, PGD])
@pytest.mark.parametrize("objective", [OutputShift(), FeatureShift()])
def test_a_distance_cannot_be_climbed_from_the_clean_image(kind, objective):
    with pytest.raises(ValueError, match="start='tiny' or start='uniform'"):
        kind(epsilon=EPSILON, objective=objective, start="zero")


def test_disruption_can_be_climbed_from_the_clean_image():
    objective = Recorded(FeatureDisruption())
    model, x = network(), images()
    found = FDA(epsilon=EPSILON, start="zero", objective=objective)(model, x)
    assert torch.equal(objective.asked[0], x)
    assert found.objective > objective.answered[0]


def test_starts_are_as_near_as_they_say():
    model, x = network(), torch.full((1, 3, 7, 6), 0.5)
    for start, lowest, highest in (("tiny", 0.5e-3 / 255, 1.05e-3 / 255), ("uniform", 0.9 * EPSILON, EPSILON + 1e-7)):
        objective = Recorded()
        PGD(epsilon=EPSILON, steps=1, start=start, objective=objective)(model, x)
        assert lowest <= float((objective.asked[0] - x).abs().max()) <= highest


def test_the_path_of_ifgsm_is_as_long_as_the_radius():
    objective = Recorded()
    x = torch.full((1, 3, 7, 6), 0.5)
    IFGSM(epsilon=EPSILON, steps=20, objective=objective)(network(), x)
    # 20 points in the climb and the last one, then the two verdicts.
    assert len(objective.asked) == 23
    farthest = [float((asked - x).abs().max()) * 255 for asked in objective.asked[:21]]
    assert farthest == pytest.approx([8 * k / 20 for k in range(21)], abs=2.1e-3)


def test_long_attacks_beat_short_ones():
    model, x = network(), images(3)
    one, iterated, projected = (
        attack(model, x).objective_unrounded
        for attack in (
            FGSM(epsilon=EPSILON),
            IFGSM(epsilon=EPSILON, steps=50),
            PGD(epsilon=EPSILON, steps=100, restarts=3),
        )
    )
    assert (projected >= iterated).all()
    assert (iterated >= one).all()
    noise = torch.stack(
        [
            OutputShift().bind(model, x)(Linf(EPSILON).random(x, torch.Generator().manual_seed(i), EPSILON).clamp(0, 1))
            for i in range(20)
        ]
    ).amax(dim=0)
    assert (one > 1.2 * noise).all()


@pytest.mark.parametrize("attack", [IFGSM, MIFGSM, PGD, APGD, FDA, RandomNoise, Square])
def test_a_larger_budget_is_never_worse(attack):
    model, x = network(), images(2)
    effort = {RandomNoise: {"draws": 40}, Square: {"queries": 100}}.get(attack, {"steps": 40})
    reached = torch.stack([attack(epsilon=level / 255, **effort)(model, x).objective for level in (1, 4, 16)])
    assert (reached.diff(dim=0) > 0).all()


def test_restarts_are_never_worse_and_differ():
    model, x = network(), images(3)
    recorders = [Recorded(), Recorded(), Recorded()]
    reached = [
        PGD(epsilon=EPSILON, steps=5, restarts=restarts, objective=objective)(model, x).objective_unrounded
        for restarts, objective in zip((1, 2, 6), recorders, strict=True)
    ]
    assert (reached[1] >= reached[0]).all()
    assert (reached[2] >= reached[1]).all()
    assert (reached[2] > reached[0]).any()
    # Five steps and the last point a restart, then the two verdicts.
    starts = recorders[2].asked[:-2:6]
    assert len(starts) == 6
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(starts, 2))


def test_the_best_iterate_is_kept_for_every_image():
    objective = Recorded(Peak(at=0.35 * EPSILON))
    x = torch.stack([torch.full((3, 7, 6), 0.5), torch.full((3, 7, 6), 0.25)])
    attack = PGD(epsilon=EPSILON, steps=3, relative_step=0.9, start="tiny", objective=objective)
    found = attack(nn.Identity(), x)
    climb = torch.stack(objective.answered[:4])
    assert (climb[-1] < climb.amax(dim=0)).all(), "the last iterate would do"
    torch.testing.assert_close(found.objective_unrounded, climb.amax(dim=0))


def test_the_last_iterate_counts_too():
    objective = Recorded(Peak(at=1.0))
    found = IFGSM(epsilon=EPSILON, steps=3, objective=objective)(nn.Identity(), torch.full((1, 3, 4, 4), 0.5))
    assert torch.equal(found.objective_unrounded, objective.answered[3])
    assert objective.answered[3] > objective.answered[2]


def test_an_attack_can_be_written_for_another_ball():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Euclidean(GradientAttack):
        def ascent(self):
            return Ascent(objective=OutputShift(), ball=L2(self.epsilon), steps=20, step_size=self.epsilon / 4)

    model, x = network(), images(2)
    found = Euclidean(epsilon=0.3)(model, x)
    assert (L2(1.0).norm(found.images - x) <= 0.3 + 1e-6).all()
    assert (L2(1.0).norm(found.unrounded - x) >= 0.29).all()
    assert (found.objective_unrounded > OutputShift().bind(model, x)(x + 0.3 / 126**0.5)).all()


def test_progress_counts_every_step():
    calls = []
    PGD(epsilon=EPSILON, steps=3, restarts=2)(network(), images(), progress=lambda *call: calls.append(call))
    assert calls == [(k, 6) for k in range(1, 7)]


# The linear model, for which the worst case is known.


class Grey(nn.Module):
    """Bicubic interpolation of the mean over channels: linear, with as few unknowns as pixels."""

    def forward(self, x):
        return Bicubic(2)(x.mean(dim=1, keepdim=True).expand_as(x))


def test_pgd_reaches_the_known_worst_case_of_a_linear_model():
    # A convex objective is largest at a corner of the box, and of an image this small all corners can be tried.
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6))).view(-1, 1, 2, 3).expand(-1, 3, -1, -1)
    worst = float(Grey()(corners).square().flatten(1).mean(dim=1).max()) * EPSILON**2
    clean = torch.full((1, 3, 2, 3), 100 / 255)
    found = PGD(epsilon=EPSILON, steps=20, relative_step=0.3, restarts=40)(Grey(), clean)
    assert float(found.objective_unrounded) == pytest.approx(worst, rel=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_linear_model_is_as_robust_as_its_row_sums_say(scale):
    clean = images(1, 8, 9) * 0.5 + 0.25
    impulses = torch.eye(72, dtype=torch.float64).view(72, 1, 8, 9).expand(-1, 3, -1, -1)
    response = Bicubic(scale)(impulses)[:, 0].flatten(1)
    bound = -10 * math.log10(float(response.abs().sum(dim=0).square().mean()) * EPSILON**2)
    reference = 20 * math.log10(255 / 8)
    found = PGD(epsilon=EPSILON, steps=60, restarts=2)(Bicubic(scale), clean)
    sr_psnr = float(psnr_rgb(Bicubic(scale)(clean), Bicubic(scale)(found.unrounded)))
    # A constant shift reaches the reference line itself; sign gradients from random starts stop a little short of it.
    assert max(bound, reference - 0.6) <= sr_psnr <= reference + 1.5


# The model comes back as it was.


class Mixed(nn.Module):
    """Batch statistics, dropout, frozen and shared parts, gradients under way: everything an attack could disturb."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fixed_norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)
        self.again = self.tail
        self.register_buffer("count", torch.tensor(7))

    def forward(self, x):
        return self.again(self.drop(self.fixed_norm(self.norm(self.head(x)))))


@pytest.fixture
def mixed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Mixed()
        model.train()
        model.fixed_norm.eval()
        model.tail.weight.requires_grad_(False)
        model(torch.rand(2, 3, 6, 6)).square().mean().backward()
        model.head.bias.grad = None
    return model


def snapshot(model):
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "trainable": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "hooks": {name: len(module._forward_hooks) for name, module in model.named_modules()},
    }


def assert_untouched(model, before):
    after = snapshot(model)
    assert after["training"] == before["training"]
    assert after["trainable"] == before["trainable"]
    assert after["hooks"] == before["hooks"]
    for part in ("state", "grads"):
        assert after[part].keys() == before[part].keys()
        for name, tensor in before[part].items():
            assert (tensor is None and after[part][name] is None) or torch.equal(tensor, after[part][name]), name


@pytest.mark.parametrize("objective", [OutputShift(), FeatureDisruption(("norm", "tail"))])
def test_the_model_comes_back_as_it_was(mixed, objective):
    before = snapshot(mixed)
    assert len(set(before["training"].values())) == len(set(before["trainable"].values())) == 2
    PGD(epsilon=EPSILON, steps=3, objective=objective)(mixed, images(2))
    assert_untouched(mixed, before)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_the_model_comes_back_as_it_was_when_the_attack_fails(mixed, failure):
    before = snapshot(mixed)

    def fail(step, steps):
        if step == 2:
            raise failure("midway")

    with pytest.raises(failure, match="midway"):
        PGD(epsilon=EPSILON, steps=3, objective=FeatureShift(("norm",)))(mixed, images(2), progress=fail)
    assert_untouched(mixed, before)
    with pytest.raises(ValueError, match="layer"):
        PGD(epsilon=EPSILON, objective=FeatureShift(("nowhere",)))(mixed, images(2))
    assert_untouched(mixed, before)


def test_a_model_in_training_is_attacked_as_it_will_be_used(mixed):
    attack = PGD(epsilon=EPSILON, steps=3)
    in_training = attack(mixed, images(2)).unrounded
    assert torch.equal(in_training, attack(mixed.eval(), images(2)).unrounded)


def test_frozen_freezes(mixed):
    with frozen(mixed):
        assert not any(module.training for module in mixed.modules())
        assert not any(parameter.requires_grad for parameter in mixed.parameters())


def test_an_attack_works_inside_no_grad_and_returns_no_graph():
    model, x = network(), images()
    expected = FDA(epsilon=EPSILON, steps=3)(model, x)
    with torch.no_grad():
        quiet = FDA(epsilon=EPSILON, steps=3)(model, x)
    given_graph = FDA(epsilon=EPSILON, steps=3)(model, x.clone().requires_grad_())
    for found in (quiet, given_graph):
        for field in ("images", "unrounded", "objective", "objective_unrounded"):
            assert torch.equal(getattr(found, field), getattr(expected, field))
            assert not getattr(found, field).requires_grad


def test_the_clean_images_are_not_written_to():
    x = images(2)
    PGD(epsilon=EPSILON, steps=3)(network(), x)
    assert torch.equal(x, images(2))


# Refusals.


def test_a_broken_model_is_told_from_a_robust_one():
    model = network()
    with torch.no_grad():
        model.tail[1].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        IFGSM(epsilon=EPSILON, steps=2)(model, images())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((1, 3, 4, 4), 200.0), r"in \[0, 1\]; divide 8-bit values by 255"),
        (torch.full((1, 3, 4, 4), -0.01), r"in \[0, 1\]"),
        (torch.full((1, 3, 4, 4), torch.nan), "finite"),
        (torch.full((1, 3, 4, 4), torch.inf), "finite"),
        (torch.zeros(3, 4, 4), r"float tensor \(batch, channels, height, width\), not \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "float tensor"),
        (torch.zeros(0, 3, 4, 4), "not empty"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_images_of_the_wrong_kind_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        PGD(epsilon=EPSILON, steps=1)(network(), x)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 8.0, math.nan, math.inf])
def test_radii_in_levels_and_other_mistakes_are_refused(epsilon):
    with pytest.raises(ValueError, match=r"epsilon .*\(0, 1\]"):
        IFGSM(epsilon=epsilon)


@pytest.mark.parametrize("kind", [IFGSM, PGD, FDA])
@pytest.mark.parametrize("field", ["steps", "restarts"])
def test_attacks_without_steps_are_refused(kind, field):
    with pytest.raises(ValueError, match=field):
        kind(epsilon=EPSILON, **{field: 0})


def test_a_step_of_no_length_is_refused():
    with pytest.raises(ValueError, match="relative_step"):
        PGD(epsilon=EPSILON, relative_step=0.0)


# The feature attack.


def test_fda_disrupts_and_its_opposite_strengthens():
    model, x = network(), images(2)
    clean = FeatureDisruption().bind(model, x)(x)
    assert (FDA(epsilon=EPSILON, steps=20)(model, x).objective > clean + 0.01).all()
    opposite = FDA(epsilon=EPSILON, steps=20, objective=Negated(FeatureDisruption()))(model, x)
    assert (-opposite.objective < clean - 0.01).all()


def test_fda_with_either_mask_and_any_layers_changes_the_features():
    model, x = network(), images(1)
    reached = [
        FDA(epsilon=EPSILON, steps=5, objective=objective)(model, x).images
        for objective in (
            FeatureDisruption(),
            FeatureDisruption(mask="attacked"),
            FeatureDisruption(("head",)),
            FeatureDisruption(("head", "body.0", "long_skip")),
        )
    ]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(reached, 2))


def test_fda_reaches_into_any_module_by_layer_names():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 5 * 4, 1)).eval()
    x, objective = images(2), FeatureDisruption(("0", "1"))
    found = FDA(epsilon=EPSILON, steps=5, objective=objective)(model, x)
    assert (found.objective > objective.bind(model, x)(x)).all()
    with pytest.raises(ValueError, match=r"'7'.* 0, 1, 2, 3$"):
        FDA(epsilon=EPSILON, objective=FeatureDisruption(("7",)))(model, x)


# Reduced precision.


def test_the_search_in_bfloat16_is_judged_in_float32():
    model, x = network(channels=16), images(2, 12, 12)
    objective = Recorded()
    found = PGD(epsilon=EPSILON, steps=20, precision="bfloat16", objective=objective)(model, x)
    exact = PGD(epsilon=EPSILON, steps=20)(model, x)
    assert found.images.dtype == found.objective.dtype == torch.float32
    torch.testing.assert_close(found.objective, OutputShift().bind(model, x)(found.images).detach())
    assert not torch.equal(found.unrounded, exact.unrounded), "bfloat16 was not used"
    assert (found.objective > 0.8 * exact.objective).all()
    assert (Linf(1.0).norm(found.images - x) <= EPSILON + 1e-6).all()


def test_what_sees_the_image_sees_it_in_float32():
    model, x = network(), images() - 1e-4
    exact = model.head(x)
    inside = []
    model.body[0].body[0].register_forward_hook(lambda *call: inside.append(call[2].dtype))
    with arithmetic(model, "bfloat16", x.device):
        assert torch.equal(model.head(x), exact.bfloat16()), "rounded when it is no image any more"
        assert model(x).dtype == torch.float32, "the mean is added in float32"
    assert inside == [torch.bfloat16]


def test_a_search_of_bfloat16_leaves_a_model_and_its_surroundings_as_they_were():
    model, x = network(), images()
    with arithmetic(model, "bfloat16", x.device):
        with torch.autocast("cpu", enabled=False):
            assert model.head(x).dtype == torch.float32
        with pytest.raises(RuntimeError, match="channels"):
            model.head(x.repeat(1, 2, 1, 1))
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    assert model.head(x).dtype == torch.float32
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (2, 4)])
@pytest.mark.parametrize("slopes", [1, 4])
def test_a_parametric_rectifier_is_itself_in_a_search_of_bfloat16_and_afterwards(slopes, shape):
    model = nn.Sequential(nn.PReLU(slopes))
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(-0.5, 0.5, slopes))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    exact = model(x.float())
    (gradient,) = torch.autograd.grad(exact.sum(), x)
    with arithmetic(model, "bfloat16", x.device):
        with arithmetic(model, "bfloat16", x.device):
            pass
        found = model(x)
        (climbed,) = torch.autograd.grad(found.sum(), x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=0.01, atol=0.0)
    torch.testing.assert_close(climbed, gradient, rtol=0.01, atol=0.0)
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize("before", [False, True])
def test_attacks_waste_no_time_on_denormal_numbers_and_leave_the_setting_as_it_was(before):
    def flushed():
        return float(torch.tensor(1e-39) * 1) == 0

    model, seen = network(), []
    model.head.register_forward_hook(lambda *_: seen.append(flushed()))
    if not torch.set_flush_denormal(before):
        pytest.skip("the processor cannot leave denormal numbers out")
    try:
        PGD(epsilon=EPSILON, steps=1)(model, images())
        assert set(seen) == {True}
        assert flushed() is before
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.slow
@pytest.mark.skipif(
    not has_bfloat16(torch.device("cpu")), reason="the processor only emulates bfloat16, many times as slowly"
)
@pytest.mark.parametrize("kind", [IFGSM, FDA])
def test_short_steps_are_as_strong_in_bfloat16(kind):
    model, x = load("edsr-xs"), sample_image("astronaut")[None, :, 100:124, 150:174]

    def damage(precision):
        found = [kind(epsilon=1 / 255, precision=precision)(model, x, seed=seed).unrounded for seed in range(2)]
        with torch.no_grad():
            return sum(float(psnr_rgb(model(x), model(one))) for one in found) / 2

    assert damage("bfloat16") <= damage("float32") + 0.1


# Attacks by name.


def test_a_table_with_nothing_set_builds_the_defaults():
    for kind, attack in ATTACKS.items():
        if not any("attack" in field.name for field in dataclasses.fields(attack)):
            assert AttackTable(kind=kind).build(4 / 255) == attack(epsilon=4 / 255)
            assert pydantic.TypeAdapter(AttackTable).validate_python({"kind": kind}) == AttackTable(kind)
    assert AttackTable(kind="pgd").name == "pgd"
    assert AttackTable(kind="pgd", label="PGD-200").name == "PGD-200"


def test_a_table_sets_what_it_names():
    table = AttackTable(
        kind="pgd", steps=200, restarts=10, relative_step=0.25, objective="feature_shift", layers=("a",)
    )
    assert table.build(0.2, "bfloat16") == PGD(
        epsilon=0.2,
        precision="bfloat16",
        steps=200,
        restarts=10,
        relative_step=0.25,
        objective=FeatureShift(("a",)),
    )
    assert AttackTable(kind="fda", layers=("a", "b")).build(0.2).objective == FeatureDisruption(("a", "b"))
    built = {name: AttackTable(kind="ifgsm", objective=name).build(0.2).objective for name in list(OBJECTIVES)[:3]}
    assert built == {
        "output": OutputShift(),
        "feature_shift": FeatureShift(),
        "feature_disruption": FeatureDisruption(),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fast"}, "no attack named 'fast'; choose one of fgsm, ifgsm, mifgsm, pgd, apgd, fda, noise"),
        ({"kind": "fgsm", "steps": 3}, "steps: fgsm has no such option"),
        ({"kind": "ifgsm", "relative_step": 0.1}, "relative_step: ifgsm has no such option"),
        ({"kind": "pgd", "layers": ("a",)}, "layers: pgd .*feature_shift"),
        ({"kind": "pgd", "layers": ("a",), "objective": "output"}, "layers: .*feature_shift"),
        ({"kind": "fda", "layers": ("a",), "objective": "output"}, "layers: .*feature_shift"),
    ],
)
def test_tables_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        AttackTable(**options).build(4 / 255)


@pytest.mark.parametrize("options", [{"steps": 0}, {"restarts": 0}, {"relative_step": 0}, {"step": 3}])
def test_tables_are_checked_where_they_are_read(options):
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(AttackTable).validate_python({"kind": "pgd", **options})


def test_an_objective_that_nobody_knows_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match="'labels'"):
        AttackTable(kind="pgd", objective="labels").build(EPSILON)


def test_options_that_a_person_typed_are_answered_in_one_line():
    assert AttackTable(kind="fda", steps=7, layers=["a"]) == AttackTable(kind="fda", steps=7, layers=("a",))
    for options, message in (({"steps": 0}, "steps: .*greater than or equal to 1"), ({"step": 3}, "step: ")):
        with pytest.raises(ConfigError, match=f"^{message}") as caught:
            AttackTable(kind="pgd", **options)
        assert "\n" not in str(caught.value)


def test_the_configuration_of_an_attack_is_its_repr():
    for attack in SHORT:
        assert eval(repr(attack)) == attack
        assert np.isclose(dataclasses.asdict(attack)["epsilon"], EPSILON)


@pytest.mark.parametrize("allowed", [True, False])
def test_float32_is_float32_while_an_attack_runs(allowed, monkeypatch):
    """cuDNN takes TF32 for float32 unless told otherwise; whoever allows it elsewhere finds it as it was."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    seen = []
    model = network()
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    IFGSM(epsilon=4 / 255, steps=2)(model, images())
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 == allowed


# Arithmetic that holds less than an attack needs.


class Exploding(nn.Module):
    """A network whose output is infinite as soon as its input moves by more than a level."""

    def __init__(self, clean):
        super().__init__()
        self.clean = clean

    def forward(self, x):
        shift = (x - self.clean).abs().amax(dim=(1, 2, 3), keepdim=True)
        return x + torch.where(shift > 1 / 255, torch.inf * torch.ones_like(x), (x - self.clean) * 100)


@pytest.mark.parametrize(
    "attack", [IFGSM(epsilon=EPSILON), PGD(epsilon=EPSILON, steps=4), RandomNoise(epsilon=EPSILON)]
)
def test_an_output_that_is_not_finite_is_the_worst_there_is(attack):
    x = images(2)
    found = attack(Exploding(x), x)
    assert (found.objective == torch.inf).all()
    assert ((found.images - x).abs().amax(dim=(1, 2, 3)) > 1 / 255).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision_are_attacked_as_those_of_full_precision_are(dtype):
    model, x = network(), (images(1) * 255).round() / 255
    attack = IFGSM(epsilon=EPSILON, steps=5)
    half = attack(model, x.to(dtype))
    assert half.images.dtype == torch.float32
    assert half.objective.item() == pytest.approx(attack(model, x).objective.item(), rel=0.3)


def test_a_model_of_half_precision_is_searched_with_images_of_full_precision():
    model, x = network(), images(1)
    attack = PGD(epsilon=EPSILON, steps=10)
    found = attack(copy.deepcopy(model).bfloat16(), x).images
    assert attack(model, x).images.dtype == found.dtype
    assert OutputShift().bind(model, x)(found).item() == pytest.approx(attack(model, x).objective.item(), rel=0.2)


@pytest.mark.parametrize(("attack", "steps"), [(FGSM, {}), (PGD, {"steps": 10})])
def test_a_network_that_runs_half_precision_inside_is_as_fragile(attack, steps):
    """Squares of small differences and their gradients underflow in float16 unless they are scaled."""

    class Mixed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            with torch.autocast("cpu", torch.float16):
                return self.inner(x).float()

    model, x = load("edsr-xs"), sample_image("coffee")[None, :, 100:116, 100:116]
    found = [attack(epsilon=EPSILON, **steps)(one, x).images for one in (model, Mixed(model))]
    with torch.no_grad():
        plain, mixed = (psnr_rgb(model(x), model(images)).item() for images in found)
    assert mixed == pytest.approx(plain, abs=1)
