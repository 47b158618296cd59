import csv

import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

from resolute.errors import CheckpointError, ImageError
from resolute.images import read_image
from resolute.models import MobileNetScorer, load_scorer
from resolute.models.mobilenet import FEATURES, MobileNetFeatures
from resolute.models.weights import save_model, weights_sha256


def network(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MobileNetScorer(**{"hidden": 4, **options}).eval()


def images(*shape):
    return torch.rand(shape or (2, 3, 64, 50), generator=torch.Generator().manual_seed(0))


def packed(backbone):
    """Return the int8 layout of a backbone, as the published file has it."""
    state = {}
    for name, tensor in backbone.state_dict().items():
        if tensor.ndim == 4:
            scale = tensor.abs().amax(dim=(1, 2, 3)) / 127
            state[f"{name}_int8"] = (tensor / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
            state[f"{name}_scale"] = scale
        else:
            state[name] = tensor
    return state


def test_the_backbone_has_the_published_size():
    """2,223,872 weights of the convolutions of MobileNetV2 1.0 with folded norms: 52 kernels, and a bias a channel."""
    backbone = MobileNetFeatures()
    kernels = [p for p in backbone.parameters() if p.ndim == 4]
    biases = [p for p in backbone.parameters() if p.ndim == 1]
    assert len(kernels) == len(biases) == 52
    # torchvision and Keras both have 3,504,872 with the norms' 2 x 17,056 weights and the classifier's 1,281,000.
    assert sum(p.numel() for p in kernels) + 2 * sum(p.numel() for p in biases) == 3_504_872 - 1_281_000


def test_only_the_head_learns_unless_told_otherwise():
    assert all(name.startswith("head.") for name, p in network().named_parameters() if p.requires_grad)
    assert all(p.requires_grad for p in network(fine_tune=True).parameters())


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 50)])
def test_any_size_gives_one_score_an_image(size):
    scores = network()(images(3, 3, *size))
    assert scores.shape == (3,)
    assert ((scores > 0) & (scores < 100)).all()


def test_small_images_are_refused():
    with pytest.raises(ImageError, match="32 pixels"):
        network()(images(1, 3, 31, 64))


def test_an_image_scores_the_same_in_any_company():
    metric, x = network().double(), images(3, 3, 40, 44).double()
    torch.testing.assert_close(torch.cat([metric(image[None]) for image in x]), metric(x))


def test_gradients_agree_with_finite_differences():
    metric, x = network().double(), images(1, 3, 32, 32).double().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(x).sum(), x)
    step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with torch.no_grad():
        change = metric(x + step) - metric(x - step)
    torch.testing.assert_close((2 * gradient * step).sum(dim=(1, 2, 3)), change, rtol=1e-4, atol=1e-9)


def test_a_backbone_is_read_from_its_int8_file(tmp_path):
    source = network(seed=1).backbone
    torch.save(packed(source), tmp_path / "backbone.pth")
    metric = MobileNetScorer.from_backbone(tmp_path / "backbone.pth", hidden=0)
    for name, tensor in metric.backbone.state_dict().items():
        torch.testing.assert_close(tensor, source.state_dict()[name], rtol=0, atol=1e-2)
    assert not any(p.requires_grad for p in metric.backbone.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("stem.conv.bias"),
        lambda state: state.pop("stem.conv.weight_scale"),
        lambda state: state.update({"stem.conv.weight_scale": torch.zeros(5)}),
        lambda state: state.update(extra=torch.zeros(1)),
    ],
)
def test_another_backbone_is_refused(tmp_path, change):
    state = packed(MobileNetFeatures())
    change(state)
    torch.save(state, tmp_path / "backbone.pth")
    with pytest.raises(CheckpointError, match=r"backbone\.pth .*MobileNetV2"):
        MobileNetScorer.from_backbone(tmp_path / "backbone.pth")


def test_a_missing_backbone_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"backbone\.pth"):
        MobileNetScorer.from_backbone(tmp_path / "backbone.pth")


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_saved_metric_comes_back_whole(tmp_path, hidden):
    metric = network(hidden=hidden, low=1.0, high=5.0)
    save_model(metric, tmp_path / "mine.safetensors", metric.describe("mine"))
    loaded = load_scorer(tmp_path / "mine.safetensors")
    assert isinstance(loaded, MobileNetScorer)
    assert loaded.arguments() == metric.arguments()
    assert loaded.card.sha256 == weights_sha256(metric.state_dict())
    torch.testing.assert_close(loaded(images()), metric(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.data
@pytest.mark.slow
def test_features_of_the_published_backbone_tell_quality(data_dir):
    """Ridge regression on CLIVE at half size; at full size the same gives 0.77."""
    path = data_dir / "iqa/weights/backbone_mobilenetv2/mobilenetv2_1.0_keras_imagenet_backbone_int8.pth"
    metric = MobileNetScorer.from_backbone(path).eval().to(memory_format=torch.channels_last)
    folder = data_dir / "iqa" / "clive"
    with (folder / "mos.csv").open() as file:
        rows = list(csv.DictReader(file))
    with torch.no_grad():
        shots = (F.avg_pool2d(read_image(folder / row["path"])[None], 2) for row in rows)
        features = torch.cat([metric.features(shot) for shot in shots]).double()
    assert features.shape == (len(rows), FEATURES)
    opinions = torch.tensor([float(row["mos"]) for row in rows]).double()
    train = torch.tensor([row["split"] == "train" for row in rows])
    test = torch.tensor([row["split"] == "test" for row in rows])
    z = (features - features[train].mean(dim=0)) / (features[train].std(dim=0) + 1e-6)
    kernel = z @ z[train].T
    weights = torch.linalg.solve(
        kernel[train] + 3000 * torch.eye(int(train.sum())), opinions[train] - opinions[train].mean()
    )
    assert spearmanr(kernel[test] @ weights, opinions[test])[0] > 0.7
