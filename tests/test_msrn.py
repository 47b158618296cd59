import pytest
import torch
from layouts import Layout, conv_of, upsampled

from resolute.errors import CheckpointError
from resolute.models import MSRN, load


def official_layout(scale, blocks=8, channels=64):
    """Names and shapes of the released RGB checkpoints, written down from their description."""
    layout = Layout()
    layout.entry(channels)
    for block in range(blocks):
        layout.conv(f"body.{block}.conv_3_1", channels, channels)
        layout.conv(f"body.{block}.conv_3_2", 2 * channels, 2 * channels)
        layout.conv(f"body.{block}.conv_5_1", channels, channels, 5)
        layout.conv(f"body.{block}.conv_5_2", 2 * channels, 2 * channels, 5)
        layout.conv(f"body.{block}.confusion", channels, 4 * channels, 1)
    layout.conv("tail.0", channels, (blocks + 1) * channels, 1)
    layout.conv("tail.1", channels, channels)
    layout.upsampler("tail.2", scale, channels)
    layout.conv("tail.3", 3, channels)
    return layout


def reference(state, x, scale, blocks):
    """MSRN from its equations, one functional call after the other."""
    conv = conv_of(state)
    h = head = conv("head.0", conv("sub_mean", 255 * x))
    outputs = []
    for i in range(blocks):
        a3, a5 = (conv(f"body.{i}.conv_{size}_1", h).relu() for size in (3, 5))
        joined = torch.cat([a3, a5], 1)
        b3, b5 = (conv(f"body.{i}.conv_{size}_2", joined).relu() for size in (3, 5))
        h = conv(f"body.{i}.confusion", torch.cat([b3, b5], 1)) + h
        outputs.append(h)
    phi = conv("tail.1", conv("tail.0", torch.cat([*outputs, head], 1)))
    return phi, conv("add_mean", conv("tail.3", upsampled(conv, "tail.2", scale, phi))) / 255


@pytest.mark.parametrize(("scale", "entries"), [(2, 94), (3, 94), (4, 96)])
def test_the_published_network_has_the_published_layout(scale, entries):
    with torch.device("meta"):
        state = MSRN(scale).state_dict()
    assert len(state) == entries
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == official_layout(scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_official_layout_computes_what_its_equations_say(scale, tmp_path):
    state = official_layout(scale, blocks=3, channels=6).random()
    torch.save(state, tmp_path / "msrn.pt")
    model = load(tmp_path / "msrn.pt", scale=scale)
    assert model.arguments() == {"class": "MSRN", "scale": scale, "blocks": 3, "channels": 6, "upsampler": "staged"}
    x = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    phi, output = reference(state, x, scale, blocks=3)
    torch.testing.assert_close(model.features(x), phi, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-4)


def test_the_older_release_on_luma_is_refused_with_the_way_out(tmp_path):
    state = {"conv_input.weight": torch.zeros(64, 1, 3, 3), "bottle.weight": torch.zeros(64, 576, 1, 1)}
    state |= {f"residual{i}.0.confusion.weight": torch.zeros(64, 256, 1, 1) for i in range(1, 9)}
    torch.save(state, tmp_path / "old.pt")
    with pytest.raises(CheckpointError, match=r"old\.pt .*MSRN_x2, MSRN_x3 or MSRN_x4"):
        load(tmp_path / "old.pt")
