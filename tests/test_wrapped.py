"""Any module as a restorer: what real networks do that gets in the way of an attack, written out small."""

import copy
import pickle
import re

import pytest
import torch
from small import images
from torch import nn
from torch.nn import functional as F

from resolute import FDA, IFGSM, Tiled, as_restorer, load, load_defended
from resolute.errors import CheckpointError, ConfigError
from resolute.models.sizes import pad
from resolute.models.wrapped import Wrapped


class Small(nn.Module):
    """A convolution, ReLU, and sub-pixels; its parts are what the others change."""

    def __init__(self, scale=2, width=6):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Conv2d(3, width, 3, padding=1)
            self.body = nn.Conv2d(width, width, 3, padding=1)
            self.tail = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        self.scale = scale

    def maps(self, x):
        return F.relu(self.body(F.relu(self.head(x))))

    def forward(self, x):
        return F.pixel_shuffle(self.tail(self.maps(x)), self.scale)


class Multiplied(Small):
    """As in FMEN: a sigmoid, which autograd keeps, is multiplied in place, and a skip is added in place."""

    def maps(self, x):
        shallow = self.head(x)
        out = torch.sigmoid(self.body(shallow))
        out *= shallow
        h = self.body(out)
        h += shallow
        return h


class MultipliedApart(Multiplied):
    def maps(self, x):
        shallow = self.head(x)
        h = self.body(torch.sigmoid(self.body(shallow)) * shallow)
        return h + shallow


class Written(Small):
    """Half of the maps are written over, in a slice, and the input too."""

    def maps(self, x):
        x.mul_(2.0)
        h = self.head(x)
        deep = torch.sigmoid(h)
        h[:, :3] = self.body(deep)[:, :3]
        h.mul_(deep)
        deep += 1.0
        return self.body(h)


class WrittenApart(Small):
    def maps(self, x):
        h = self.head(2.0 * x)
        deep = torch.sigmoid(h)
        return self.body(torch.cat([self.body(deep)[:, :3], h[:, 3:]], dim=1) * deep)


class Split(Small):
    """Autograd refuses what is written into the parts of a split tensor."""

    def maps(self, x):
        first, second = torch.chunk(self.head(x), 2, dim=1)
        second += first
        first.mul_(second)
        return self.body(torch.cat([first, second], dim=1))


class SplitApart(Small):
    def maps(self, x):
        first, second = torch.chunk(self.head(x), 2, dim=1)
        second = second + first
        return self.body(torch.cat([first * second, second], dim=1))


@pytest.mark.parametrize(
    ("network", "apart"), [(Multiplied, MultipliedApart), (Written, WrittenApart), (Split, SplitApart)]
)
def test_code_that_works_in_place_has_right_gradients_for_image_and_weights(network, apart):
    model, expected = as_restorer(network(), scale=2), apart()
    x = images(2, 9, 8).requires_grad_()
    with pytest.raises(RuntimeError, match=r"in-?place"):
        network()(x.clone()).square().sum().backward()
    y, wanted = model(x), expected(x)
    torch.testing.assert_close(y, wanted)
    ours = torch.autograd.grad(y.square().sum(), [x, *model.network.parameters()])
    theirs = torch.autograd.grad(wanted.square().sum(), [x, *expected.parameters()])
    torch.testing.assert_close(ours, theirs)


def test_an_image_is_left_as_it_was_by_a_network_that_writes_into_it():
    model, x = as_restorer(Written(), scale=2), images(1, 9, 8)
    before = x.clone()
    model(x)
    IFGSM(epsilon=4 / 255, steps=2)(model, x)
    assert torch.equal(x, before)


def test_activations_no_longer_work_in_place_and_the_module_stays_the_users():
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.LeakyReLU(0.1, inplace=True), nn.PixelShuffle(2)).train()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    model = as_restorer(network, scale=2)
    assert model.network is network
    assert not network[1].inplace
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    "activation", [nn.Identity(), nn.ReLU(), nn.LeakyReLU(0.1, inplace=True), nn.PReLU(), nn.GELU()]
)
def test_features_end_before_what_makes_subpixels(activation):
    body, head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 32, 3, padding=1)
    network = nn.Sequential(body, head, activation, nn.PixelShuffle(2), nn.Conv2d(8, 3, 3, padding=1))
    assert as_restorer(network, scale=2).feature_layer == "network.0"


class Reused(nn.Module):
    """Uses what an activation wrote into, as SPAN does, and has another that can give new tensors."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.acts = nn.ModuleList(nn.SiLU(inplace=True) for _ in range(2))

    def forward(self, x):
        y = self.first(x)
        z = self.acts[0](y)
        return nn.functional.pixel_shuffle(self.acts[1](self.last(torch.cat([y, z + 1], dim=1))), 2)


def test_activations_whose_input_is_used_again_go_on_in_place(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Reused()
    x = images(1, 9, 8).requires_grad_()
    expected = network(x)
    gradient = torch.autograd.grad(expected.square().sum(), x)[0]
    model = as_restorer(network, scale=2)
    assert [act.inplace for act in network.acts] == [True, False]
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(torch.autograd.grad(model(x).square().sum(), x)[0], gradient)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)


class Several(Small):
    def forward(self, x):
        y = super().forward(x)
        return {"features": self.maps(x)}, [y.mean(), y]


def test_the_image_is_found_among_other_outputs():
    x = images(2)
    torch.testing.assert_close(as_restorer(Several(), scale=2)(x), Small()(x))


class Twins(Small):
    def forward(self, x):
        return super().forward(x), super().forward(x) / 2


class Alone(Small):
    def forward(self, x):
        assert len(x) == 1, "one image at a time"
        return super().forward(x)


def test_a_network_for_one_image_gets_one_a_call():
    x = images(3)
    torch.testing.assert_close(as_restorer(Alone(), scale=2)(x), Small()(x))


class Windows(Small):
    """Takes multiples of a number alone."""

    def __init__(self, multiple):
        super().__init__()
        self.multiple = multiple

    def maps(self, x):
        b, c, h, w = x.shape
        n = self.multiple
        x = x.view(b, c, h // n, n, w // n, n).reshape(b, c, h, w)
        return super().maps(x)


@pytest.mark.parametrize("multiple", [2, 8, 12, 64])
def test_sizes_are_padded_by_mirroring_to_what_a_network_takes(multiple):
    model, x = as_restorer(Windows(multiple), scale=2), images(1, 13, 9)
    height, width = (-(-side // multiple) * multiple for side in (13, 9))
    expected = Small()(pad(x, width - 9, height - 13))[..., :26, :18]
    torch.testing.assert_close(model(x), expected)
    assert model.lacks(2 * multiple, multiple) == (0, 0)


class Halved(Small):
    """Loses the last row and column of odd sizes, without a word."""

    def maps(self, x):
        return super().maps(F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0))


def test_a_network_that_loses_the_edge_is_padded_too():
    assert as_restorer(Halved(), scale=2)(images(1, 7, 5)).shape == (1, 3, 14, 10)


class Least(Small):
    def maps(self, x):
        F.conv2d(x, torch.ones(1, 3, 20, 20))
        return super().maps(x)


def test_small_images_are_padded_for_a_network_with_a_least_size_and_large_ones_are_not():
    model = as_restorer(Least(), scale=2)
    assert model(images(1, 7, 5)).shape == (1, 3, 14, 10)
    assert model.lacks(37, 41) == (0, 0)


@pytest.mark.parametrize(("range", "first", "last"), [(255.0, 255, 255), ((1.0, 255.0), 1, 255)])
def test_images_reach_the_network_in_its_range(range, first, last):
    x = images()
    torch.testing.assert_close(as_restorer(Small(), 2, range=range)(x), Small()(first * x) / last)


def test_phi_is_found_or_named_and_attacks_on_the_output_need_none():
    x = images(2)
    model = as_restorer(Small(), scale=2, name="small")
    assert (model.feature_layer, model.card.name, model.card.scale) == ("network.body", "small", 2)
    torch.testing.assert_close(model.features(x), Small().body(F.relu(Small().head(x))))
    assert as_restorer(Small(), scale=2, layer="head").feature_layer == "network.head"
    assert FDA(epsilon=4 / 255, steps=1)(model, x).objective.isfinite().all()
    with pytest.raises(ConfigError, match="taken apart"):
        Tiled(model)
    plain = as_restorer(nn.Upsample(scale_factor=2, mode="bilinear"), scale=2)
    torch.testing.assert_close(plain.features(x), plain(x))
    with pytest.raises(CheckpointError, match=r"'neck'.* head, body, tail"):
        as_restorer(Small(), scale=2, layer="neck")


def test_weights_in_training_get_gradients_through_the_wrapper():
    model = as_restorer(Multiplied(), scale=2)
    model(images(2)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_cards_tell_ranges_apart():
    cards = [as_restorer(Small(), 2, range=range).card.sha256 for range in (1.0, 255.0, (1.0, 255.0))]
    assert len({*cards}) == 3


def test_copies_and_pickles_are_the_same_function():
    model, x = as_restorer(Multiplied(), scale=2, range=255.0), images()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(again(x), model(x))
        assert again.network is not model.network


# What is refused, and how.


class Cut(Small):
    def forward(self, x):
        return super().forward(x.detach()) + 0 * F.interpolate(x, scale_factor=2.0)


class Numpy(Small):
    def forward(self, x):
        return torch.from_numpy(super().forward(x).detach().numpy())


class Drawing(Small):
    def forward(self, x):
        return super().forward(x) + torch.rand(1)


class Hidden(Small):
    """Writes where autograd does not see it, and gives something else for parts that are copies."""

    def maps(self, x):
        h = self.head(x)
        first, _ = torch.chunk(h, 2, dim=1)
        first.mul_(3.0)
        return self.body(h)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Cut(), "no gradient reaches the image; take detach"),
        (Numpy(), "no gradient reaches the image"),
        (Drawing(), "draws random numbers"),
        (Small(scale=3), "it upscales by 3, not by 2: give the scale 3"),
        (nn.Conv2d(3, 8, 3, padding=1), "turns .* into .*, and not into an image of 3 channels"),
        (Twins(), "returns 2 images of the same size: wrap it"),
        (Hidden(), "writes into tensors that its gradient needs.*write `x = x \\+ y`"),
        (nn.Linear(7, 7), "fails on a sample image: RuntimeError"),
        (Small().half(), "its weights are float16; call .float"),
    ],
)
def test_what_no_attack_can_work_with_is_refused_in_a_line(network, message):
    state = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=message) as caught:
        as_restorer(network, scale=2)
    assert "\n" not in str(caught.value)
    assert re.match(f"{type(network).__name__} cannot be attacked", str(caught.value))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("range", [0.0, -1.0, (1.0, float("nan"))])
def test_ranges_are_positive_numbers(range):
    with pytest.raises(ValueError, match="positive"):
        as_restorer(Small(), 2, range=range)


# By file.

SOURCE = """
import torch
from torch import nn
from .parts import Body
from repository.parts import WIDTH


class Net(nn.Module):
    def __init__(self, nf=WIDTH, scale=2, act="relu"):
        super().__init__()
        self.head = nn.Conv2d(3, nf, 3, padding=1)
        self.body = Body(nf)
        self.tail = nn.Sequential(nn.Conv2d(nf, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x):
        return self.tail(self.body(self.head(x)))


def make(nf=4):
    return Net(nf)


def broken():
    raise ValueError("no\\nluck")


def nothing():
    return 3
"""
PARTS = """
from torch import nn

WIDTH = 6


class Body(nn.Module):
    def __init__(self, nf):
        super().__init__()
        self.conv = nn.Conv2d(nf, nf, 3, padding=1)

    def forward(self, x):
        out = self.conv(x).sigmoid()
        out *= x
        return out
"""
pytestmark = pytest.mark.filterwarnings("ignore:the code in")


@pytest.fixture
def code(tmp_path):
    """A repository with a package, and weights as training wrote them."""
    package = tmp_path / "repository"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(SOURCE)
    (package / "parts.py").write_text(PARTS)
    return package / "net.py"


@pytest.fixture
def weights(code):
    model = load_defended(f"{code}:Net#x2")
    state = {f"module.{name}": tensor for name, tensor in model.network.state_dict().items()}
    torch.save({"epoch": 3, "params": state}, code.parent / "net-x2.pth")
    return code.parent / "net-x2.pth"


def test_a_network_loads_by_its_code(code, weights):
    import sys

    before = set(sys.modules)
    model = load_defended(f"{code}:Net#x2,range=255,weights={weights}", scale=2)
    assert (type(model), model.card.name, model.scale) == (Wrapped, "net-x2", 2)
    state = torch.load(weights)["params"]
    assert all(torch.equal(tensor, state[f"module.{name}"]) for name, tensor in model.network.state_dict().items())
    assert not any(name.startswith("repository") for name in set(sys.modules) - before)
    assert not list(code.parent.glob("__pycache__"))
    assert load_defended(f"{code}:make#nf=5+mix=0.5").inner.network.head.weight.shape[0] == 5
    x = images()
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), model(x))
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))
    # Wherever the model is.
    assert {parameter.device.type for parameter in copy.deepcopy(model.to("meta")).parameters()} == {"meta"}


def test_two_repositories_with_a_package_of_one_name_do_not_collide(code, tmp_path):
    other = tmp_path / "other" / "repository"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "net.py").write_text(SOURCE)
    (other / "parts.py").write_text(PARTS.replace("WIDTH = 6", "WIDTH = 9"))
    widths = [load_defended(f"{file}:Net").network.head.weight.shape[0] for file in (code, other / "net.py", code)]
    assert widths == [6, 9, 6]


def test_the_card_tells_code_arguments_and_options_apart(code, weights):
    def sha256(address):
        return load_defended(address).card.sha256

    plain = f"{code}:Net#x2,weights={weights}"
    found = [plain, f"{plain},range=255", f"{code}:Net#x2", f"{code}:Net#x2,nf=7", f"{code}:make#nf=6"]
    hashes = [sha256(address) for address in found]
    assert sha256(plain) == hashes[0]
    (code.parent / "parts.py").write_text(PARTS + "# changed\n")
    assert len({*hashes, sha256(plain)}) == len(found) + 1


def test_what_the_code_gets_wrong_is_said_in_a_line(code, weights):
    def refused(address):
        with pytest.raises(CheckpointError) as caught:
            load_defended(address)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no Nte" in refused(f"{code}:Nte")
    assert "ValueError: no" in refused(f"{code}:broken")
    assert "type int" in refused(f"{code}:nothing")
    assert "'width'" in refused(f"{code}:Net#width=3")
    assert "by 2, not by 4" in refused(f"{code}:Net#x4")
    assert "head.weight" in refused(f"{code}:Net#nf=7,weights={weights}")
    assert "FILE.py:NAME" in refused(f"{code}")
    assert "Net, make, broken, nothing" in refused(f"{code}")
    assert "no file" in refused(f"{code.parent}/nte.py:Net")
    torch.save({"head.weight": torch.zeros(6, 3, 3, 3), "neck": torch.zeros(1)}, weights)
    for name in ("no head.bias,", "besides neck"):
        assert name in refused(f"{code}:Net#weights={weights}")
    code.write_text("import nowhere_to_be_found\n")
    assert "ModuleNotFoundError" in refused(f"{code}:Net")
    code.write_text("raise SystemExit(3)\n")
    assert "SystemExit" in refused(f"{code}:Net")
    code.write_text(SOURCE + "\n\nclass Net(Net):\n    def forward(self, x):\n        raise SystemExit\n")
    assert "SystemExit" in refused(f"{code}:Net")


def test_a_range_that_saturates_a_network_is_told_from_a_gradient_that_is_cut_off():
    class Clamped(Small):
        def forward(self, x):
            return F.interpolate(x, scale_factor=2.0).clamp(0, 1)

    class Detached(Small):
        def forward(self, x):
            return F.interpolate(x.detach(), scale_factor=2.0)

    assert as_restorer(Clamped(), 2).scale == 2
    with pytest.raises(CheckpointError, match=r"saturated.*range"):
        as_restorer(Clamped(), 2, range=1e6)
    with pytest.raises(CheckpointError, match="detach"):
        as_restorer(Detached(), 2)


def test_a_file_without_a_package_finds_its_neighbours_and_its_repository(tmp_path):
    folder = tmp_path / "models" / "team"
    folder.mkdir(parents=True)
    (folder / "parts.py").write_text(PARTS)
    for line in ("from parts import Body, WIDTH", "from models.team.parts import Body, WIDTH"):
        kept = SOURCE.replace("from .parts import Body\nfrom repository.parts import WIDTH", line)
        (folder / "net.py").write_text(kept)
        assert load_defended(f"{folder}/net.py:Net").scale == 2


@pytest.mark.filterwarnings("default:the code in")
def test_it_is_said_once_that_code_is_run(code):
    import warnings

    from resolute import ModelWarning, load

    with pytest.warns(ModelWarning, match=r"net\.py .*Net"):
        load(f"{code}:Net")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(does not upscale|may not be run)")
        load(f"{code}:Net")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it moves to the GPU that there is")
def test_code_that_asks_for_a_gpu_is_built_without_one(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 12, 3, padding=1)\n        self.cuda()(torch.zeros(1, 3, 8, 8).cuda())\n\n"
        "    def forward(self, x):\n        return nn.functional.pixel_shuffle(self.conv(x), 2)\n"
    )
    assert load(f"{path}:Net#x2").scale == 2
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1).cuda()


def test_weights_are_laid_out_as_convolutions_like_unless_the_code_forbids_it():
    class Viewed(Small):
        def maps(self, x):
            y = super().maps(x)
            return y.view(y.shape[0], -1).view(y.shape)

    for network, laid_out in ((Small(), True), (Viewed(), False)):
        model = as_restorer(network, scale=2)
        x = torch.rand(2, 3, 12, 9)
        before = model(x)
        model.lay_out()
        assert network.body.weight.is_contiguous(memory_format=torch.channels_last) == laid_out
        torch.testing.assert_close(model(x), before)
