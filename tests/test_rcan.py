import pytest
import torch
from layouts import Layout, conv_of, upsampled
from torch.nn import functional as F

from resolute.models import RCAN, load


def official_layout(scale, groups=10, blocks=20, channels=64, reduction=16):
    """Names and shapes of the released checkpoints, written down from their description."""
    layout = Layout()
    layout.entry(channels)
    for group in range(groups):
        for block in range(blocks):
            layout.conv(f"body.{group}.body.{block}.body.0", channels, channels)
            layout.conv(f"body.{group}.body.{block}.body.2", channels, channels)
            layout.conv(f"body.{group}.body.{block}.body.3.conv_du.0", channels // reduction, channels, 1)
            layout.conv(f"body.{group}.body.{block}.body.3.conv_du.2", channels, channels // reduction, 1)
        layout.conv(f"body.{group}.body.{blocks}", channels, channels)
    layout.conv(f"body.{groups}", channels, channels)
    layout.upsampler("tail.0", scale, channels)
    layout.conv("tail.1", 3, channels)
    return layout


def reference(state, x, scale, groups, blocks):
    """RCAN from its equations, one functional call after the other."""
    conv = conv_of(state)
    h = shallow = conv("head.0", conv("sub_mean", 255 * x))
    for g in range(groups):
        entering = h
        for b in range(blocks):
            block = f"body.{g}.body.{b}.body"
            inner = conv(f"{block}.2", conv(f"{block}.0", h).relu())
            pooled = F.adaptive_avg_pool2d(inner, 1)
            attention = conv(f"{block}.3.conv_du.2", conv(f"{block}.3.conv_du.0", pooled).relu()).sigmoid()
            h = h + attention * inner
        h = conv(f"body.{g}.body.{blocks}", h) + entering
    phi = conv(f"body.{groups}", h) + shallow
    return phi, conv("add_mean", conv("tail.1", upsampled(conv, "tail.0", scale, phi))) / 255


@pytest.mark.parametrize(("scale", "entries"), [(2, 1632), (3, 1632), (4, 1634)])
def test_the_published_network_has_the_published_layout(scale, entries):
    with torch.device("meta"):
        state = RCAN(scale).state_dict()
    assert len(state) == entries
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == official_layout(scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_official_layout_computes_what_its_equations_say(scale, tmp_path):
    state = official_layout(scale, groups=2, blocks=3, channels=8, reduction=4).random()
    torch.save(state, tmp_path / "rcan.pt")
    model = load(tmp_path / "rcan.pt", scale=scale)
    assert model.arguments() == {
        "class": "RCAN",
        "scale": scale,
        "groups": 2,
        "blocks": 3,
        "channels": 8,
        "reduction": 4,
        "upsampler": "staged",
    }
    x = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    phi, output = reference(state, x, scale, groups=2, blocks=3)
    torch.testing.assert_close(model.features(x), phi, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduction", [0, -2, 3, 16])
def test_a_reduction_divides_the_channels(reduction):
    with pytest.raises(ValueError, match=f"the reduction of RCAN divides its 8 channels; {reduction} does not"):
        RCAN(channels=8, reduction=reduction)


def test_attention_that_lets_everything_pass_leaves_residual_blocks():
    """A large bias saturates the sigmoid: the attention is then the identity."""
    model = RCAN(scale=2, groups=1, blocks=1, channels=8, reduction=4).eval()
    block = model.body[0].body[0]
    with torch.no_grad():
        block.body[3].conv_du[2].bias.fill_(1e4)
        x = torch.rand(1, 8, 5, 4)
        torch.testing.assert_close(block(x), x + block.body[:3](x))
        block.body[3].conv_du[2].bias.fill_(-1e4)
        torch.testing.assert_close(block(x), x)
