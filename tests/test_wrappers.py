import dataclasses
import shutil

import pytest
import torch

from resolute import IFGSM, PGD, Bicubic, CheckpointError, ConfigError, load, load_defended, psnr_rgb
from resolute.attacks.features import layer_outputs
from resolute.defences import (
    Defended,
    EightBit,
    LowPass,
    Mixture,
    OutputBlur,
    RandomResizing,
    SelfEnsemble,
    match_clean_psnr,
    surrogate,
    undefended,
)
from resolute.defences.calibration import clean_psnr
from resolute.defences.loading import DEFENCES, defence
from resolute.defences.resizing import EOT_DRAWS, redrawn
from resolute.defences.wrappers import gaussian
from resolute.errors import ModelWarning
from resolute.images import from_uint8, sample_image, to_uint8
from resolute.models import EDSR
from resolute.resize import downscale

NAMES = (
    "mix=0.5", "lowpass=0.7", "blur=0.8", "confine=0.02", "denoise=denoiser-mse-012", "resize", "resize=1.5",
    "round8", "ensemble",
)  # fmt: skip


def images(count=2, height=12, width=15):
    levels = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(0))
    return levels / 255


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EDSR(scale=2, blocks=1, channels=4).eval()


def made(name, inner):
    return defence(name)(inner).eval()


# What all of them share


@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_size_scale_and_the_independence_of_images(name, network):
    x, model = images(), made(name, network)
    output = model(x)
    assert model.scale == 2
    assert output.shape == (2, 3, 24, 30)
    assert torch.equal(output, model(x))
    torch.testing.assert_close(output[1:], model(x[1:]))
    torch.testing.assert_close(output.flip(0), model(x.flip(0)))


@pytest.mark.parametrize("name", NAMES)
def test_the_feature_layer_is_that_of_the_model_inside(name, network):
    x, model = images(), made(name, network)
    assert model.get_submodule(model.feature_layer) is network.get_submodule(network.feature_layer)
    seen = []
    handle = model.get_submodule(model.feature_layer).register_forward_hook(lambda *args: seen.append(args[2]))
    model(x)
    handle.remove()
    assert torch.equal(seen[0], layer_outputs(model, x, (model.feature_layer,))[0])


@pytest.mark.parametrize("name", NAMES)
def test_only_rounding_has_no_gradient_and_its_surrogate_has_one(name, network):
    for model, flat in ((made(name, network), name == "round8"), (surrogate(made(name, network)), False)):
        x = images().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
        assert bool((gradient == 0).all()) == flat
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_the_card_tells_what_is_around_what(name):
    plain, model = load("edsr-s").card, load_defended(f"edsr-s+{name}").card
    assert model.name == f"edsr-s+{name}"
    assert model.architecture["inner"] == plain.architecture
    assert model.scale == plain.scale
    assert model.licence == plain.licence
    assert model.sha256 == load_defended(f"edsr-s+{name}").card.sha256
    assert "validation" in plain.training
    assert "validation" not in model.training


def test_every_setting_and_every_weight_has_a_sha256_of_its_own():
    names = ["mix=0.5", "mix=0.6", "lowpass=0.5", "blur=0.5", "resize", "resize=1.2", "round8", "ensemble"]
    names += ["confine=0.5"]
    names += ["mix=0.5+blur=0.5", "blur=0.5+mix=0.5"]
    models = [f"{model}+{name}" for model in ("edsr-s", "edsr-s-entropy") for name in names]
    assert len({load_defended(model).card.sha256 for model in models}) == len(models)


def test_a_model_built_by_hand_has_no_card(network):
    assert Mixture(network, 0.5).card is None


# Names


@pytest.mark.parametrize("name", ["edsr-s", "bicubic"])
def test_names_without_a_defence_load_as_ever(name):
    assert load_defended(name).card == load(name).card
    assert type(load_defended(name)) is type(load(name))
    with pytest.raises(CheckpointError, match="'nothing'"):
        load_defended("nothing")


def test_files_load_with_and_without_a_defence_whatever_their_path(tiny_model, tmp_path):
    path = tmp_path / "a+b" / "mine+mix=0.5.safetensors"
    path.parent.mkdir()
    shutil.copy(tiny_model, path)
    assert load_defended(path).card == load(tiny_model).card
    assert load_defended(str(path), scale=4).card == load(tiny_model).card
    assert load_defended(f"{path}+blur=1").card.name == "tiny+blur=1"


def test_a_chain_is_read_from_the_inside_to_the_outside():
    model = load_defended("bicubic+lowpass=0.7+mix=0.25+round8", scale=2)
    assert model.scale == 2
    assert not model.training
    kinds = []
    while isinstance(model, Defended):
        kinds.append(type(model))
        model = model.inner
    assert kinds == [EightBit, Mixture, LowPass]
    assert isinstance(model, Bicubic)


@pytest.mark.parametrize("name", ["nothing", "", "mix", "round8=3", "lowpass", "weights.pth", "mix=half", "mix="])
def test_an_unknown_defence_is_told_what_there_is(name):
    with pytest.raises(ConfigError, match="mix=THETA, lowpass=SIGMA") as error:
        load_defended(f"edsr-s+{name}")
    assert DEFENCES in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "mix=1.5",
        "mix=-1",
        "mix=nan",
        "lowpass=-1",
        "lowpass=inf",
        "blur=nan",
        "resize=1",
        "resize=9",
        "confine=0",
        "denoise=edsr-xs",
    ],
)
def test_a_parameter_out_of_range_is_told_the_range(name):
    with pytest.raises(ConfigError, match=f"{name.partition('=')[0]} takes .*not "):
        load_defended(f"edsr-s+{name}")


def test_the_wrong_scale_is_refused_as_ever():
    with pytest.raises(CheckpointError, match="upscales by 4"):
        load_defended("edsr-s+mix=0.5", scale=2)


# One by one


def test_a_mixture_lies_between_its_ends(network):
    x = images()
    ends = [Mixture(network, theta)(x) for theta in (0.0, 1.0)]
    torch.testing.assert_close(ends[0], Bicubic(2)(x))
    assert torch.equal(ends[1], network(x))
    torch.testing.assert_close(Mixture(network, 0.25)(x), 0.75 * ends[0] + 0.25 * ends[1])


@pytest.mark.parametrize("sigma", [0.0, 0.4, 0.7, 3.0])
def test_a_blur_keeps_what_is_even_and_takes_what_alternates(sigma):
    even = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(gaussian(even, sigma), even)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 1.0
    inside = gaussian(board.expand(1, 3, 16, 16), sigma)[..., 4:-4, 4:-4]
    # The transfer function of a Gaussian at the highest frequency of both axes; the sampled kernel aliases a little.
    left = 2 * float((inside - 0.5).abs().max())
    sampled = torch.exp(-(torch.arange(-40, 41) ** 2) / (2 * max(sigma, 1e-3) ** 2))
    expected = float((sampled * (-1.0) ** torch.arange(-40, 41)).sum() / sampled.sum()) ** 2
    assert left == pytest.approx(expected, abs=0.01)


def test_blurs_are_before_and_after_the_model(network):
    x = images()
    assert torch.equal(LowPass(network, 0.7)(x), network(gaussian(x, 0.7)))
    assert torch.equal(OutputBlur(network, 0.7)(x), gaussian(network(x), 0.7))
    assert torch.equal(LowPass(network, 0.0)(x), network(x))


def test_rounding_changes_no_file_and_stops_plain_gradients_only():
    x = sample_image("coffee")[None, :, 100:116, 100:116]
    plain, broken = load("edsr-s"), load_defended("edsr-s+round8")
    assert torch.equal(broken(x), plain(x))
    attack = IFGSM(epsilon=4 / 255, steps=3)
    with pytest.warns(ModelWarning, match="zero"):
        blind = attack(broken, x).images
    found = attack(surrogate(broken), x).images
    kept, lost = (psnr_rgb(broken(x), broken(images)).item() for images in (blind, found))
    assert lost < min(40, kept - 1)


def test_the_ensemble_is_the_mean_over_the_symmetries_of_the_square(network):
    x, model = images(), SelfEnsemble(network)
    torch.testing.assert_close(model(x.flip(-2)), model(x).flip(-2), atol=1e-5, rtol=0)
    torch.testing.assert_close(model(x.mT), model(x).mT, atol=1e-5, rtol=0)
    assert not torch.allclose(network(x.mT), network(x).mT, atol=1e-3)


# Random resizing


def test_draws_differ_by_image_and_seed_and_by_nothing_else(network):
    x = images(1)
    model = RandomResizing(network, 1.5)
    same = torch.cat([x, x])
    assert torch.equal(model(same)[0], model(same)[1])
    other = [RandomResizing(network, 1.5, seed=seed)(x) for seed in range(4)]
    assert len({output.sum().item() for output in other}) > 1
    # The next step of an attack meets another draw, hardly different though the image is.
    nudged = [(model(x + 1e-6 * (step + 1)) - model(x)).abs().max().item() for step in range(4)]
    assert max(nudged) > 1e-2


def test_an_image_comes_back_in_place(network):
    x = from_uint8(downscale(to_uint8(sample_image("coffee")[:, :96, :96]), 4)).unsqueeze(0)
    for seed in range(3):
        output = RandomResizing(Bicubic(2), 1.3, seed=seed)(x)
        # Zeros around it stain the border; inside it is the bicubic image, resampled twice.
        straight, shifted = (psnr_rgb(y, Bicubic(2)(x), border=6).item() for y in (output, output.roll(1, -1)))
        assert straight > 32
        assert straight > shifted + 1


@pytest.mark.parametrize("side", [1, 2, 5])
def test_tiny_images_are_resized_too(side):
    assert RandomResizing(Bicubic(3))(images(1, side, side + 1)).shape == (1, 3, 3 * side, 3 * side + 3)


def test_an_attacker_averages_draws_of_his_own(network):
    x, model = images(1), RandomResizing(network, 1.5)
    single = [RandomResizing(network, 1.5, seed=1, draws=draws)(x) for draws in (1, 2)]
    assert not torch.equal(*single)
    adaptive = surrogate(Mixture(model, 0.5))
    assert isinstance(adaptive, Mixture)
    assert (adaptive.inner.draws, adaptive.inner.seed != model.seed) == (EOT_DRAWS, True)
    assert undefended(adaptive) is network
    spread = [
        torch.stack([RandomResizing(network, 1.5, seed=seed, draws=draws)(x) for seed in range(8)]).var(dim=0).mean()
        for draws in (1, 8)
    ]
    assert spread[1] < spread[0] / 4


def test_the_judge_draws_anew_and_leaves_the_model_alone(network):
    x, model = images(1), Mixture(RandomResizing(network, 1.5), 0.5)
    before = model(x)
    assert any(not torch.equal(redrawn(model, seed)(x), before) for seed in (7, 8, 9))
    assert torch.equal(model(x), before)
    assert torch.equal(redrawn(network, 7)(x), network(x))


def test_climbing_the_expectation_finds_more_than_climbing_single_draws():
    x = from_uint8(downscale(to_uint8(sample_image("coffee")[:, 100:196, 200:296]), 4)).unsqueeze(0)
    model = load_defended("edsr-s+resize")
    attack = PGD(epsilon=4 / 255, steps=8)

    def harm(target):
        found = attack(target, x).images
        with torch.no_grad():
            means = [torch.stack([redrawn(model, seed)(y) for seed in range(50, 62)]).mean(dim=0) for y in (x, found)]
        return psnr_rgb(*means).item()

    assert harm(surrogate(model)) < harm(model)


# Equal clean PSNR


def pairs():
    truth = [to_uint8(sample_image(name)[:, 100:148, 100:148]) for name in ("coffee", "astronaut")]
    return [(from_uint8(downscale(t, 4)).unsqueeze(0), from_uint8(t).unsqueeze(0)) for t in truth]


@pytest.mark.parametrize(
    ("build", "low", "high"),
    [(Mixture, 0.0, 1.0), (LowPass, 0.2, 1.5), (OutputBlur, 0.5, 3.0)],
)
def test_the_strength_is_found_at_which_the_clean_psnr_is_what_was_asked(build, low, high):
    model, photos = load("edsr-s"), pairs()
    ends = [clean_psnr(build(model, strength), photos) for strength in (low, high)]
    for share in (0.3, 0.7):
        target = ends[0] + share * (ends[1] - ends[0])
        strength = match_clean_psnr(lambda s: build(model, s), photos, target, low, high)
        assert low < strength < high
        assert clean_psnr(build(model, strength), photos) == pytest.approx(target, abs=0.005)
    assert match_clean_psnr(lambda s: build(model, s), photos, ends[1], low, high) == high


def test_a_target_out_of_reach_is_refused_with_the_range():
    with pytest.raises(ConfigError, match=r"99\.00 dB"):
        match_clean_psnr(lambda theta: Mixture(load("edsr-s"), theta), pairs(), 99.0, 0.0, 1.0)
    with pytest.raises(ConfigError, match="no images"):
        match_clean_psnr(lambda theta: Mixture(load("edsr-s"), theta), [], 28.0, 0.0, 1.0)


def test_cards_are_frozen_facts():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_defended("edsr-s+mix=0.5").card.name = "other"


@pytest.mark.parametrize("spec", ["mix=0.5", "lowpass=0.7", "blur=0.8", "resize", "ensemble"])
def test_every_wrapper_can_be_attacked_in_bfloat16(spec):
    x = sample_image("coffee")[None, :, :16, :16]
    found = IFGSM(epsilon=4 / 255, steps=2, precision="bfloat16")(load_defended(f"edsr-xs+{spec}"), x)
    assert (found.objective > 0).all()
