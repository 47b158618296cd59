import pytest
import torch

import resolute
from resolute.errors import CheckpointError
from resolute.folders import find_images
from resolute.images import read_image
from resolute.measure import psnr_rgb
from resolute.models import Card, load
from resolute.models.denoisers import DNCNN, DnCNN, UNet
from resolute.models.weights import save_model


def randomised(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", [UNet(), UNet((8, 6)), DnCNN(depth=4, channels=6)], ids=repr)
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (32, 32), (33, 46)])
def test_an_untrained_denoiser_is_the_identity_at_any_size(model, size):
    x = image(2, 3, *size)
    assert torch.equal(model(x), x)


def test_sizes_are_as_documented():
    assert sum(p.numel() for p in UNet().parameters()) == 907_948
    # 17 x 64 with the batch normalisations folded: a bias for each convolution.
    assert sum(p.numel() for p in DnCNN().parameters()) == 557_443
    assert sum(p.numel() for p in DnCNN(depth=20).parameters()) == 668_227


@pytest.mark.parametrize("widths", [(8,), (6, 8), (8, 0), ()])
def test_widths_that_no_unet_has_are_refused(widths):
    with pytest.raises(ValueError, match="widths"):
        UNet(widths)


def test_a_dncnn_of_one_layer_is_refused():
    with pytest.raises(ValueError, match="two convolutions"):
        DnCNN(depth=1)


@pytest.mark.parametrize("model", [UNet((8, 6, 5)), DnCNN(depth=4, channels=6)], ids=repr)
def test_the_halves_meet_at_the_feature_layer(model):
    model, x, seen = randomised(model), image(1, 3, 21, 18), []
    model.get_submodule(model.feature_layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
    output = model(x)
    assert torch.equal(model.reconstruct(seen[0]), output)
    assert seen[0].shape[-2:] == x.shape[-2:]
    assert not torch.allclose(output, x)


@pytest.mark.parametrize("model", [UNet((8, 6, 5)), DnCNN(depth=4, channels=6)], ids=repr)
def test_an_image_does_not_depend_on_its_company(model):
    model = randomised(model).double()
    x = image(3, 3, 20, 26).double()
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-12, rtol=0)


def test_what_lies_beyond_the_edge_of_the_unet_is_cropped_back():
    model, x = randomised(UNet((8, 6, 5))), image(1, 3, 24, 24)
    ragged = model(x[..., :23, :21])
    assert ragged.shape == (1, 3, 23, 21)
    # Far from the padded edges nothing changes but what max pooling and the wide field see of them.
    assert torch.allclose(ragged[..., :4, :4], model(x)[..., :4, :4], atol=0.05)


@pytest.mark.parametrize(
    ("model", "kind"), [(UNet((8, 6, 5)), UNet), (DnCNN(depth=5, channels=6), DnCNN)], ids=["unet", "dncnn"]
)
def test_a_saved_denoiser_loads_as_a_model_of_scale_one(model, kind, tmp_path):
    model = randomised(model)
    path = tmp_path / "mine.safetensors"
    save_model(model, path, Card(name="mine", architecture=model.arguments(), scale=1))
    loaded = load(path, scale=1)
    assert isinstance(loaded, kind)
    assert loaded.arguments() == model.arguments()
    x = image(1, 3, 19, 22)
    torch.testing.assert_close(loaded(x), model(x))
    with pytest.raises(CheckpointError, match="by 1, not by 4"):
        load(path, scale=4)


def test_kairs_names_load_and_are_recognised(tmp_path):
    model = randomised(DnCNN(depth=4, channels=6))
    renamed = {
        f"conv{int(name.split('.')[1]) // 2}.{name.split('.')[2]}": tensor
        for name, tensor in model.state_dict().items()
    }
    assert DNCNN.detects(renamed)
    torch.save(renamed, tmp_path / "kair.pth")
    x = image(1, 3, 12, 12)
    torch.testing.assert_close(load(tmp_path / "kair.pth")(x), model(x))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"model.0.weight": torch.zeros(4, 1, 3, 3), "model.0.bias": torch.zeros(4)},
        {"conv0.weight": torch.zeros(4, 3, 3, 3), "tail.weight": torch.zeros(1)},
    ],
)
def test_other_layouts_are_not_mistaken_for_dncnn(state):
    assert not DNCNN.detects(state)


def test_a_dncnn_with_a_layer_missing_is_named(tmp_path):
    state = randomised(DnCNN(depth=4, channels=6)).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("model.2.")}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth .*DnCNN"):
        load(tmp_path / "x.pth")


def test_attacks_take_a_denoiser_like_any_model():
    model, x = randomised(UNet((8, 6))), image(1, 3, 16, 20)
    attacked = resolute.IFGSM(epsilon=4 / 255, steps=3)(model, x)
    assert attacked.objective.item() > 0
    assert resolute.FDA(epsilon=4 / 255, steps=2)(model, x).images.shape == x.shape


@pytest.mark.data
@pytest.mark.slow
def test_kairs_colour_dncnn_denoises_as_published(data_dir):
    model = load(data_dir / "denoisers" / "CDnCNN_color_sigma25.pth")
    assert model.arguments() == {"class": "DnCNN", "depth": 20, "channels": 64}
    gains = []
    for index, file in enumerate(find_images([data_dir / "sr_test" / "b100" / "HR_jpg"])[:4]):
        clean = read_image(file)[None, :, 80:240, 80:240]
        noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
        with torch.no_grad():
            gains.append(psnr_rgb(model(noisy), clean).item())
    # 31.23 dB over all 68 images of CBSD68 as published; the middles of four others scatter by a decibel or two.
    assert 29.7 < sum(gains) / len(gains) < 32.7
