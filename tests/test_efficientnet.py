import pytest
import torch
from layouts import TABLE_1_OF_EFFICIENTNET, imagenet_classifier
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from resolute.errors import CheckpointError, ImageError
from resolute.models import EfficientNetScorer, load_scorer
from resolute.models.efficientnet import EfficientNetFeatures
from resolute.models.pooling import ScoreHead, fit_linear
from resolute.models.weights import save_model, weights_sha256


def network(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EfficientNetScorer(**options).eval()


def images(*shape):
    return torch.rand(shape or (2, 3, 64, 50), generator=torch.Generator().manual_seed(0))


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


def test_it_has_the_published_size():
    """4,652,008 weights of Lite0, without the norms' means of one kind, 42,016, and the classifier's 1,281,000."""
    convs = [module for module in EfficientNetFeatures().modules() if isinstance(module, nn.Conv2d)]
    norms = sum(conv.out_channels for conv in convs)
    kernels = sum(conv.weight.numel() for conv in convs)
    assert len(convs) == 49
    assert kernels + 2 * norms + 1_281_000 == 4_652_008


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
    mean, log_std = features[:, -2560:-1280], features[:, -1280:]
    torch.testing.assert_close(mean, expected.mean(dim=(2, 3)))
    torch.testing.assert_close(log_std.exp(), (expected.var(dim=(2, 3), correction=0) + 1e-4).sqrt())


def test_a_metric_is_built_on_a_classifier(tmp_path):
    torch.save(imagenet_classifier(), tmp_path / "lite0.pth")
    metric = EfficientNetScorer.from_backbone(tmp_path / "lite0.pth", hidden=4)
    backbone = EfficientNetFeatures()
    backbone.read(tmp_path / "lite0.pth")
    assert weights_sha256(metric.backbone.state_dict()) == weights_sha256(backbone.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("_bn1.running_mean"),
        lambda state: state.pop("_blocks.9._expand_conv.weight"),
        lambda state: state.update({"_conv_head.weight": torch.zeros(1280, 100, 1, 1)}),
    ],
)
def test_another_classifier_is_refused(tmp_path, change):
    state = imagenet_classifier()
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth .*EfficientNet-Lite0"):
        EfficientNetScorer.from_backbone(tmp_path / "other.pth")


def test_all_of_it_learns():
    metric = network()
    metric(images()).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in metric.parameters())


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


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_saved_metric_comes_back_whole(tmp_path, hidden):
    metric = network(hidden=hidden, low=1.0, high=5.0)
    save_model(metric, tmp_path / "mine.safetensors", metric.describe("mine"))
    loaded = load_scorer(tmp_path / "mine.safetensors")
    assert isinstance(loaded, EfficientNetScorer)
    assert loaded.arguments() == metric.arguments()
    assert loaded.card.sha256 == weights_sha256(metric.state_dict())
    torch.testing.assert_close(loaded(images()), metric(images()), rtol=1e-4, atol=1e-4)


def test_a_linear_head_starts_from_ridge_regression():
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
