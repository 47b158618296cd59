import pytest
import torch
from small import Plane, images, network
from torch import nn

from resolute.attacks.gradient import IFGSM
from resolute.attacks.objective import OutputShift
from resolute.attacks.universal import perturbed, universal

EPSILON = 8 / 255


def test_all_images_get_the_same_perturbation():
    x = images(4) * 0.5 + 0.25
    x = torch.round(x * 255) / 255
    shift = universal(network(), x, EPSILON, steps=8)
    assert shift.shape == (1, 3, 7, 6)
    assert shift.abs().max() <= EPSILON + 1e-6
    levels = (perturbed(x, shift) - x) * 255
    torch.testing.assert_close(levels, (shift * 255).expand_as(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("epsilon", [0.5 / 255, 3.6 / 255])
def test_a_budget_between_two_levels_is_never_exceeded(epsilon):
    shift = universal(network(), images(3), epsilon, steps=5)
    assert int((shift.abs().max() * 255).round()) == int(epsilon * 255)


def test_it_climbs_the_mean_over_the_images():
    """Of a linear objective the best perturbation is known, as long as no pixel is near the ends of the range."""
    x = images(3) * 0.5 + 0.25
    shift = universal(nn.Identity(), x, EPSILON, steps=5, objective=Plane())
    torch.testing.assert_close(shift[0], EPSILON * Plane().weights(x).sign())


def test_it_beats_noise_on_every_image_it_was_made_for_and_others_and_loses_to_attacks_of_their_own():
    model, x = network(), images(6, 12, 12)
    seen, unseen = x[:4], images(3, 12, 12, seed=9)
    shift = universal(model, seen, EPSILON, steps=50)
    noise = EPSILON * (torch.randint(0, 2, shift.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    for group in (seen, unseen):
        bound = OutputShift().bind(model, group)
        value = bound(perturbed(group, shift))
        assert (value > bound(perturbed(group, noise))).all()
        assert (value < IFGSM(epsilon=EPSILON)(model, group).objective).all()
    assert (
        OutputShift().bind(model, seen)(perturbed(seen, shift)).mean()
        > OutputShift().bind(model, seen)(perturbed(seen, universal(model, unseen, EPSILON, steps=50))).mean()
    )


def test_each_image_is_compared_with_its_own_clean_output():
    """The published code compares every image with all of them, which this objective would tell."""
    asked = []

    class Paired:
        def bind(self, model, clean):
            def value(x):
                asked.append(float((x - clean).abs().max().detach()))
                return (x - clean).square().flatten(1).mean(dim=1)

            return value

    universal(nn.Identity(), images(3), EPSILON, steps=4, objective=Paired())
    assert len(asked) == 5
    assert max(asked) <= EPSILON + 1e-6


def test_the_order_of_the_images_does_not_matter_and_the_seed_does():
    model, x = network().double(), images(3).double()
    first = universal(model, x, EPSILON, steps=6)
    assert torch.equal(first, universal(model, x, EPSILON, steps=6))
    assert torch.equal(first, universal(model, x.flip(0), EPSILON, steps=6))
    plain = [universal(model, x, EPSILON, steps=6, seed=seed) for seed in (1, 2, 3)]
    assert any(not torch.equal(first, other) for other in plain)


def test_progress_and_the_model_come_back():
    model, calls = network().train(), []
    universal(model, images(2), EPSILON, steps=3, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert model.training
    assert model.body[0].body[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="crops"):
        universal(network(), images(1), EPSILON)
    with pytest.raises(ValueError, match=r"epsilon .*\(0, 1\]"):
        universal(network(), images(2), 8.0)
    with pytest.raises(ValueError, match="steps"):
        universal(network(), images(2), EPSILON, steps=0)
    with pytest.raises(ValueError, match=r"\(3, 7, 6\), not \(3, 9, 6\)"):
        perturbed(images(2, 9), torch.zeros(1, 3, 7, 6))
