import pytest
import torch
from small import network
from torch import nn

from resolute.models.wrapped import as_restorer
from resolute.training.reached import in_use, reach_of

# Random networks do not upscale, and are said not to.
pytestmark = pytest.mark.filterwarnings("ignore::resolute.errors.ModelWarning")


class Merged(nn.Module):
    """A convolution that is made anew from a branch whenever it is used, as re-parametrised networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(3, 48, 3, padding=1)
        self.merged = nn.Conv2d(3, 48, 3, padding=1).requires_grad_(False)
        self.normal = nn.BatchNorm2d(48)

    def forward(self, x):
        if not self.training:
            self.merged.load_state_dict(self.branch.state_dict())
        return nn.functional.pixel_shuffle(self.normal((self.branch if self.training else self.merged)(x)), 4)


def restorer(module, scale=4):
    return as_restorer(module.eval(), scale).eval()


def test_an_ordinary_network_is_trained_as_it_is_in_use():
    model = restorer(network(), 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = reach_of(model, unfreeze=True)
    assert (found.branches, found.unfrozen) == (False, False)
    assert found.share > 0.9
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_branches_that_are_merged_in_use_are_trained():
    model = restorer(Merged())
    found = reach_of(model, unfreeze=True)
    assert found.branches
    assert not found.unfrozen
    in_use(model, found.branches)
    module = next(one for one in model.modules() if isinstance(one, Merged))
    assert module.training
    assert not module.normal.training


def test_weights_that_a_constructor_froze_are_trained_unless_a_caller_froze_them():
    frozen = network()
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_("head" in name)
    model = restorer(frozen, 2)
    kept = reach_of(model, unfreeze=False)
    assert (kept.unfrozen, kept.share < 0.5) == (False, True)
    freed = reach_of(model, unfreeze=True)
    assert (freed.unfrozen, freed.share > 0.9) == (True, True)
    assert [p.requires_grad for p in frozen.parameters()] == ["head" in n for n, _ in frozen.named_parameters()]


def test_a_network_that_nothing_reaches_has_a_share_of_nothing():
    assert reach_of(restorer(network().requires_grad_(False), 2), unfreeze=False).share == 0
