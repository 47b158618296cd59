import pytest
import torch
from torch.nn import functional as F

from resolute.errors import CheckpointError
from resolute.models import CARN, load
from resolute.models.blocks import DIV2K_MEAN
from resolute.models.carn import ARCHITECTURE, select_scale


def official_layout(scales, channels=64, group=1):
    """Names and shapes of checkpoints of the official code, for one scale or several, from their description."""
    shapes = {}

    def conv(name, outputs, inputs, size=3, groups=1):
        shapes[f"{name}.weight"] = (outputs, inputs // groups, size, size)
        shapes[f"{name}.bias"] = (outputs,)

    conv("sub_mean.shifter", 3, 3, 1)
    conv("add_mean.shifter", 3, 3, 1)
    conv("entry", channels, 3)
    for block in ("b1", "b2", "b3"):
        for inner in ("b1",) if group > 1 else ("b1", "b2", "b3"):
            conv(f"{block}.{inner}.body.0", channels, channels, groups=group)
            conv(f"{block}.{inner}.body.2", channels, channels, groups=group)
            if group > 1:
                conv(f"{block}.{inner}.body.4", channels, channels, 1)
        for i in (1, 2, 3):
            conv(f"{block}.c{i}.body.0", channels, (i + 1) * channels, 1)
    for i in (1, 2, 3):
        conv(f"c{i}.body.0", channels, (i + 1) * channels, 1)
    for scale in scales:
        up = "up" if len(scales) == 1 else f"up{scale}"
        if scale == 4:
            conv(f"upsample.{up}.body.0", 4 * channels, channels, groups=group)
            conv(f"upsample.{up}.body.3", 4 * channels, channels, groups=group)
        else:
            conv(f"upsample.{up}.body.0", scale**2 * channels, channels, groups=group)
    conv("exit", 3, channels)
    return shapes


def random_state(shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def parameters(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def reference(state, x, scale, up, group):
    """CARN from its equations, one functional call after the other."""

    def conv(name, value, groups=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(value, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2, groups=groups)

    def residual(name, value):
        inner = conv(f"{name}.body.2", conv(f"{name}.body.0", value, group).relu(), group)
        if group > 1:
            inner = conv(f"{name}.body.4", inner.relu())
        return (inner + value).relu()

    def cascade(prefix, value, block):
        b1 = block(f"{prefix}b1", value)
        c1 = torch.cat([value, b1], 1)
        o1 = conv(f"{prefix}c1.body.0", c1).relu()
        c2 = torch.cat([c1, block(f"{prefix}{'b1' if prefix and group > 1 else 'b2'}", o1)], 1)
        o2 = conv(f"{prefix}c2.body.0", c2).relu()
        c3 = torch.cat([c2, block(f"{prefix}{'b1' if prefix and group > 1 else 'b3'}", o2)], 1)
        return conv(f"{prefix}c3.body.0", c3).relu()

    shallow = conv("entry", conv("sub_mean.shifter", x))
    phi = h = cascade("", shallow, lambda name, value: cascade(f"{name}.", value, residual))
    for stage, factor in enumerate((2, 2) if scale == 4 else (scale,)):
        h = F.pixel_shuffle(conv(f"upsample.{up}.body.{3 * stage}", h, group).relu(), factor)
    return phi, conv("add_mean.shifter", conv("exit", h))


def images():
    return torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("scale", "entries"), [(2, 70), (3, 70), (4, 72)])
@pytest.mark.parametrize("group", [1, 4])
def test_the_published_network_has_the_layout_of_the_official_code(scale, entries, group):
    with torch.device("meta"):
        state = CARN(scale, group=group).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == official_layout([scale], group=group)
    if group == 1:
        assert len(state) == entries


@pytest.mark.parametrize(("group", "entries", "count"), [(1, 76, 1_591_963), (4, 58, 414_811)])
def test_the_layout_for_all_scales_is_the_published_one(group, entries, count):
    shapes = official_layout([2, 3, 4], group=group)
    assert (len(shapes), parameters(shapes)) == (entries, count)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_checkpoint_for_one_scale_computes_what_its_equations_say(scale, group, tmp_path):
    state = random_state(official_layout([scale], channels=8, group=group))
    torch.save(state, tmp_path / "carn.pth")
    model = load(tmp_path / "carn.pth")
    assert model.arguments() == {
        "class": "CARN",
        "scale": scale,
        "channels": 8,
        "group": group,
        "upsampler": "staged",
        "peak": 1.0,
    }
    phi, output = reference(state, images(), scale, "up", group)
    torch.testing.assert_close(model.features(images()), phi, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images()), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_one_scale_is_cut_out_of_a_checkpoint_for_all(scale, group, tmp_path):
    state = random_state(official_layout([2, 3, 4], channels=8, group=group))
    torch.save(state, tmp_path / "carn.pth")
    model = load(tmp_path / "carn.pth", scale=scale)
    assert model.scale == model.card.scale == scale
    _, output = reference(state, images(), scale, f"up{scale}", group)
    torch.testing.assert_close(model(images()), output, rtol=1e-4, atol=1e-5)


def test_each_scale_of_one_file_has_a_fingerprint_of_its_own(tmp_path):
    torch.save(random_state(official_layout([2, 3, 4], channels=8)), tmp_path / "carn.pth")
    assert len({load(tmp_path / "carn.pth", scale=scale).card.sha256 for scale in (2, 3, 4)}) == 3


def test_a_checkpoint_for_several_scales_needs_one_to_be_chosen(tmp_path):
    torch.save(random_state(official_layout([2, 4], channels=8)), tmp_path / "carn.pth")
    for scale in (None, 3):
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / "carn.pth", scale=scale)
        for told in ("carn.pth", "x2, x4", "--scale 4", "#x4"):
            assert told in str(caught.value)


def test_a_checkpoint_for_several_scales_that_lacks_a_layer_says_which(tmp_path):
    state = random_state(official_layout([2, 4], channels=8))
    del state["upsample.up4.body.0.bias"]
    torch.save(state, tmp_path / "carn.pth")
    with pytest.raises(CheckpointError, match=r"CARN .*upsample\.up\.body\.0\.bias"):
        load(tmp_path / "carn.pth", scale=4)


def test_other_checkpoints_are_left_as_they_are():
    state = {"upsample.up.body.0.weight": torch.zeros(1), "entry.weight": torch.zeros(1)}
    assert select_scale(state, None) == (state, [])


@pytest.mark.parametrize("group", [1, 4])
def test_the_feature_layer_is_never_negative(group):
    phi = CARN(2, channels=8, group=group).features(images())
    assert phi.min() >= 0
    assert phi.max() > 0


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_the_mean_leaves_at_the_input_and_returns_at_the_output(peak):
    model = CARN(2, channels=8, peak=peak)
    means = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
    with torch.no_grad():
        assert model.sub_mean(peak * means.expand(1, 3, 2, 2)).abs().max() < 1e-4
        for parameter in model.exit.parameters():
            parameter.zero_()
        torch.testing.assert_close(model(images()), means.expand(2, 3, 14, 10))


def test_the_scale_of_its_images_is_read_from_the_mean_that_it_subtracts():
    """On the scale of [0, 255] the same network without biases has features 255 times as large, and the same output."""
    state = random_state(official_layout([2], channels=8))
    for name in state:
        if name.endswith("bias"):
            state[name].zero_()
    for peak in (1.0, 255.0):
        means = CARN(2, channels=8, peak=peak).state_dict()
        state |= {name: tensor for name, tensor in means.items() if "_mean" in name}
        model = ARCHITECTURE.load(state)
        assert model.arguments()["peak"] == peak
        if peak == 1.0:
            phi, output = model.features(images()), model(images())
    torch.testing.assert_close(model.features(images()), 255 * phi, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(images()), output, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"1 or 255 .* 2"):
        CARN(2, peak=2.0)


@pytest.mark.parametrize("group", [0, 3, 16])
def test_groups_divide_the_channels(group):
    with pytest.raises(ValueError, match=f"the groups of CARN-M divide its 8 channels; {group} do not"):
        CARN(channels=8, group=group)
