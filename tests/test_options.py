"""Every word and number is checked where it is given."""

import dataclasses
import math
import typing

import pytest
import torch
from small import images, network
from torch import nn

from resolute.attacks import universal
from resolute.attacks.adaptive import Bits
from resolute.attacks.ascent import Ascent
from resolute.attacks.ball import L2, Linf, Masked, Rectangle, ball_of, check_levels
from resolute.attacks.batch import Job, attack_all
from resolute.attacks.gradient import IFGSM, PGD
from resolute.attacks.names import ATTACKS
from resolute.attacks.objective import FeatureDisruption, FeatureShift, OutputShift, ScoreGain
from resolute.attacks.options import field_types
from resolute.attacks.registry import AttackTable
from resolute.attacks.square import Square
from resolute.attacks.transfer import Source
from resolute.cli.app import parse_levels
from resolute.defences.entropy import ChannelDensity
from resolute.errors import BudgetWarning, ConfigError

# What a person's own code does, which no type checker has seen.
pytestmark = pytest.mark.usefixtures("unchecked_shapes")

EPSILON = 8 / 255
NEEDED = {
    "source": Source(network()), "attack": IFGSM(epsilon=EPSILON), "attacks": (IFGSM(epsilon=EPSILON),),
}  # fmt: skip


def built(kind, **options):
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{"epsilon": EPSILON, **{name: value for name, value in NEEDED.items() if name in names}, **options})


def literals():
    for kind in ATTACKS.values():
        for name, hint in field_types(kind).items():
            if typing.get_origin(hint) is typing.Literal:
                yield pytest.param(kind, name, id=f"{kind.__name__}-{name}")


@pytest.mark.parametrize(("kind", "name"), list(literals()))
def test_a_wrong_word_is_refused_with_the_right_ones(kind, name):
    for word in ("l1", "", 7, None):
        with pytest.raises(ConfigError, match=f"^{name}: .*{typing.get_args(field_types(kind)[name])[0]}") as caught:
            built(kind, **{name: word})
        assert caught.value.key == (name,)


def test_the_words_in_question_are_among_them():
    fields = {case.id for case in literals()}
    assert {"PGD-norm", "PGD-start", "FGSM-precision", "RandomNoise-shape", "WorstOf-precision"} <= fields


@pytest.mark.parametrize("kind", ATTACKS.values())
def test_a_number_out_of_range_is_refused(kind):
    for name in ("steps", "restarts", "queries", "draws"):
        if name in field_types(kind):
            for value in (0, -1, 2.5, "few"):
                with pytest.raises(ConfigError, match=f"^{name}: "):
                    built(kind, **{name: value})
    for epsilon in (0, -1, 8, math.nan, math.inf, "wide"):
        with pytest.raises(ConfigError, match="epsilon"):
            built(kind, epsilon=epsilon)


@pytest.mark.parametrize("share", [0, -0.2, 1.01, math.nan])
def test_a_share_is_in_zero_to_one(share):
    with pytest.raises(ConfigError, match=r"^share: "):
        Square(epsilon=EPSILON, share=share)
    with pytest.raises(ConfigError, match=r"^share: "):
        AttackTable("square", share=share)
    assert Square(epsilon=EPSILON, share=1).share == 1


@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if kind != "worst"])
def test_tables_and_words_refuse_what_the_class_refuses(kind):
    source = {"source": "bicubic"} if kind in ("transfer", "warm_start") else {}
    for name, hint in field_types(ATTACKS[kind]).items():
        if typing.get_origin(hint) is typing.Literal and name != "precision":
            with pytest.raises(ConfigError, match=f"^{name}: "):
                AttackTable(kind, **source, **{name: "wrong"})
            with pytest.raises(ConfigError, match=f"^{name}: "):
                AttackTable.typed([f"{name}=wrong"], kind, **source)


def test_objectives_and_plans_check_theirs():
    for make in (
        lambda: FeatureDisruption(mask="x"),
        lambda: FeatureShift(layers="head"),
        lambda: ScoreGain(sign=2),
        lambda: Bits(ChannelDensity(channels=2), delta=0),
        lambda: Ascent(objective=OutputShift(), ball=Linf(0.1), steps=1, step_size=0.1, start="x"),
        lambda: ball_of("l1", 0.1),
        lambda: AttackTable("pgd").build(EPSILON, "fp8"),
        lambda: AttackTable("pgd", label=3),
    ):
        with pytest.raises(ConfigError):
            make()


def test_what_says_the_same_becomes_the_type():
    attack = PGD(epsilon=EPSILON, steps="7", relative_step=1)
    assert attack == PGD(epsilon=EPSILON, steps=7, relative_step=1.0)
    assert repr(attack) == repr(PGD(epsilon=EPSILON, steps=7, relative_step=1.0))


# Budgets on the 8-bit grid.


def test_a_budget_below_one_level_is_refused():
    for table in (AttackTable("ifgsm"), AttackTable("partial"), AttackTable("pgd", norm="l2")):
        with pytest.raises(ConfigError, match=r"0\.765/255.*1/255 or more"):
            table.build(0.003)
    with pytest.raises(ConfigError, match=r"^--budget: .*1/255"):
        parse_levels("0.003", "--budget")


@pytest.mark.parametrize("ball", [Linf(0.031), Masked(Linf(0.031), Rectangle())])
def test_a_budget_between_levels_is_said(ball):
    with pytest.warns(BudgetWarning, match=r"7\.9\d*/255.* 7/255 or 8/255"):
        check_levels(ball)


def test_budgets_on_the_grid_and_l2_radii_pass_without_a_word():
    for ball in (*(Linf(level / 255) for level in range(1, 256)), L2(0.031), L2(0.5)):
        check_levels(ball)
    assert parse_levels("4/255") == 4 / 255
    with pytest.warns(BudgetWarning):
        parse_levels("0.031")


# Gradients.


def test_inference_mode_changes_nothing():
    model, x, attack = network(), images(1), IFGSM(epsilon=EPSILON, steps=2)
    expected, shift = attack(model, x), universal(model, images(2), EPSILON, steps=2)
    with torch.inference_mode():
        found = attack(model, x.clone())
        (batched,) = attack_all(model, [Job(attack, x.clone())])
        universally = universal(model, images(2), EPSILON, steps=2)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(found.images, expected.images)
    assert torch.equal(batched.images, expected.images)
    assert torch.equal(universally, shift)
    assert not found.images.is_inference()


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = network()
        with pytest.raises(ConfigError, match="inference_mode"):
            IFGSM(epsilon=EPSILON, steps=2)(model, images(1))


class Detached(nn.Module):
    def forward(self, x):
        return x.detach() * 2


class Elsewhere(nn.Module):
    def forward(self, x):
        return x.detach() * torch.ones(1, requires_grad=True)


@pytest.mark.parametrize("model", [Detached(), Elsewhere()])
def test_an_output_without_gradient_is_said_with_the_remedy(model):
    x = images(1)
    with pytest.raises(ConfigError, match="Square"):
        PGD(epsilon=EPSILON, steps=2)(model, x)
    with pytest.raises(ConfigError, match="Square"):
        attack_all(model, [Job(PGD(epsilon=EPSILON, steps=2), x)])
    assert Square(epsilon=EPSILON, queries=2)(model, x).gradients == 2
