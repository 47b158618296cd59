"""Models written as ONNX and torch.export files, and ONNX files as models, by the real libraries."""

import sys

import onnx
import pytest
import torch
from small import images, network
from torch import nn

from resolute import FDA, IFGSM, RandomNoise, Square, load, load_scorer
from resolute.attacks import Source, Transfer
from resolute.certificates import certify
from resolute.errors import CheckpointError, ConfigError, ImageError
from resolute.export import export
from resolute.models import EDSR, QualityNet, SplitRestorer
from resolute.models.denoisers import DnCNN, UNet
from resolute.models.forms import FORMS, InForm
from resolute.models.weights import save_model

EPSILON = 4 / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def restorer(folder, tiny_model):
    """Return a model and the ONNX file of it."""
    model = load(tiny_model)
    return model, export(model, folder / "tiny.onnx").path


@pytest.fixture(scope="module")
def scorer(folder):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        metric = QualityNet((8, 8))
    path = folder / "metric.safetensors"
    save_model(metric, path, metric.describe("metric", licence="MIT"))
    metric = load_scorer(path)
    return metric, export(metric, folder / "metric.onnx").path


# Written.


def test_a_torch_that_is_too_old_is_refused(monkeypatch, folder):
    monkeypatch.delattr(torch.export.Dim, "DYNAMIC", raising=False)
    with pytest.raises(ConfigError, match="PyTorch"):
        export(network(), folder / "old.pt2")
    assert not (folder / "old.pt2").exists()


def test_a_file_of_any_size_gives_what_the_model_gives(restorer, folder):
    model, path = restorer
    session = load(path)
    for shape in ((1, 3, 13, 29), (3, 3, 8, 5)):
        x = torch.rand(shape)
        torch.testing.assert_close(session(x), model(x).detach(), rtol=1e-4, atol=1e-5)
    stored = onnx.load(path)
    assert {one.domain: one.version for one in stored.opset_import}[""] == 20
    onnx.checker.check_model(stored)
    assert [file.name for file in folder.iterdir() if "tiny" in file.name] == ["tiny.onnx"]


@pytest.mark.parametrize("kind", [lambda: UNet((4, 4)), lambda: DnCNN(depth=4, channels=8)], ids=["unet", "dncnn"])
def test_denoisers_are_exported_whatever_their_padding(kind, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = kind().eval()
        for parameter in denoiser.parameters():
            nn.init.normal_(parameter, std=0.1)
    assert export(denoiser, tmp_path / "denoiser.pt2").relative <= 1e-4
    made = export(denoiser, tmp_path / "denoiser.onnx")
    assert made.relative <= 1e-4
    session = load(made.path)
    assert session.scale == 1
    x = torch.rand(2, 3, 37, 22)
    torch.testing.assert_close(session(x), denoiser(x).detach(), rtol=1e-4, atol=1e-4)


def test_torch_export_is_checked_too(tiny_model, tmp_path):
    model = load(tiny_model)
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    made = export(model, tmp_path / "tiny.pt2")
    with pytest.raises(CheckpointError, match=r"torch\.export"):
        load(tmp_path / "tiny.pt2")
    assert (made.form, made.difference) == ("torch.export", 0)
    x = torch.rand(1, 3, 9, 31)
    torch.testing.assert_close(torch.export.load(made.path).module()(x), model(x).detach())
    assert [parameter.requires_grad for parameter in model.parameters()] == trainable


class OfTheMoment(SplitRestorer):
    """What depends on a number outside: nothing that a file could hold."""

    feature_layer = "image"

    def __init__(self):
        super().__init__(1)
        self.image = nn.Identity()
        self.calls = 0

    def arguments(self):
        return {}

    def features(self, x):
        self.calls += 1
        return self.image(x) * self.calls

    def reconstruct(self, phi):
        return phi


class OnSquares(OfTheMoment):
    """Refuses to be traced for any size."""

    def features(self, x):
        return self.image(x) if float(x.mean()) > 0.1 else -x


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_file_that_differs_is_not_written(tmp_path, ending):
    with pytest.raises(ConfigError, match=r"differs .*not written"):
        export(OfTheMoment(), tmp_path / f"model.{ending}")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_traced_is_told(tmp_path):
    with pytest.raises(ConfigError, match="OnSquares"):
        export(OnSquares(), tmp_path / "model.onnx")


def test_another_ending_and_a_missing_library_say_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"\.onnx nor \.pt2"):
        export(network(), tmp_path / "model.tflite")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript.*'resolute\[onnx\]'"):
        export(network(), tmp_path / "model.onnx")


# Read.


def test_a_session_has_a_card_and_no_gradient(restorer):
    _, path = restorer
    session = load(path)
    assert (session.card.name, session.card.scale, session.card.licence) == ("tiny-onnx", 4, "MIT")
    assert len(session.card.sha256) == 64
    x = images()
    for attack in (IFGSM(epsilon=EPSILON, steps=2), FDA(epsilon=EPSILON, steps=2)):
        with pytest.raises(ConfigError, match="square or noise"):
            attack(session, x)
    with torch.no_grad():
        assert not session(x).requires_grad
    with pytest.raises(CheckpointError, match="by 4, not by 2"):
        load(path, scale=2)


@pytest.mark.parametrize("form", FORMS)
def test_a_session_has_no_other_forms(restorer, form):
    with pytest.raises(ConfigError, match="ONNX"):
        InForm(load(restorer[1]), form)


def test_attacks_without_gradients_work_on_a_session_as_on_the_model(restorer):
    model, path = restorer
    session, x = load(path), images(2)
    inside = IFGSM(epsilon=EPSILON, steps=3)
    for attack in (
        Square(epsilon=EPSILON, queries=30),
        RandomNoise(epsilon=EPSILON, draws=4),
        Transfer(epsilon=EPSILON, source=Source(model), attack=inside),
    ):
        found = attack(session, x)
        assert (found.images - x).abs().max() <= EPSILON + 1e-6
        torch.testing.assert_close(found.objective, attack(model, x).objective, rtol=1e-3, atol=1e-8)
        assert (found.objective > 0).all()


def test_a_metric_in_a_session_is_certified_as_the_metric(scorer):
    metric, path = scorer
    session = load_scorer(path)
    card = session.card
    assert (card.low, card.high, card.smallest) == (metric.low, metric.high, 32)
    assert (card.differentiable, card.deterministic, card.batch_invariant) == (False, True, True)
    image = images(1, 40, 33)[0]
    ours, theirs = (certify(one, image, n=200, seed=0) for one in (metric, session))
    assert theirs.lower == pytest.approx(ours.lower, abs=1e-3)
    assert theirs.upper == pytest.approx(ours.upper, abs=1e-3)
    with pytest.raises(CheckpointError, match=r"metric\.onnx .*load_scorer"):
        load(path)


def test_a_restorer_is_no_metric(restorer):
    with pytest.raises(CheckpointError, match=r"tiny\.onnx .*restorer"):
        load_scorer(restorer[1])


def written(path, module, *example, **options):
    """Write a file as somebody else's program would, with the older exporter, which fixes sizes."""
    from resolute.export import _quiet

    with _quiet():
        torch.onnx.export(module.eval(), example, path, dynamo=False, **options)
    return path


def test_a_file_of_fixed_sizes_says_so(tmp_path):
    path = written(tmp_path / "fixed.onnx", EDSR(scale=2, blocks=1, channels=4), torch.rand(1, 3, 12, 20))
    session = load(path)
    assert (session.scale, session.card.name, session.card.licence) == (2, "fixed", "unknown")
    assert session(torch.rand(3, 3, 12, 20)).shape == (3, 3, 24, 40)
    with pytest.raises(ImageError, match="20 x 12"):
        session(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (nn.Conv2d(1, 1, 3), torch.rand(1, 1, 8, 8), "no larger image"),
        (nn.Conv2d(2, 2, 3), torch.rand(1, 2, 8, 8), "needs one input"),
        (nn.Flatten(), torch.rand(1, 3, 8, 8), "no larger image"),
        (nn.Identity(), torch.randint(8, (1, 3, 8, 8)), "float32"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, module, example, message):
    path = written(tmp_path / "other.onnx", module, example)
    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", bytes(range(256)) * 8])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "broken.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("card", ['{"name": 3, "low": "x"}', "[1]", "{", pytest.param("[" * 99_999, id="deep")])
def test_a_card_that_lies_is_refused(scorer, tmp_path, card):
    stored = onnx.load(scorer[1])
    onnx.helper.set_model_props(stored, {"resolute.kind": "scorer", "resolute.card": card})
    onnx.save(stored, tmp_path / "lying.onnx")
    with pytest.raises(CheckpointError, match=r"lying\.onnx.* card"):
        load_scorer(tmp_path / "lying.onnx")


def test_a_missing_runtime_says_how_to_get_it(restorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"'resolute\[onnx\]'"):
        load(restorer[1])


def test_the_command_line_exports_and_attacks(tiny_model, tmp_path):
    from typer.testing import CliRunner

    from resolute.cli import app
    from resolute.images import sample_image, write_png

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    out = tmp_path / "tiny.onnx"
    done = run("export", tiny_model, out)
    assert done.exit_code == 0
    assert "opset 20" in done.output
    assert run("export", tiny_model, out).exit_code == ConfigError.exit_code
    photo = tmp_path / "photo.png"
    write_png(photo, sample_image("coffee")[:, :20, :24])
    arguments = ("attack", out, photo, "--out", tmp_path / "out", "--option", "queries=20")
    assert run(*arguments, "--attack", "square").exit_code == 0
    assert (tmp_path / "out" / "photo.attacked.png").is_file()
    refused = run("attack", out, photo, "--attack", "ifgsm", "--out", tmp_path / "none")
    assert refused.exit_code != 0
    assert "gradient" in refused.output
