import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resolute.errors import CheckpointError
from resolute.models import SRResNet, load
from resolute.models.srresnet import SRResNetBlock


class Layout:
    """Collects random weights under the names of a release; batches are not counted where they were not yet."""

    def __init__(self, counted=True):
        self.state = {}
        self.counted = counted
        self.generator = torch.Generator().manual_seed(0)

    def random(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def conv(self, name, outputs, inputs, size=3, bias=True):
        self.state[f"{name}.weight"] = 0.1 * self.random(outputs, inputs, size, size)
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.random(outputs)

    def norm(self, name, channels):
        self.state[f"{name}.weight"] = 1 + 0.1 * self.random(channels)
        self.state[f"{name}.bias"] = 0.1 * self.random(channels)
        self.state[f"{name}.running_mean"] = 0.1 * self.random(channels)
        self.state[f"{name}.running_var"] = 1 + 0.1 * self.random(channels).abs()
        if self.counted:
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def slope(self, name, channels=1):
        self.state[f"{name}.weight"] = 0.25 + 0.1 * self.random(channels)


def sgrvinod(blocks=16, channels=64, stages=2, prefix=""):
    layout = Layout()
    layout.conv("conv_block1.conv_block.0", channels, 3, 9)
    layout.slope("conv_block1.conv_block.1")
    for i in range(blocks):
        block = f"residual_blocks.{i}.conv_block"
        layout.conv(f"{block}1.conv_block.0", channels, channels)
        layout.norm(f"{block}1.conv_block.1", channels)
        layout.slope(f"{block}1.conv_block.2")
        layout.conv(f"{block}2.conv_block.0", channels, channels)
        layout.norm(f"{block}2.conv_block.1", channels)
    layout.conv("conv_block2.conv_block.0", channels, channels)
    layout.norm("conv_block2.conv_block.1", channels)
    for i in range(stages):
        layout.conv(f"subpixel_convolutional_blocks.{i}.conv", 4 * channels, channels)
        layout.slope(f"subpixel_convolutional_blocks.{i}.prelu")
    layout.conv("conv_block3.conv_block.0", 3, channels, 9)
    return {f"{prefix}{name}": tensor for name, tensor in layout.state.items()}


SGRVINOD = {
    "first": "conv_block1.conv_block",
    "block": "residual_blocks.{}",
    "conv1": "conv_block1.conv_block.0",
    "norm1": "conv_block1.conv_block.1",
    "prelu": "conv_block1.conv_block.2",
    "conv2": "conv_block2.conv_block.0",
    "norm2": "conv_block2.conv_block.1",
    "after": "conv_block2.conv_block",
    "stage": "subpixel_convolutional_blocks.{}",
    "last": "conv_block3.conv_block.0",
}


def leftthomas(blocks=5, channels=64, stages=2):
    layout = Layout(counted=False)
    layout.conv("block1.0", channels, 3, 9)
    layout.slope("block1.1")
    for i in range(2, blocks + 2):
        layout.conv(f"block{i}.conv1", channels, channels)
        layout.norm(f"block{i}.bn1", channels)
        layout.slope(f"block{i}.prelu")
        layout.conv(f"block{i}.conv2", channels, channels)
        layout.norm(f"block{i}.bn2", channels)
    layout.conv(f"block{blocks + 2}.0", channels, channels)
    layout.slope(f"block{blocks + 2}.1")
    for i in range(stages):
        layout.conv(f"block{blocks + 3}.{i}.conv", 4 * channels, channels)
        layout.slope(f"block{blocks + 3}.{i}.prelu")
    layout.conv(f"block{blocks + 3}.{stages}", 3, channels, 9)
    return layout.state


def leftthomas_names(blocks, stages):
    return {
        "first": "block1",
        "block": "block{}",
        "offset": 2,
        "conv1": "conv1",
        "norm1": "bn1",
        "prelu": "prelu",
        "conv2": "conv2",
        "norm2": "bn2",
        "after": f"block{blocks + 2}",
        "stage": f"block{blocks + 3}.{{}}",
        "last": f"block{blocks + 3}.{stages}",
    }


def reference(state, names, x, blocks, stages, normal=lambda x: x, activation=torch.tanh):
    """SRResNet in evaluation mode from its equations, one functional call after the other."""

    def conv(name, value):
        weight = state[f"{name}.weight"]
        return F.conv2d(value, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(name, value):
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(value, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def prelu(name, value):
        return F.prelu(value, state[f"{name}.weight"])

    h = shallow = prelu(f"{names['first']}.1", conv(f"{names['first']}.0", normal(x)))
    for i in range(blocks):
        block = names["block"].format(i + names.get("offset", 0))
        inner = norm(f"{block}.{names['norm1']}", conv(f"{block}.{names['conv1']}", h))
        inner = prelu(f"{block}.{names['prelu']}", inner)
        h = h + norm(f"{block}.{names['norm2']}", conv(f"{block}.{names['conv2']}", inner))
    close = norm if f"{names['after']}.1.running_mean" in state else prelu
    phi = h = close(f"{names['after']}.1", conv(f"{names['after']}.0", h)) + shallow
    for i in range(stages):
        stage = names["stage"].format(i)
        h = prelu(f"{stage}.prelu", F.pixel_shuffle(conv(f"{stage}.conv", h), 2))
    return phi, (activation(conv(names["last"], h)) + 1) / 2


def imagenet(x):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    return (x - mean) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def images():
    return torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("bias", "prelu", "x2", "x4"),
    [
        (True, "shared", 1_401_749, 1_549_462),
        (True, "channel", 1_402_883, 1_550_659),
        (False, "channel", 1_400_771, 1_548_547),
        (False, "shared", 1_399_637, 1_547_350),
    ],
)
def test_the_variants_of_the_published_network_have_the_known_sizes(bias, prelu, x2, x4):
    for scale, count in ((2, x2), (4, x4)):
        with torch.device("meta"):
            model = SRResNet(scale, bias=bias, prelu=prelu)
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prelu", ["shared", "channel"])
def test_bias_and_slopes_are_read_from_the_shapes(bias, prelu, tmp_path):
    model = SRResNet(2, blocks=2, channels=6, bias=bias, prelu=prelu).eval()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    loaded = load(tmp_path / "net.pth")
    assert loaded.arguments() == model.arguments()
    torch.testing.assert_close(loaded(images()), model(images()))


@pytest.mark.parametrize("prefix", ["", "net."], ids=["SRResNet", "SRGAN"])
@pytest.mark.parametrize("stages", [1, 2])
def test_sgrvinods_layout_computes_what_its_equations_say(prefix, stages, tmp_path):
    torch.save(sgrvinod(blocks=3, channels=6, stages=stages, prefix=prefix), tmp_path / "net.pth")
    model = load(tmp_path / "net.pth")
    assert model.scale == 2**stages
    facts = model.arguments()
    assert (facts["blocks"], facts["activation"], facts["normalization"]) == (3, "tanh", "imagenet")
    state = sgrvinod(blocks=3, channels=6, stages=stages)
    phi, output = reference(state, SGRVINOD, images(), blocks=3, stages=stages, normal=imagenet)
    torch.testing.assert_close(model.features(images()), phi, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images()), output, rtol=1e-4, atol=1e-5)


def test_sgrvinods_published_size_has_the_published_number_of_entries(tmp_path):
    state = sgrvinod()
    assert len(state) == 258
    torch.save(state, tmp_path / "net.pth")
    assert sum(parameter.numel() for parameter in load(tmp_path / "net.pth", scale=4).parameters()) == 1_549_462


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("blocks", [2, 12])
def test_leftthomass_layout_computes_what_its_equations_say(blocks, stages, tmp_path):
    """With twelve blocks there is a block1 and a block10."""
    state = leftthomas(blocks, channels=6, stages=stages)
    torch.save(state, tmp_path / "net.pth")
    model = load(tmp_path / "net.pth", scale=2**stages)
    facts = model.arguments()
    assert (facts["blocks"], facts["activation"], facts["closing"]) == (blocks, "tanh", "prelu")
    phi, output = reference(state, leftthomas_names(blocks, stages), images(), blocks, stages)
    torch.testing.assert_close(model.features(images()), phi, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(images()), output, rtol=1e-4, atol=1e-5)


def test_without_an_activation_the_output_lies_halfway_between_black_and_white_at_zero():
    model = SRResNet(2, blocks=1, channels=4).eval()
    with torch.no_grad():
        for parameter in model.last.parameters():
            parameter.zero_()
        assert (model(images()) == 0.5).all()
        model.last.bias.copy_(torch.tensor([-3.0, 0.0, 3.0]))
        assert model(images())[0, :, 0, 0].tolist() == [-1.0, 0.5, 2.0]


def test_a_block_is_the_identity_where_its_last_normalisation_is_zero():
    block = SRResNetBlock(4, bias=True, prelu="shared").eval()
    nn.init.zeros_(block.norm2.weight)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    "option", [{"prelu": "leaky"}, {"activation": "relu"}, {"closing": "none"}, {"normalization": "mean"}], ids=str
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_options_that_do_not_exist_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} of SRResNet is"):
        SRResNet(blocks=1, channels=4, **option)


def test_whole_modules_in_a_checkpoint_are_refused_with_advice_that_works(tmp_path):
    """Sgrvinod's own files hold the network itself, beside its optimiser."""
    network = nn.Sequential(nn.Conv2d(3, 3, 3))
    torch.save({"epoch": 130, "model": network, "optimizer": {"lr": 1e-4}}, tmp_path / "checkpoint_srresnet.pth.tar")
    with pytest.raises(CheckpointError, match=r"srresnet\.pth\.tar .*state_dict\(\)"):
        load(tmp_path / "checkpoint_srresnet.pth.tar")
    torch.save(sgrvinod(blocks=1, channels=4), tmp_path / "converted.pth.tar")
    assert load(tmp_path / "converted.pth.tar").scale == 4
