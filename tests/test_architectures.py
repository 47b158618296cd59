"""What holds for every super-resolution network, whatever its layers."""

import json
import re

import pytest
import torch
from odd import FULL
from safetensors.torch import load_file, save_file
from torch import nn

from resolute import IFGSM
from resolute.attacks.features import layer_outputs
from resolute.errors import CheckpointError
from resolute.models import CARN, EDSR, MSRN, RCAN, Card, SRResNet, load
from resolute.models.architectures import RESTORERS
from resolute.models.blocks import rename
from resolute.models.weights import save_model

SMALL = {
    "edsr": lambda scale, **options: EDSR(scale, blocks=2, channels=6, **options),
    "rcan": lambda scale, **options: RCAN(scale, groups=2, blocks=2, channels=8, reduction=4, **options),
    "msrn": lambda scale, **options: MSRN(scale, blocks=2, channels=6, **options),
    "carn": lambda scale, **options: CARN(scale, channels=8, **options),
    "carn-m": lambda scale, **options: CARN(scale, channels=8, group=4, **options),
    "srresnet": lambda scale, **options: SRResNet(scale, blocks=2, channels=6, **options),
}
STAGED_OR_DIRECT = ("edsr", "rcan", "msrn", "carn", "carn-m")


def network(name, scale=4, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SMALL[name](scale, **options)
        # Normalisations that have seen data, as trained ones have, and slopes that differ.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.normal_(module.weight, 1, 0.1)
                nn.init.normal_(module.bias, 0, 0.1)
            if isinstance(module, nn.PReLU):
                nn.init.uniform_(module.weight, 0.1, 0.4)
    return model.eval()


def images(*shape):
    return torch.rand(shape or (2, 3, 7, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[(name, scale) for name in SMALL for scale in (2, 3, 4)], ids=lambda p: f"{p[0]}-x{p[1]}")
def model(request):
    return network(*request.param)


@pytest.mark.parametrize(
    ("architecture", "counts"),
    [
        (EDSR, (1_369_883, 1_554_523, 1_517_595)),
        (RCAN, (15_444_667, 15_629_307, 15_592_379)),
        (MSRN, (5_930_331, 6_114_971, 6_078_043)),
        (CARN, (964_187, 1_148_827, 1_111_899)),
        (SRResNet, (1_401_749, None, 1_549_462)),
    ],
)
def test_the_published_networks_have_the_published_sizes(architecture, counts):
    for scale, count in zip((2, 3, 4), counts, strict=True):
        with torch.device("meta"):
            model = architecture(scale)
        assert count is None or sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_two_halves_meet_at_the_feature_layer(model):
    x, seen = images(), []
    handle = model.get_submodule(model.feature_layer).register_forward_hook(lambda *call: seen.append(call[2]))
    output = model(x)
    handle.remove()
    phi = model.features(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], phi)
    assert torch.equal(model.reconstruct(phi), output)
    assert phi.shape[-2:] == x.shape[-2:]
    assert output.shape == (2, 3, 7 * model.scale, 5 * model.scale)


def test_what_comes_out_of_the_feature_layer_is_all_that_the_upsampler_sees(model):
    """A hook that replaces Φ, as a defence in training does, decides the output."""
    x, other = images(), model.features(images() ** 2)
    handle = model.get_submodule(model.feature_layer).register_forward_hook(lambda *_: other)
    output = model(x)
    handle.remove()
    assert torch.equal(output, model.reconstruct(other))
    assert not torch.equal(output, model(x))


def test_the_gradient_reaches_every_pixel(model):
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()


def test_every_weight_but_the_mean_shifts_is_trained(model):
    model.train()(images()).square().sum().backward()
    for name, parameter in model.named_parameters():
        if re.match(r"(sub|add)_mean\.", name):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name


def test_other_layers_are_reached_by_their_names(model):
    x = images()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.PReLU | nn.ReLU)]
    outputs = layer_outputs(model, x, names)
    # A module that is used several times has an output each time.
    assert len(outputs) >= len(names)
    assert all(output.isfinite().all() for output in outputs)
    assert torch.equal(layer_outputs(model, x, [model.feature_layer, names[0]])[0], model.features(x))


def test_an_image_does_not_depend_on_its_company(model):
    model, x = model.double(), images(3, 3, 6, 5).double()
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=0, atol=1e-12)


def test_the_output_is_not_clamped(model):
    with torch.no_grad():
        output = model(100 * images() - 50)
    assert output.min() < 0
    assert output.max() > 1


def test_a_network_is_built_again_from_its_weights(model):
    found = [architecture for architecture in RESTORERS if architecture.detects(model.state_dict())]
    assert [one.network for one in found] == [type(model)]
    again = found[0].load(model.state_dict()).eval()
    assert again.arguments() == model.arguments()
    assert torch.equal(again(images()), model(images()))
    arguments = {name: value for name, value in model.arguments().items() if name != "class"}
    assert type(model)(**arguments).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", STAGED_OR_DIRECT)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_direct_upsampler_is_one_convolution(name, scale, tmp_path):
    model = network(name, scale, upsampler="direct")
    assert model(images()).shape == (2, 3, 7 * scale, 5 * scale)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert layers[-1].out_channels == 3 * scale**2
    assert len([module for module in model.modules() if isinstance(module, nn.PixelShuffle)]) == 1
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    loaded = load(tmp_path / "mine.pth", scale=scale)
    assert loaded.arguments() == model.arguments()
    torch.testing.assert_close(loaded(images()), model(images()))


@pytest.mark.parametrize("name", STAGED_OR_DIRECT)
@pytest.mark.usefixtures("unchecked_shapes")
def test_another_upsampler_is_refused(name):
    with pytest.raises(ValueError, match="'nearest'"):
        network(name, upsampler="nearest")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("scale", [1, 5, 8])
def test_other_scales_are_refused(name, scale):
    with pytest.raises(ValueError, match=f"upscales by 2, 3 or 4, not {scale}"):
        network(name, scale)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_saved_network_loads_with_its_facts(name, suffix, tmp_path):
    model, path = network(name), tmp_path / f"mine{suffix}"
    card = Card(name="mine", architecture=model.arguments(), scale=4)
    if suffix == ".pth":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        save_model(model, path, card)
    loaded = load(path, scale=4)
    assert not loaded.training
    assert (loaded.card.name, loaded.card.scale, loaded.card.architecture) == ("mine", 4, model.arguments())
    assert len(loaded.card.sha256) == 64
    torch.testing.assert_close(loaded(images()), model(images()))
    with pytest.raises(CheckpointError, match="by 4, not by 2"):
        load(path, scale=2)


@pytest.mark.parametrize("name", SMALL)
def test_weights_that_do_not_fit_are_named(name, tmp_path):
    state = network(name).state_dict()
    # Every part of a network; RESOLUTE_HOSTILE=full takes every tensor.
    names = list(state)
    for lost in names if FULL else {*names[:: len(names) // 10 + 1], names[-1]}:
        torch.save({key: tensor for key, tensor in state.items() if key != lost}, tmp_path / "net.pth")
        # Checkpoints of before PyTorch 0.4.1 do not count batches.
        if not lost.endswith("num_batches_tracked"):
            with pytest.raises(CheckpointError, match=r"net\.pth"):
                load(tmp_path / "net.pth")
    torch.save({**state, "surplus": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="surplus"):
        load(tmp_path / "net.pth")


@pytest.mark.parametrize("name", SMALL)
def test_an_attack_moves_the_output_and_leaves_the_network_as_it_was(name):
    model, x = network(name).train(), images(1, 3, 8, 8)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = IFGSM(epsilon=4 / 255, steps=3)(model, x)
    assert found.objective.item() > 0
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


# Options that no shape tells travel on the card.


@pytest.mark.parametrize(
    "model",
    [
        EDSR(2, blocks=1, channels=4, res_scale=0.25),
        SRResNet(2, blocks=1, channels=4, activation="tanh"),
        SRResNet(2, blocks=1, channels=4, normalization="imagenet"),
    ],
    ids=["res_scale", "activation", "normalization"],
)
def test_options_without_weights_are_read_from_the_card(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_model(model.eval(), path, Card(name="mine", architecture=model.arguments(), scale=2))
    loaded = load(path)
    assert loaded.arguments() == model.arguments() == loaded.card.architecture
    torch.testing.assert_close(loaded(images()), model(images()))
    save_file(load_file(path), path)
    assert load(path).arguments() != model.arguments()


@pytest.mark.parametrize(
    "change",
    [
        {"class": "RCAN"},
        {"blocks": 10**9},
        {"channels": 8},
        {"bias": False},
        {"activation": "relu"},
        {"activation": 1},
        {"prelu": "channel"},
        {"colour": "red"},
        {"self": "me"},
        {"\n\x1b[31m": "red"},
    ],
    ids=str,
)
def test_a_card_of_another_network_is_refused(change, tmp_path):
    model, path = SRResNet(2, blocks=1, channels=4), tmp_path / "mine.safetensors"
    card = save_model(model, path, Card(name="mine", architecture=model.arguments(), scale=2))
    facts = {**vars(card), "architecture": {**model.arguments(), **change}}
    save_file(load_file(path), path, {"card": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="its card") as caught:
        load(path)
    assert not set("\n\x1b") & set(str(caught.value))


@pytest.mark.parametrize("architecture", ["EDSR", ["EDSR"], 4, None], ids=str)
def test_a_card_without_arguments_is_refused(architecture, tmp_path):
    model, path = network("edsr"), tmp_path / "mine.safetensors"
    card = save_model(model, path, Card(name="mine", architecture=model.arguments(), scale=4))
    save_file(load_file(path), path, {"card": json.dumps({**vars(card), "architecture": architecture})})
    with pytest.raises(CheckpointError, match=r"mine\.safetensors .*card"):
        load(path)


@pytest.mark.parametrize("name", ["res_scale", "activation"])
def test_a_card_without_an_option_stands_for_the_published_one(name, tmp_path):
    """Cards are older than some options."""
    model = network("edsr" if name == "res_scale" else "srresnet")
    arguments = {key: value for key, value in model.arguments().items() if key != name}
    save_model(model, tmp_path / "old.safetensors", Card(name="old", architecture=arguments, scale=4))
    assert load(tmp_path / "old.safetensors").arguments() == model.arguments()


def test_names_are_rewritten_by_the_first_rule_that_matches():
    state = {"a1.x": torch.zeros(1), "a12.x": torch.ones(1), "ba1.x": torch.zeros(2)}
    assert list(rename(state, [(r"a1\.", "first."), (r"a(\d+)\.", r"n.\1.")])) == ["first.x", "n.12.x", "ba1.x"]
