"""Networks of spandrel, the real ones: loaded from files as a user's would be, and attacked."""

import re
import sys
from pathlib import Path

import pytest
import torch
from odd import FULL
from safetensors.torch import save_file
from small import images, needs, script_of
from torch import nn

from resolute import FDA, IFGSM, Tiled, load
from resolute.attacks import FeatureDisruption
from resolute.errors import CheckpointError, ConfigError
from resolute.models.sizes import pad
from resolute.models.zoo import ZooModel

needs("spandrel", "zoo")

DOCS = Path(__file__).parents[1] / "docs"
make_zoo = script_of("make_zoo")
CASES = {case.title: case for case in make_zoo.CASES}

# Cheap enough to be tried with the arguments that their classes have by default: these always, and those with
# RESOLUTE_HOSTILE=full, and otherwise with fewer blocks, where the class has a smaller form.
CHEAP = {
    *("Compact", "SwiftSRGAN", "OmniSR", "SAFMN", "NAFNet", "MixDehazeNet", "DnCNN", "HVICIDNet", "LaMa"),
    "UpCunet2x_fast",
}
DEARER = {
    *("SwinIR", "RGT", "DAT", "SPAN", "SAFMNBCIE", "DCTLSA", "UpCunet2x", "UpCunet3x", "UpCunet4x", "PLKSR"),
    *("RealPLKSR", "RetinexFormer", "DITN", "SeemoRe", "MoSR", "FDAT", "AuraSR"),
}
BY_DEFAULT = CHEAP | DEARER if FULL else CHEAP
SMALLER = {"RCAN", "GRL", "Swin2SR", "CRAFT", "FFTformer", "ATD", "DRUNet", "ESRGAN", "MoESR"}
SMALLER |= {"HAT", "DRCT"} if FULL else {name for name in DEARER if CASES[name].smaller}


@pytest.fixture(scope="module")
def listed():
    """Return the rows of docs/zoo.md."""
    rows = re.findall(r"^\| (\w+) \| (.+?) \|(?: `(.+)` \|)?$", (DOCS / "zoo.md").read_text("utf-8"), re.MULTILINE)
    return {name: (scale, layer, "") if layer else ("", "", scale) for name, scale, layer in rows if name != "network"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BY_DEFAULT))
@pytest.mark.filterwarnings("ignore")
def test_a_network_with_default_arguments_does_what_the_page_says(name, listed, tmp_path):
    row = make_zoo.row(CASES[name], False, tmp_path)
    assert (row.scale, row.layer, row.reason) == listed[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLER))
@pytest.mark.filterwarnings("ignore")
def test_a_network_too_large_for_that_does_it_with_fewer_blocks(name, listed, tmp_path):
    row = make_zoo.row(CASES[name], True, tmp_path)
    assert (row.scale, row.reason) == (listed[name][0], listed[name][2])


def test_the_page_lists_every_architecture_and_twenty_five_pass_by_default(listed):
    from spandrel import MAIN_REGISTRY

    assert {support.architecture.id for support in MAIN_REGISTRY} == {case.architecture for case in make_zoo.CASES}
    assert set(listed) == set(CASES)
    assert sum(not listed[name][2] for name in CHEAP | DEARER) >= 25
    rows = [make_zoo.Row(name, *listed[name]) for name in CASES]
    assert make_zoo.page(rows) == (DOCS / "zoo.md").read_text(encoding="utf-8")


def stored(path, network, **nested):
    """Write a checkpoint as training code does."""
    torch.save({"params_ema": network.state_dict(), **nested}, path)
    return path


def compact(**arguments):
    from spandrel.architectures.Compact import Compact

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Compact(**{"num_feat": 8, "num_conv": 2, "upscale": 2, **arguments})


@pytest.fixture
def model(tmp_path):
    return load(stored(tmp_path / "compact.pth", compact()))


def test_the_output_and_its_gradient_are_those_of_the_inner_module(model):
    x = images(2, 10, 8).requires_grad_()
    expected = compact()(x)
    torch.testing.assert_close(model(x), expected)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (model(x), expected))
    torch.testing.assert_close(ours, theirs)
    assert (model.card.name, model.card.scale, len(model.card.sha256)) == ("compact", 2, 64)
    assert model.card.architecture == {"class": "ZooModel", "name": "Compact", "scale": 2}
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "wrap"),
    [("DAT", "params_ema"), ("SPAN", "module."), ("CRAFT", "params_ema"), ("SAFMN", "module.")]
    + [("Compact", wrap) for wrap in ("params_ema", "module.")],
)
@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_well_known_networks_load_by_themselves(name, wrap, tmp_path):
    """DAT-light as its authors ship it has this layout too, and reaches its published 32.57 dB on Set5."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CASES[name].build(True).eval()
    state = network.state_dict()
    named = {f"module.{key}": tensor for key, tensor in state.items()}
    torch.save({"params_ema": state} if wrap == "params_ema" else {"state_dict": named}, tmp_path / "net.pth")
    model = load(tmp_path / "net.pth")
    assert model.card.architecture["name"] == name
    x = images(1, 32, 32).requires_grad_()
    torch.testing.assert_close(model(x), network(x.clone()), rtol=1e-4, atol=1e-4)
    ours, theirs = (torch.autograd.grad(run(x.clone()).square().sum(), x)[0] for run in (model, network))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_nothing_is_clamped(tmp_path):
    network = compact()
    nn.init.constant_(network.body[-1].bias, 3.0)
    assert load(stored(tmp_path / "bright.pth", network))(images()).min() > 1.5


def test_phi_is_the_output_of_the_layer_it_is_named_after(model):
    x = images()
    kept = []
    model.get_submodule(model.feature_layer).register_forward_hook(lambda _module, _inputs, y: kept.append(y.clone()))
    torch.testing.assert_close(model.features(x), (model(x), kept[0])[1])
    other = FDA(epsilon=4 / 255, steps=1, objective=FeatureDisruption(("network.body.0",)))
    assert other(model, x).objective.isfinite().all()
    with pytest.raises(ConfigError, match="taken apart"):
        Tiled(model)


@pytest.mark.filterwarnings("ignore")
def test_sizes_that_a_network_does_not_take_are_mirrored_and_cut(tmp_path):
    from spandrel.architectures.CRAFT import CRAFT

    network = CRAFT(embed_dim=12, depths=[1], num_heads=[6], window_size=16, upscale=2).eval()
    x = images(1, 11, 7)
    expected = network(pad(x, 9, 5))[..., :22, :14]
    torch.testing.assert_close(load(stored(tmp_path / "craft.pth", network))(x), expected)


def test_networks_that_write_in_place_have_right_gradients(tmp_path):
    """PLKSR's evaluation mode breaks autograd; its training mode is the same function and does not."""
    from spandrel.architectures.PLKSR import PLKSR

    network = PLKSR(dim=16, n_blocks=2, upscaling_factor=2)
    x = images().requires_grad_()
    expected = torch.autograd.grad(network.train()(x).square().sum(), x)[0]
    model = load(stored(tmp_path / "plksr.pth", network))
    torch.testing.assert_close(torch.autograd.grad(model(x).square().sum(), x)[0], expected)
    before = x.detach().clone()
    IFGSM(epsilon=4 / 255, steps=2)(model, before)
    assert torch.equal(before, x)
    assert not any(module.training for module in model.modules())


def test_gray_networks_get_channel_by_channel(tmp_path):
    network = compact(num_in_ch=1, num_out_ch=1, upscale=2)
    model = load(stored(tmp_path / "gray.pth", network))
    x = images(2)
    torch.testing.assert_close(model(x), torch.cat([network(x[:, i : i + 1]) for i in range(3)], dim=1))
    assert len(model.features(x)) == 2


def test_networks_for_one_image_a_call_get_one(tmp_path):
    model = load(stored(tmp_path / "drunet.pth", make_zoo.CASES[list(CASES).index("DRUNet")].build(True)))
    x = images(3)
    torch.testing.assert_close(model(x), torch.cat([model(image[None]) for image in x]))


# What is refused, and how.


class Cut(nn.Module):
    def forward(self, x):
        return x.detach() + 0 * x


class Drawing(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Infinite(nn.Module):
    def forward(self, x):
        return x / 0


@pytest.mark.parametrize(
    ("network", "scale", "message"),
    [
        (Cut(), 1, "no gradient reaches the image"),
        (Drawing(), 1, "it draws random numbers"),
        (Infinite(), 1, "not finite"),
        (nn.Identity(), 2, "and not into"),
        (nn.Linear(7, 7), 1, "fails on a sample image: RuntimeError"),
    ],
)
def test_what_no_attack_can_work_with_is_refused(network, scale, message):
    state = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=message):
        ZooModel(network, lambda inner, x: inner(x), "Odd", scale, lambda _width, _height: (0, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_layout_says_what_would_read_more(monkeypatch, tmp_path):
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"EDSR.*spandrel.*FILE\.py:NAME"):
        load(tmp_path / "odd.safetensors")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(CheckpointError, match=r"'resolute\[zoo\]'"):
        load(tmp_path / "odd.safetensors")


def test_a_broken_spandrel_says_why(monkeypatch, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors")
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('missing x::nms\\nmore')")
    monkeypatch.delitem(sys.modules, "spandrel")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"\(missing x::nms\).*--index-url"):
        load(tmp_path / "odd.safetensors")


def test_weights_that_do_not_fit_their_layout_are_told(tmp_path):
    state = compact().state_dict()
    state["body.2.weight"] = state["body.2.weight"][:, :3]
    with pytest.raises(CheckpointError, match="spandrel") as caught:
        load(stored(tmp_path / "torn.pth", nn.ParameterDict({}), params_ema=state))
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "proof",)

    torch.save({"params": {**compact().state_dict(), "trap": Trap()}}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match=r"trap\.pth"):
        load(tmp_path / "trap.pth")
    assert not (tmp_path / "proof").exists()
