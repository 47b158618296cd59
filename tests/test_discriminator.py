import pytest
import torch
from torch.nn import functional as F

from resolute.models.discriminator import Discriminator


def images(count, side):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("bias", "count"), [(True, 23_565_505), (False, 23_563_649)])
def test_it_has_the_published_size(bias, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Discriminator(bias=bias).parameters()) == count


def test_its_layers_are_those_of_the_figure():
    with torch.device("meta"):
        layers = [module for module in Discriminator().modules() if isinstance(module, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [layer.stride[0] for layer in layers] == [1, 2, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("size", [1, 15, 16, 24, 40, 96])
def test_it_takes_images_of_its_size_alone(size):
    network = Discriminator(size, channels=2, hidden=4).eval()
    logits = network(images(3, size))
    assert logits.shape == (3,)
    assert logits.isfinite().all()
    with pytest.raises(ValueError, match=f"takes {size} x {size} pixels, not {size + 16} x {size + 16}"):
        network(images(1, size + 16))


def test_black_and_white_are_minus_one_and_one_inside():
    network, seen = Discriminator(16, channels=2, hidden=4).eval(), []
    network.body[0].register_forward_hook(lambda *call: seen.append(call[1][0]))
    network(torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)]))
    assert seen[0][0].unique().tolist() == [-1.0]
    assert seen[0][1].unique().tolist() == [1.0]


def test_it_learns_to_tell_two_kinds_of_images():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Discriminator(16, channels=4, hidden=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    fine = images(16, 16)
    flat = F.avg_pool2d(fine, 5, stride=1, padding=2, count_include_pad=False)
    for _ in range(30):
        loss = F.softplus(-network(fine)).mean() + F.softplus(network(flat)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network(fine).min() > network(flat).max()


@pytest.mark.parametrize("arguments", [{"size": 0}, {"channels": 0}, {"hidden": -1}], ids=str)
def test_sizes_below_one_are_refused(arguments):
    with pytest.raises(ValueError, match="are one or more"):
        Discriminator(**arguments)
