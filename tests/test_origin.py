"""Weights back into their files: what users have on disk comes out as it was, but for the weights."""

import json
import re
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import images, needs, network

from resolute import load, load_defended
from resolute.errors import CheckpointError
from resolute.models import CARN, EDSR, Card, Origin, SRResNet
from resolute.models.weights import save_model, weights_sha256

pytestmark = pytest.mark.filterwarnings("ignore:the code in", "ignore:.*holds several sets")


def trained(model, seed=1):
    """Change all weights that training would, a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return model


def round_trip(path, address="{}", **tolerance):
    """Load, train, write, load; return the file that was written, and its model."""
    model = load(address.format(path))
    assert isinstance(model.origin, Origin)
    assert model.origin.path == path
    model.origin.check(model)
    trained(model)
    out = path.with_name(f"hardened{path.suffix}")
    model.origin.write(model, out)
    again = load(address.format(out))
    x = images(1, 9, 8)
    torch.testing.assert_close(again(x), model(x), **tolerance)
    assert not torch.allclose(load(address.format(path))(x), model(x), atol=1e-3)
    return out, model


def alike(before, after):
    """Assert that two contents differ in the values of floating point tensors alone."""
    assert type(before) is type(after)
    if isinstance(before, dict):
        assert list(before) == list(after)
        for key in before:
            alike(before[key], after[key])
    elif isinstance(before, torch.Tensor):
        assert (before.dtype, before.shape, before.stride()) == (after.dtype, after.shape, after.stride())
        assert before.is_floating_point() or torch.equal(before, after)
    else:
        assert before == after


WRAPPINGS = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state, "iter": 7},
    "module": lambda state: {"state_dict": OrderedDict((f"module.{k}", v) for k, v in state.items()), "epoch": 3},
    "twice": lambda state: {"model": {"state_dict": state, "lr": 0.1}, "optimizer": {"state": {0: torch.ones(3)}}},
    "compiled": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "generator": lambda state: {**{f"generator.{k}": v for k, v in state.items()}, "discriminator.w": torch.ones(2)},
    "without buffers": lambda state: {
        "model": {f"module.{k}": v + 1 for k, v in state.items()},
        "ema": {"shadow": {k: v for k, v in state.items() if "add_mean" not in k}},
    },
    "averaged": lambda state: {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_checkpoint_keeps_its_nesting_and_its_names(wrapping, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(WRAPPINGS[wrapping](network().state_dict()), path)
    out, _ = round_trip(path)
    alike(torch.load(path, map_location="cpu"), torch.load(out, map_location="cpu"))


def test_the_older_container_and_orders_in_memory_stay(tmp_path):
    path = tmp_path / "net.pt"
    state = {name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
             for name, tensor in network().state_dict().items()}  # fmt: skip
    torch.save(state, path, _use_new_zipfile_serialization=False)
    out, _ = round_trip(path)
    assert not zipfile.is_zipfile(out)
    alike(torch.load(path, map_location="cpu"), torch.load(out, map_location="cpu"))


def test_half_precision_stays_half(tmp_path):
    path = tmp_path / "half.pth"
    torch.save({"params": {name: tensor.half() for name, tensor in network().state_dict().items()}}, path)
    out, _ = round_trip(path, atol=2e-2, rtol=0)
    assert torch.load(out)["params"]["head.0.weight"].dtype == torch.float16


def test_what_is_too_large_for_the_file_is_refused(tmp_path):
    path = tmp_path / "half.pth"
    torch.save({name: tensor.half() for name, tensor in network().state_dict().items()}, path)
    model = load(path)
    with torch.no_grad():
        model.head[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"head\.0\.weight .*float16"):
        model.origin.write(model, tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_averaged_and_other_weights_of_one_file_are_both_written(tmp_path):
    path = tmp_path / "net.pth"
    other = trained(network(), seed=5).state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in trained(network(), seed=6).state_dict().items()}
    content = {
        "params": other,
        "params_ema": network().state_dict(),
        "last": wrapped,
        "teacher": trained(network(), seed=5).state_dict(),
    }
    torch.save({**content, "discriminator": {"w": torch.ones(2)}}, path)
    out, model = round_trip(path)
    found = torch.load(out)
    for name, tensor in model.state_dict().items():
        assert torch.equal(found["params"][name], tensor)
        assert torch.equal(found["params_ema"][name], tensor)
        assert torch.equal(found["last"][f"module.{name}"], tensor)
        assert torch.equal(found["teacher"][name], other[name])
    assert torch.equal(found["discriminator"]["w"], torch.ones(2))


def test_names_of_basicsr_and_its_missing_mean(tmp_path):
    own = network()
    names = {"head.0": "conv_first", "body.2": "conv_after_body", "tail.0.0": "upsample.0", "tail.1": "conv_last"}
    names |= {f"body.{i}.body.{j}": f"body.{i}.conv{1 + j // 2}" for i in range(2) for j in (0, 2)}
    state = {
        f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in own.state_dict().items()
        if "mean" not in name
    }
    torch.save({"params": state}, tmp_path / "basicsr.pth")
    out, model = round_trip(tmp_path / "basicsr.pth")
    assert torch.equal(torch.load(out)["params"]["conv_first.weight"], model.head[0].weight)
    with torch.no_grad():
        model.sub_mean.bias.add_(1.0)
    with pytest.raises(CheckpointError, match=r"sub_mean\.bias"):
        model.origin.check(model)


def several(path):
    """Write CARN-M for two scales, as its authors do."""
    states = {scale: CARN(scale=scale, channels=8, group=4).state_dict() for scale in (2, 4)}
    state = {name: tensor for name, tensor in states[4].items() if not name.startswith("upsample.")}
    for scale, one in states.items():
        state |= {n.replace(".up.", f".up{scale}."): t for n, t in one.items() if n.startswith("upsample.")}
    torch.save(state, path)
    return path


def test_one_scale_of_several_is_written_and_the_others_are_spoken_of(tmp_path):
    path = several(tmp_path / "carn.pth")
    out, model = round_trip(path, "{}#x4")
    before, after = torch.load(path), torch.load(out)
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "up2" not in name and "mean" not in name}
    assert re.search(r"carn\.pth .*\bx2\b.*\bx4\b", model.origin.note)


def test_statistics_of_batches_stay_to_the_bit(tmp_path):
    path = tmp_path / "srresnet.pth"
    own = SRResNet(scale=2, blocks=2, channels=8)
    for module in own.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.num_batches_tracked.fill_(9)
    torch.save({name: t.double() if t.is_floating_point() else t for name, t in own.state_dict().items()}, path)
    out, _ = round_trip(path)
    before, after = torch.load(path), torch.load(out)
    alike(before, after)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)


def test_safetensors_keep_the_words_of_others(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(network().state_dict(), path, {"author": "someone", "epoch": "3"})
    out, model = round_trip(path)
    with safe_open(out, framework="pt") as file:
        assert file.metadata() == {"author": "someone", "epoch": "3"}
    assert load_file(out).keys() == model.state_dict().keys()


def test_a_card_of_resolute_says_what_was_done(tmp_path):
    path, own = tmp_path / "net.safetensors", network()
    card = Card(name="net", architecture=own.arguments(), scale=2, licence="MIT", training={"steps": 5})
    save_model(own, path, card)
    model = trained(load(path))
    model.origin.write(model, tmp_path / "out.safetensors", training={"hardened": "entropy"})
    again = load(tmp_path / "out.safetensors")
    assert again.card.training == {"steps": 5, "hardened": "entropy"}
    assert (again.card.name, again.card.licence) == ("net", "MIT")
    assert again.card.sha256 == weights_sha256(load_file(tmp_path / "out.safetensors"))
    with safe_open(path, framework="pt") as before, safe_open(tmp_path / "out.safetensors", framework="pt") as after:
        assert json.loads(before.metadata()["card"])["training"] == {"steps": 5}
        assert before.metadata().keys() == after.metadata().keys()


CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.norm(self.head(x)), 2)
"""


def test_networks_by_their_code_are_written_as_the_users_program_loads_them(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    network = load(f"{tmp_path / 'net.py'}:Net").network
    torch.save({"state_dict": {f"module.{name}": t for name, t in network.state_dict().items()}}, tmp_path / "net.pth")
    out, model = round_trip(tmp_path / "net.pth", f"{tmp_path / 'net.py'}:Net#x2,range=255,weights={{}}")
    state = {name.removeprefix("module."): tensor for name, tensor in torch.load(out)["state_dict"].items()}
    network.load_state_dict(state, strict=True)
    x = images()
    torch.testing.assert_close(network(255 * x) / 255, model(x))
    assert load(f"{tmp_path / 'net.py'}:Net").origin is None


def test_networks_of_spandrel(tmp_path):
    needs("spandrel", "zoo")
    from spandrel.architectures.Compact import Compact

    torch.save({"params_ema": Compact(num_feat=8, num_conv=2, upscale=2).state_dict()}, tmp_path / "compact.pth")
    round_trip(tmp_path / "compact.pth")


def test_models_in_another_range_and_by_hand(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(network().state_dict(), path)
    out, _ = round_trip(path, "{}#range=1:2")
    assert torch.load(out).keys() == torch.load(path).keys()
    assert EDSR(scale=2, blocks=1, channels=4).origin is None
    assert load("bicubic").origin is None
    assert load_defended(f"{path}+mix=0.5").origin is None


def test_a_file_that_changed_or_a_model_that_is_another_is_refused(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(network().state_dict(), path)
    model = load(path)
    with pytest.raises(CheckpointError, match="other tensors"):
        model.origin.check(SRResNet(scale=2, blocks=1, channels=4))
    torch.save({"head": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="changed"):
        model.origin.check(model)
    path.unlink()
    with pytest.raises(CheckpointError, match="no file"):
        model.origin.write(model, tmp_path / "out.pth")


@pytest.mark.data
@pytest.mark.parametrize(("file", "options"), [("CARN-M_x234.pth", "#x3"), ("SRGAN_leftthomas_x4_pt04.pth", "")])
def test_published_files(file, options, data_dir, tmp_path):
    path = data_dir / "sr_weights" / file
    if not path.is_file():
        pytest.skip(f"no {path}")
    copy = tmp_path / file
    copy.write_bytes(path.read_bytes())
    out, _ = round_trip(copy, f"{{}}{options}", atol=1e-4, rtol=1e-3)
    assert zipfile.is_zipfile(out) == zipfile.is_zipfile(path)
    alike(torch.load(path, map_location="cpu"), torch.load(out, map_location="cpu"))
