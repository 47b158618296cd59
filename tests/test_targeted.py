import dataclasses
import math

import pytest
import torch
from PIL import Image
from small import images, network
from torch import nn

from resolute.attacks.apgd import APGD
from resolute.attacks.ball import L2, Linf, Masked, Rectangle
from resolute.attacks.gradient import FGSM, IFGSM, MIFGSM, PGD
from resolute.attacks.objective import OutputShift, RegionShift
from resolute.attacks.partial import Partial
from resolute.attacks.targeted import (
    Given,
    OutputOf,
    Picture,
    ReferenceShift,
    SavedOutput,
    TargetDistance,
    Truth,
    with_truth,
)
from resolute.attacks.transfer import Source, Transfer, WorstOf
from resolute.errors import ConfigError, ImageError, ModelWarning

EPSILON = 8 / 255


def test_a_targeted_attack_comes_nearer_to_its_target_and_not_the_clean_output():
    model, x = network(), images(2)
    target = OutputOf(images(1, seed=5))
    wanted = model(target.images).detach()
    found = PGD(epsilon=EPSILON, objective=TargetDistance(target), start="tiny")(model, x)
    distance = (model(found.images) - wanted).square().flatten(1).mean(dim=1).detach()
    before = (model(x) - wanted).square().flatten(1).mean(dim=1).detach()
    assert (distance < 0.97 * before).all()
    torch.testing.assert_close(found.objective, -distance)
    untargeted = PGD(epsilon=EPSILON, start="tiny")(model, x)
    assert (distance < (model(untargeted.images) - wanted).square().flatten(1).mean(dim=1)).all()


def test_a_target_within_reach_is_reached():
    """The output of an image inside the ball: how near an attack comes has a known best of zero."""
    model, x = network(), images(1) * 0.8 + 0.1
    inside = Linf(EPSILON).random(x, torch.Generator().manual_seed(0), EPSILON)
    target = TargetDistance(OutputOf(inside))
    clean = target.bind(model, x)(x)
    found = APGD(epsilon=EPSILON, steps=200, objective=target)(model, x)
    assert found.objective_unrounded > clean / 8
    assert found.objective_unrounded <= 0


def test_one_target_or_one_an_image():
    model, x = network(), images(2)
    targets = torch.rand(2, 3, 14, 12, generator=torch.Generator().manual_seed(1))
    both = TargetDistance(Given(targets)).bind(model, x)(x)
    for index in range(2):
        alone = TargetDistance(Given(targets[index : index + 1])).bind(model, x)(x)
        torch.testing.assert_close(alone[index], both[index])
    for wrong in (torch.zeros(1, 3, 7, 6), torch.zeros(3, 3, 14, 12)):
        with pytest.raises(ValueError, match="size"):
            TargetDistance(Given(wrong)).bind(model, x)


def test_a_picture_is_stretched_to_the_output(tmp_path):
    path = tmp_path / "target.png"
    Image.new("RGB", (9, 5), (255, 0, 0)).save(path)
    picture = Picture.read(path)
    wanted = picture(network(), images(1))
    assert wanted.shape == (1, 3, 14, 12)
    torch.testing.assert_close(wanted.mean(dim=(0, 2, 3)), torch.tensor([1.0, 0.0, 0.0]))
    assert eval(repr(picture)) == picture
    Image.new("RGB", (9, 5), (0, 255, 0)).save(path)
    assert Picture.read(path) != picture
    with pytest.raises(ImageError):
        Picture.read(tmp_path / "nothing.png")


def test_the_saved_output_is_what_a_file_holds():
    model, x = network(), images(1)
    saved = SavedOutput()(model, x)
    assert torch.equal(saved, torch.round(saved * 255) / 255)
    assert (saved - model(x).clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("reference", [SavedOutput(), Given(torch.zeros(1, 3, 14, 12))])
def test_with_another_reference_the_clean_image_is_a_start(reference):
    model, x = network(), images(1)
    attack = IFGSM(epsilon=EPSILON, start="zero", objective=ReferenceShift(reference))
    found = attack(model, x)
    assert found.objective > attack.objective.bind(model, x)(x)
    assert (found.images != x).double().mean() > 0.9


def test_the_truth_is_filled_in_where_it_is_asked_for():
    truth = torch.rand(1, 3, 14, 12, generator=torch.Generator().manual_seed(2))
    attack = FGSM(epsilon=EPSILON, start="zero", objective=ReferenceShift(Truth()))
    model, x = network(), images(1)
    with pytest.raises(ConfigError, match="truth"):
        attack(model, x)
    filled = with_truth(attack, truth)
    before = (model(x) - truth).square().mean()
    assert filled(model, x).objective > before
    assert with_truth(attack, None) is attack
    plain = FGSM(epsilon=EPSILON)
    assert with_truth(plain, truth) is plain
    around = WorstOf(
        epsilon=EPSILON,
        attacks=(plain, Transfer(epsilon=EPSILON, source=Source(model), attack=attack)),
        objective=ReferenceShift(Truth()),
    )
    inner = with_truth(around, truth)
    assert inner.objective == inner.attacks[1].attack.objective == ReferenceShift(Given(truth))
    assert inner.attacks[0] is plain
    assert inner(model, x).objective > before


def test_given_images_are_told_apart_by_what_they_show():
    one, same, other = (Given(torch.full((1, 3, 2, 2), value)) for value in (0.5, 0.5, 0.25))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert repr(one) != repr(other)
    assert OutputOf(one.images) != one


# A part of the image.


@pytest.mark.parametrize("ball", [Linf(EPSILON), L2(0.3)])
@pytest.mark.parametrize("attack", [IFGSM, MIFGSM, PGD, APGD])
def test_masked_pixels_are_untouched(ball, attack):
    region = Rectangle(0, 0, 0.5, 0.7)
    inside = attack(epsilon=EPSILON) if isinstance(ball, Linf) else PGD(epsilon=0.3, norm="l2")
    x = images(2, 8, 9)
    found = Partial(epsilon=inside.epsilon, attack=inside, region=region)(network(), x)
    mask = region.mask(8, 9)
    for attacked in (found.images, found.unrounded):
        assert torch.equal(attacked[..., ~mask], x[..., ~mask])
        assert (attacked[..., mask] != x[..., mask]).double().mean() > 0.5
        assert (ball.norm(attacked - x) <= ball.epsilon + 1e-6).all()
        assert ((attacked >= 0) & (attacked <= 1)).all()


def test_damage_counts_where_nothing_was_touched():
    model, x, region = network(), images(2, 8, 8), Rectangle(0, 0, 1, 0.5)
    attack = Partial(epsilon=EPSILON, attack=PGD(epsilon=EPSILON), region=region)
    found = attack(model, x)
    moved = (model(found.images) - model(x)).square().detach()
    torch.testing.assert_close(found.objective, moved[..., 8:].flatten(1).mean(dim=1))
    # Only the receptive field carries it across the border, so next to it is more than far away.
    assert (found.objective > 0).all()
    assert moved[..., 8:10].mean() > 10 * moved[..., 14:].mean()
    whole = Partial(epsilon=EPSILON, attack=PGD(epsilon=EPSILON), region=region, objective=OutputShift())(model, x)
    assert (found.objective >= 0.99 * RegionShift(region).bind(model, x)(whole.images)).all()


def test_a_region_shift_is_flat_at_the_clean_image_and_covers_not_everything():
    with pytest.raises(ValueError, match="zero"):
        Partial(
            epsilon=EPSILON,
            attack=PGD(epsilon=EPSILON, start="zero", objective=ReferenceShift(SavedOutput())),
            region=Rectangle(),
        )
    with pytest.raises(ValueError, match="nothing"):
        RegionShift(Rectangle(0, 0, 1, 1)).bind(network(), images(1))


OUTSIDE = [(0.5, 0, 0.5, 1), (0, 0.6, 1, 0.5), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (math.nan, 0, 1, 1)]


@pytest.mark.parametrize("sides", OUTSIDE)
def test_rectangles_outside_the_image_are_refused(sides):
    with pytest.raises(ValueError, match="shares"):
        Rectangle(*sides)


def test_masks_fit_together():
    parts = [Rectangle(top, left, top + 0.5, left + 0.5) for top in (0, 0.5) for left in (0, 0.5)]
    for height, width in ((4, 6), (5, 7), (1, 1)):
        covered = sum(part.mask(height, width).int() for part in parts)
        assert torch.equal(covered, torch.ones(height, width, dtype=torch.int32))


def test_a_masked_step_is_the_best_inside():
    ball = Masked(L2(1.0), Rectangle())
    gradient = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    step = ball.ascend(torch.zeros_like(gradient), gradient, 0.5)
    torch.testing.assert_close(ball.norm(step), torch.full((2,), 0.5))
    mask = Rectangle().mask(8, 8)
    assert (step[..., ~mask] == 0).all()
    share = step[..., mask] / gradient[..., mask]
    torch.testing.assert_close(share, share[:, :1, :1].expand_as(share))


def test_partial_wants_one_budget():
    with pytest.raises(ValueError, match="epsilon"):
        Partial(epsilon=EPSILON, attack=PGD(epsilon=EPSILON / 2), region=Rectangle())
    assert dataclasses.replace(PGD(epsilon=EPSILON)).epsilon == EPSILON
    with pytest.warns(ModelWarning, match="zero"):
        found = Partial(epsilon=EPSILON, attack=PGD(epsilon=EPSILON), region=Rectangle())(nn.Identity(), images(1))
    assert found.objective == 0
