import pytest
import torch
from layouts import Layout, conv_of, upsampled
from torch.nn import functional as F

from resolute.errors import CheckpointError
from resolute.models import EDSR, Bicubic, load
from resolute.models.blocks import DIV2K_MEAN, MeanShift
from resolute.models.edsr import ARCHITECTURE, EDSRBlock


def official_layout(scale, blocks=16, channels=64):
    """Names and shapes of the released checkpoints, written down from their description."""
    layout = Layout()
    layout.entry(channels)
    for block in range(blocks):
        layout.conv(f"body.{block}.body.0", channels, channels)
        layout.conv(f"body.{block}.body.2", channels, channels)
    layout.conv(f"body.{blocks}", channels, channels)
    layout.upsampler("tail.0", scale, channels)
    layout.conv("tail.1", 3, channels)
    return layout


def reference(state, x, scale, blocks):
    """EDSR from its equations, one functional call after the other."""
    conv = conv_of(state)
    h = shallow = conv("head.0", conv("sub_mean", 255 * x))
    for block in range(blocks):
        h = h + conv(f"body.{block}.body.2", conv(f"body.{block}.body.0", h).relu())
    phi = conv(f"body.{blocks}", h) + shallow
    return phi, conv("add_mean", conv("tail.1", upsampled(conv, "tail.0", scale, phi))) / 255


def basicsr(state, blocks):
    """Rename the entries of an official checkpoint as BasicSR does, which keeps the mean colour outside."""
    names = {"head.0": "conv_first", f"body.{blocks}": "conv_after_body", "tail.1": "conv_last"}
    for block in range(blocks):
        names |= {f"body.{block}.body.0": f"body.{block}.conv1", f"body.{block}.body.2": f"body.{block}.conv2"}
    names |= {f"tail.0.{stage}": f"upsample.{stage}" for stage in (0, 2)}
    parts = {name: name.rsplit(".", 1) for name in state if "_mean." not in name}
    return {f"{names[layer]}.{kind}": state[name] for name, (layer, kind) in parts.items()}


def network(**sizes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EDSR(**sizes).eval()


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("scale", "parameters", "entries"), [(2, 1369883, 76), (3, 1554523, 76), (4, 1517595, 78)])
def test_the_baseline_has_the_published_size_and_layout(scale, parameters, entries):
    model = EDSR(scale)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    state = model.state_dict()
    assert len(state) == entries
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == official_layout(scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_official_layout_computes_what_its_equations_say(scale):
    state = official_layout(scale, blocks=3, channels=8).random()
    model, x = ARCHITECTURE.load(state).eval(), images(2, 3, 7, 5)
    phi, output = reference(state, x, scale, blocks=3)
    torch.testing.assert_close(model.features(x), phi, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-4)
    assert output.shape == (2, 3, 7 * scale, 5 * scale)


@pytest.mark.parametrize(("scale", "parameters"), [(2, 40_729_627), (3, 43_680_027), (4, 43_089_947)])
def test_the_large_network_has_the_published_size_and_residual_scale(scale, parameters):
    with torch.device("meta"):
        model = EDSR(scale, blocks=32, channels=256)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert {block.res_scale for block in model.body[:-1]} == {0.1}
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == official_layout(scale, 32, 256)


def test_the_residual_scale_multiplies_the_branch_alone():
    block, x = EDSRBlock(4, res_scale=0.1), images(1, 4, 5, 5)
    torch.testing.assert_close(block(x), x + 0.1 * block.body(x))
    assert network(blocks=1, channels=4, res_scale=0.1).arguments()["res_scale"] == 0.1
    assert "res_scale" not in network(blocks=1, channels=4, res_scale=1.0).arguments()


@pytest.mark.slow
def test_the_large_network_loads_with_its_residual_scale(tmp_path):
    state = {name: torch.zeros(shape) for name, shape in official_layout(2, 32, 256).items()}
    torch.save(state, tmp_path / "edsr_x2.pt")
    model = load(tmp_path / "edsr_x2.pt", scale=2)
    assert model.body[31].res_scale == 0.1
    assert (model.arguments()["blocks"], model.arguments()["channels"]) == (32, 256)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_basicsrs_names_load_as_the_same_network(scale, tmp_path):
    state = official_layout(scale, blocks=3, channels=8).random()
    renamed = basicsr(state, blocks=3)
    assert not renamed.keys() & state.keys()
    assert len(renamed) == len(state) - 4
    torch.save({"params": renamed}, tmp_path / "basicsr.pth")
    shifts = {name: tensor for name, tensor in EDSR(scale, 3, 8).state_dict().items() if "_mean." in name}
    expected = ARCHITECTURE.load({**state, **shifts}).eval()
    model = load(tmp_path / "basicsr.pth", scale=scale)
    assert model.arguments() == expected.arguments()
    torch.testing.assert_close(model(images(1, 3, 7, 5)), expected(images(1, 3, 7, 5)))


def test_other_networks_of_basicsr_are_not_mistaken_for_edsr():
    """Its MSRResNet has no convolution after the blocks, and another upsampler."""
    names = ("conv_first", "body.0.conv1", "body.0.conv2", "upconv1", "upconv2", "conv_hr", "conv_last")
    assert not ARCHITECTURE.detects({f"{name}.weight": torch.zeros(1) for name in names})


@pytest.mark.parametrize("upsampler", ["staged", "direct"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("blocks", "channels"), [(1, 4), (3, 12)])
def test_a_network_is_built_again_from_its_weights(upsampler, scale, blocks, channels):
    model = network(scale=scale, blocks=blocks, channels=channels, upsampler=upsampler)
    assert ARCHITECTURE.detects(model.state_dict())
    again = ARCHITECTURE.load(model.state_dict()).eval()
    assert again.arguments() == model.arguments()
    assert again.arguments() == {
        "class": "EDSR",
        "scale": scale,
        "blocks": blocks,
        "channels": channels,
        "upsampler": upsampler,
    }
    x = images(1, 3, 6, 5)
    assert torch.equal(again(x), model(x))
    assert model(x).shape == (1, 3, 6 * scale, 5 * scale)


def test_the_two_halves_of_bicubic_meet_at_the_feature_layer():
    model, x, seen = Bicubic(scale=3), images(2, 3, 6, 5), []
    handle = model.get_submodule(model.feature_layer).register_forward_hook(lambda *call: seen.append(call[2]))
    output = model(x)
    handle.remove()
    phi = model.features(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], phi)
    assert torch.equal(model.reconstruct(phi), output)


def test_the_feature_layer_comes_after_the_long_skip():
    model, x = network(scale=2, blocks=2, channels=6), images(1, 3, 6, 5)
    shallow = model.head(model.sub_mean(255 * x))
    torch.testing.assert_close(model.features(x), shallow + model.body(shallow))
    assert EDSR.feature_layer == "long_skip"
    assert not any(name.startswith("long_skip") for name in model.state_dict())


def test_a_network_without_weights_returns_the_mean_colour():
    """Both ends are on the scale of [0, 1], and the mean leaves at the input and returns at the output."""
    model = network(scale=2, blocks=1, channels=4)
    with torch.no_grad():
        for part in (model.head, model.body, model.tail):
            for parameter in part.parameters():
                parameter.zero_()
        output = model(images(1, 3, 4, 4))
        means = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
        torch.testing.assert_close(output, means.expand_as(output))
        assert model.sub_mean(255 * means).abs().max() < 1e-4


def test_the_output_is_not_clamped():
    model = network(scale=2, blocks=1, channels=4)
    with torch.no_grad():
        model.tail[1].bias += torch.tensor([500.0, -500.0, 0.0])
        output = model(images(1, 3, 4, 4))
    assert output[:, 0].min() > 1
    assert output[:, 1].max() < 0


def test_mean_shifts_are_frozen_and_yet_loaded():
    model = network(scale=2, blocks=1, channels=4)
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == [
        "sub_mean.weight",
        "sub_mean.bias",
        "add_mean.weight",
        "add_mean.bias",
    ]
    state = model.state_dict()
    state["sub_mean.bias"] = state["sub_mean.bias"] + 3
    assert torch.equal(ARCHITECTURE.load(state).sub_mean.bias, state["sub_mean.bias"])


def test_mean_shifts_are_the_convolutions_that_their_weights_say():
    shift, x = MeanShift(-1), 255 * images(2, 3, 5, 4)
    assert torch.equal(shift(x), F.conv2d(x, shift.weight, shift.bias))
    mixing = {"weight": torch.randn(3, 3, 1, 1), "bias": torch.randn(3)}
    shift.load_state_dict(mixing)
    assert torch.equal(shift(x), F.conv2d(x, **mixing))
    shift.load_state_dict(MeanShift(+1).state_dict())
    assert torch.equal(shift(x), x + shift.bias.view(3, 1, 1))
    shift.weight.requires_grad_()
    shift(x).sum().backward()
    assert shift.weight.grad.abs().min() > 0


@pytest.mark.parametrize("scale", [1, 5, 8])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match=f"EDSR upscales by 2, 3 or 4, not {scale}"):
        EDSR(scale)


def test_a_checkpoint_of_scale_8_says_so(tmp_path):
    state = EDSR(scale=4, blocks=1, channels=4).state_dict()
    state |= {name.replace("tail.0.2", "tail.0.4"): state[name] for name in list(state) if name.startswith("tail.0.2")}
    torch.save(state, tmp_path / "x8.pt")
    with pytest.raises(CheckpointError, match=r"by 8\b.* 2, 3 and 4\b"):
        load(tmp_path / "x8.pt")
