import csv

import pytest
import torch
from layouts import TABLE_1_OF_EFFICIENTNET, imagenet_classifier
from odd import FULL
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from resolute.errors import CheckpointError, ImageError
from resolute.images import read_image
from resolute.models import EfficientNetScorer, MobileNetScorer, load_scorer
from resolute.models.efficientnet import EfficientNetFeatures
from resolute.models.mobilenet import MobileNetFeatures
from resolute.models.pooling import ScoreHead, fit_linear
from resolute.models.weights import save_model, weights_sha256

KINDS = (EfficientNetScorer, MobileNetScorer)


def network(kind, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(**options).eval()


def images(*shape):
    return torch.rand(shape or (2, 3, 64, 50), generator=torch.Generator().manual_seed(0))


def int8(backbone):
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


def published(kind):
    return imagenet_classifier() if kind is EfficientNetScorer else int8(MobileNetFeatures())


def reference(state, x):
    """Return the last feature maps, computed by TensorFlow's rule of padding, with norms apart."""

    def conv(x, name, norm, stride=1, relu=True):
        weight = state[f"{name}.weight"]
        kernel, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        needed = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
        (top, bottom), (left, right) = [(n // 2, n - n // 2) for n in needed]
        x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=groups)
        values = [state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *values, eps=1e-3)
        return x.clamp(0, 6) if relu else x

    x = conv((x * 255 - 127) / 128, "_conv_stem", "_bn0", 2)
    number = 0
    for expansion, outputs, layers, stride, _ in TABLE_1_OF_EFFICIENTNET:
        for layer in range(layers):
            block, y = f"_blocks.{number}", x
            if expansion > 1:
                y = conv(y, f"{block}._expand_conv", f"{block}._bn0")
            y = conv(y, f"{block}._depthwise_conv", f"{block}._bn1", stride if layer == 0 else 1)
            y = conv(y, f"{block}._project_conv", f"{block}._bn2", relu=False)
            x = x + y if layer and x.shape[1] == outputs else y
            number += 1
    return conv(x, "_conv_head", "_bn1")


@pytest.mark.parametrize(
    ("backbone", "convs", "published"), [(EfficientNetFeatures, 49, 4_652_008), (MobileNetFeatures, 52, 3_504_872)]
)
def test_it_has_the_published_size(backbone, convs, published):
    """Kernels, a gain and a bias a channel for the folded norms, and the classifier's 1,281,000."""
    found = [module for module in backbone().modules() if isinstance(module, nn.Conv2d)]
    kernels, norms = (sum(count) for count in zip(*((c.weight.numel(), c.out_channels) for c in found), strict=True))
    assert len(found) == convs
    assert kernels + 2 * norms + 1_281_000 == published


@pytest.mark.parametrize("size", [(64, 64), (61, 50), (37, 96)])
def test_a_classifier_is_read_with_its_norms_folded(tmp_path, size):
    # In float64, since fifty layers of random weights enlarge what float32 rounds.
    state = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in imagenet_classifier().items()
    }
    x = images(2, 3, *size).double()
    torch.save(state, tmp_path / "lite0.pth")
    backbone = EfficientNetFeatures().double()
    backbone.read(tmp_path / "lite0.pth")
    with torch.no_grad():
        expected, features = reference(state, x), backbone(x)
    means, stds = features.chunk(2, dim=1)
    torch.testing.assert_close(means[:, -1280:], expected.mean(dim=(2, 3)))
    torch.testing.assert_close(stds[:, -1280:], (expected.var(dim=(2, 3), correction=0) + 1e-4).sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_is_built_on_published_features(kind, tmp_path):
    torch.save(published(kind), tmp_path / "features.pth")
    metric, backbone = kind.from_backbone(tmp_path / "features.pth", hidden=4), kind.kind()
    backbone.read(tmp_path / "features.pth")
    assert weights_sha256(metric.backbone.state_dict()) == weights_sha256(backbone.state_dict())
    assert metric.arguments()["hidden"] == 4


def test_int8_weights_come_with_a_scale_a_channel(tmp_path):
    source = network(MobileNetScorer, seed=1).backbone
    torch.save(int8(source), tmp_path / "backbone.pth")
    metric = MobileNetScorer.from_backbone(tmp_path / "backbone.pth")
    for name, tensor in metric.backbone.state_dict().items():
        torch.testing.assert_close(tensor, source.state_dict()[name], rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (EfficientNetScorer, lambda state: state.pop("_bn1.running_mean")),
        (EfficientNetScorer, lambda state: state.pop("_blocks.9._expand_conv.weight")),
        (EfficientNetScorer, lambda state: state.update({"_conv_head.weight": torch.zeros(1280, 100, 1, 1)})),
        (MobileNetScorer, lambda state: state.pop("stem.conv.bias")),
        (MobileNetScorer, lambda state: state.pop("stem.conv.weight_scale")),
        (MobileNetScorer, lambda state: state.update({"stem.conv.weight_scale": torch.zeros(5)})),
        (MobileNetScorer, lambda state: state.update(extra=torch.zeros(1))),
    ],
)
def test_other_features_are_refused(kind, change, tmp_path):
    state = published(kind)
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth .*(EfficientNet-Lite0|MobileNetV2)"):
        kind.from_backbone(tmp_path / "other.pth")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_named(kind, tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pth"):
        kind.from_backbone(tmp_path / "gone.pth")


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_learns_but_what_is_fixed(kind):
    metric = network(kind)
    metric(images()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in metric.parameters())
    metric.backbone.fix(0)
    assert all(p.requires_grad for p in metric.parameters())
    metric.backbone.fix(2)
    fixed = {name for name, p in metric.backbone.named_parameters() if not p.requires_grad}
    first = ("stem.", "blocks.0.", "blocks.1.")
    assert fixed == {name for name, _ in metric.backbone.named_parameters() if name.startswith(first)}
    metric.backbone.fix(len(metric.backbone.blocks))
    assert all(name.startswith("head.") == p.requires_grad for name, p in metric.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 50)])
def test_any_size_gives_one_score_an_image(kind, size):
    scores = network(kind)(images(3, 3, *size))
    assert scores.shape == (3,)
    assert ((scores > 0) & (scores < 100)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_small_images_are_refused(kind):
    with pytest.raises(ImageError, match="32 pixels"):
        network(kind)(images(1, 3, 31, 64))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_scores_the_same_in_any_company(kind):
    metric, x = network(kind).double(), images(3, 3, 40, 44).double()
    torch.testing.assert_close(torch.cat([metric(image[None]) for image in x]), metric(x))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind):
    metric, x = network(kind).double(), images(1, 3, 32, 32).double().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(x).sum(), x)
    step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with torch.no_grad():
        change = metric(x + step) - metric(x - step)
    torch.testing.assert_close((2 * gradient * step).sum(dim=(1, 2, 3)), change, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [0, 4])
def test_a_saved_metric_comes_back_whole(kind, hidden, tmp_path):
    metric = network(kind, hidden=hidden, low=1.0, high=5.0)
    save_model(metric, tmp_path / "mine.safetensors", metric.describe("mine"))
    loaded = load_scorer(tmp_path / "mine.safetensors")
    assert type(loaded) is kind
    assert loaded.arguments() == metric.arguments()
    assert loaded.card.sha256 == weights_sha256(metric.state_dict())
    torch.testing.assert_close(loaded(images()), metric(images()), rtol=1e-4, atol=1e-4)


def test_ridge_regression_fits_a_linear_head():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(120, 30, generator=generator)
    scores = 50 + 20 * torch.tanh(features[:, 3] - features[:, 7])
    head = ScoreHead(30, hidden=0)
    fit_linear(head, features[:80], scores[:80], penalty=1.0)
    with torch.no_grad():
        found = head(features)
    assert spearmanr(found[80:], scores[80:])[0] > 0.9
    # A heavier penalty leaves less.
    fit_linear(head, features[:80], scores[:80], penalty=1e6)
    assert float(head(features).detach().std()) < 0.01 * float(found.std())


def test_ridge_regression_wants_a_linear_head():
    with pytest.raises(ValueError, match="hidden"):
        fit_linear(ScoreHead(4, hidden=2), torch.rand(5, 4), torch.rand(5), 1.0)


@pytest.mark.data
@pytest.mark.slow
def test_features_of_the_published_backbone_tell_quality(data_dir):
    """Ridge regression on a third of CLIVE at half size; on all of it at full size the same gives 0.77."""
    path = data_dir / "iqa/weights/backbone_mobilenetv2/mobilenetv2_1.0_keras_imagenet_backbone_int8.pth"
    metric = MobileNetScorer.from_backbone(path).eval().to(memory_format=torch.channels_last)
    folder = data_dir / "iqa" / "clive"
    with (folder / "mos.csv").open() as file:
        rows = list(csv.DictReader(file))[:: 1 if FULL else 3]
    with torch.no_grad():
        shots = (F.avg_pool2d(read_image(folder / row["path"])[None], 2) for row in rows)
        features = torch.cat([metric.features(shot) for shot in shots]).double()
    opinions = torch.tensor([float(row["mos"]) for row in rows]).double()
    train = torch.tensor([row["split"] == "train" for row in rows])
    test = torch.tensor([row["split"] == "test" for row in rows])
    z = (features - features[train].mean(dim=0)) / (features[train].std(dim=0) + 1e-6)
    kernel = z @ z[train].T
    weights = torch.linalg.solve(
        kernel[train] + 3000 * torch.eye(int(train.sum())), opinions[train] - opinions[train].mean()
    )
    assert spearmanr(kernel[test] @ weights, opinions[test])[0] > (0.7 if FULL else 0.6)
