"""What is said of networks that do not upscale: by checkpoints of trained ones, run as they were not trained."""

import importlib.util
import re
import warnings

import pytest
import torch
from safetensors.torch import load_file
from warm import Typed

from resolute import ModelWarning, load
from resolute.models import CARN, EDSR, MSRN, RCAN, built_in_models
from resolute.models.ranged import Ranged
from resolute.models.restorer_probe import doubt
from resolute.models.weights import built_in_file

pytestmark = pytest.mark.filterwarnings("default:.*(does not upscale|may not be run)")


def weights(name="edsr-xs"):
    return load_file(built_in_file(f"{name}.safetensors"))


def unit(state):
    """Return weights of the same function, trained on [0, 1]: all but biases and the attention of RCAN is linear."""
    found = {}
    for name, tensor in state.items():
        if ".conv_du." in name:
            found[name] = tensor * 255 if name.endswith(".0.weight") else tensor
        else:
            found[name] = tensor / 255 if name.endswith(".bias") else tensor
    return found


def unwarned(address):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(address)


@pytest.mark.parametrize("name", built_in_models())
def test_trained_networks_are_beyond_doubt_under_any_name(name, tmp_path):
    model = load(name)
    file = tmp_path / "mine.safetensors"
    file.write_bytes(built_in_file(f"{name}.safetensors").read_bytes())
    assert model.doubt == unwarned(file).doubt == ""


@pytest.mark.parametrize(("name", "kind"), [("edsr-xs", EDSR), ("rcan-xs", RCAN), ("msrn-xs", MSRN), ("carn-xs", CARN)])
def test_the_mean_tells_the_range(name, kind, tmp_path):
    torch.save(unit(weights(name)), tmp_path / "unit.pt")
    model = unwarned(tmp_path / "unit.pt")
    assert (type(model), model.peak) == (kind, 1.0)
    x = torch.rand(1, 3, 12, 12)
    torch.testing.assert_close(model(x), load(name)(x), atol=1e-4, rtol=1e-4)


def test_a_residual_scale_that_no_shape_tells(tmp_path):
    state = {
        name: tensor * 10 if re.match(r"body\.\d+\.body\.2\.", name) else tensor for name, tensor in weights().items()
    }
    torch.save(state, tmp_path / "res.pt")
    with pytest.warns(ModelWarning, match=r"res\.pt .*#res_scale=0\.1"):
        doubted = load(tmp_path / "res.pt")
    assert "#res_scale=0.1" in doubted.doubt
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        unwarned(f"{tmp_path}/res.pt#res_scale=0.1")(x), load("edsr-xs")(x), atol=1e-3, rtol=1e-3
    )


CODE = """
import torch

from resolute import load


class Within(torch.nn.Module):
    def __init__(self, first=1.0, last=1.0, order=(0, 1, 2)):
        super().__init__()
        self.inner, self.first, self.last, self.order = load("edsr-xs"), first, last, list(order)

    def forward(self, x):
        return (self.inner(x[:, self.order] / self.first) * self.last)[:, self.order]
"""


@pytest.mark.filterwarnings("ignore:the code in")
@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [("first=255,last=255", "range=255"), ("first=1,last=255", "range=1:255"), ("first=255,last=1", "range=255:1")],
)
def test_the_remedy_is_named_and_mends_it(arguments, remedy, tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    address = f"{tmp_path / 'net.py'}:Within#x4,{arguments}"
    with pytest.warns(
        ModelWarning, match=f"net.py:Within does not upscale: .* bicubic .*--{remedy.replace('=', ' ')} "
    ):
        assert f"(or #{remedy})" in load(address).doubt
    again = load(f"{address},{remedy}")
    assert again.doubt == ""
    x = torch.rand(1, 3, 12, 12)
    torch.testing.assert_close(again(x), load("edsr-xs")(x), atol=1e-5, rtol=1e-5)


def test_garbage_is_called_garbage_and_scale_one_is_not_asked(tmp_path):
    torch.save(EDSR(scale=4, blocks=1, channels=4).state_dict(), tmp_path / "random.pt")
    with pytest.warns(ModelWarning, match=r"random\.pt .*no other"):
        load(tmp_path / "random.pt")
    broken = load("edsr-xs")
    with torch.no_grad():
        broken.tail[0][0].weight.fill_(torch.inf)
    assert "not finite" in doubt(broken, "broken", range=(255.0, 255.0))
    assert load("denoiser-mse-012").doubt == ""


def test_a_little_below_bicubic_is_a_doubt_where_another_range_is_much_better():
    soft = Ranged(load("edsr-xs"), (240.0, 255.0))
    assert re.search("may not be run as it was trained: .* range 255 ", doubt(soft, "soft", range=(240.0, 255.0)))


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnx_files_in_another_range(tmp_path):
    from resolute.export import export

    export(Ranged(load("edsr-xs"), (1.0, 1.0)), tmp_path / "net.onnx")
    with pytest.warns(ModelWarning, match=r"net\.onnx .*#range=255"):
        load(tmp_path / "net.onnx")
    assert unwarned(f"{tmp_path / 'net.onnx'}#range=255").scale == 4


def test_the_command_line_says_it_in_one_line(tmp_path, photos):
    torch.save(unit(weights()) | {"sub_mean.bias": weights()["sub_mean.bias"]}, tmp_path / "net.pt")
    typed = Typed("attack", tmp_path / "net.pt", photos / "coffee.png", "--steps", 1, "--out", tmp_path / "out")
    code, stderr = typed.ended(60)
    lines = [line for line in stderr.splitlines() if "warning" in line]
    assert code == 0
    assert len(lines) == 1
    assert lines[0].startswith("warning: net.pt ")
    assert "Warning" not in stderr


@pytest.mark.data
@pytest.mark.parametrize(("file", "options"), [("CARN-M_x234.pth", "#x2"), ("CARN-M_x234.pth", "#x4"),
                                               ("SRGAN_leftthomas_x4_pt04.pth", "")])  # fmt: skip
def test_published_networks_are_beyond_doubt(file, options, data_dir):
    if not (data_dir / "sr_weights" / file).is_file():
        pytest.skip(f"no {data_dir / 'sr_weights' / file}")
    assert unwarned(f"{data_dir / 'sr_weights' / file}{options}").doubt == ""
