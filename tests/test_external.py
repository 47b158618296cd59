import re
import sys
import urllib.error
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from small import needs
from torch import nn

from resolute.errors import CheckpointError, ConfigError
from resolute.models import load_scorer


def images(*shape):
    return torch.rand(shape or (3, 3, 64, 96), generator=torch.Generator().manual_seed(0))


# Without pyiqa: what a user reads when something is missing.


@pytest.fixture
def stand_in(monkeypatch):
    """Put a module called pyiqa in the way that knows two names, and whose weights are never there."""
    module = ModuleType("pyiqa")
    module.list_models = lambda mode: ["dbcnn", "topiq_nr"]
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


def refusal(name, kind):
    with pytest.raises(kind) as caught:
        load_scorer(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_pyiqa_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    assert refusal("pyiqa:dbcnn", ConfigError).endswith("pip install 'resolute[iqa]'")


def test_a_broken_pyiqa_says_why(monkeypatch, tmp_path):
    (tmp_path / "pyiqa.py").write_text("raise RuntimeError('operator missing\\nsecond line')")
    monkeypatch.delitem(sys.modules, "pyiqa", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("pyiqa:dbcnn", ConfigError).endswith(": operator missing")
    (tmp_path / "pyiqa.py").write_text("import no_such_module")
    assert refusal("pyiqa:dbcnn", ConfigError).startswith("pyiqa needs the module no_such_module")


def test_an_unknown_metric_is_answered_with_near_ones(stand_in):
    message = refusal("pyiqa:topiq", ConfigError)
    assert "'topiq'" in message
    assert message.endswith("topiq_nr")


def test_a_failed_download_names_the_file_and_its_place(stand_in):
    def download_url_to_file(url, dst):
        raise urllib.error.URLError("Name or service not known")

    stand_in.create_metric = lambda *_, **__: download_url_to_file("https://host/vgg16.pth", "/cache/vgg16.pth")
    message = refusal("pyiqa:dbcnn", CheckpointError)
    assert message.endswith("are not there: fetch https://host/vgg16.pth and save it as /cache/vgg16.pth")


def test_a_failed_download_from_a_hub_names_the_file(stand_in):
    def hf_hub_download(repo_id, filename):
        raise FileNotFoundError("An error happened while trying to locate the file on the Hub")

    stand_in.create_metric = lambda *_, **__: hf_hub_download("timm/resnet50", "model.safetensors")
    assert "`hf download timm/resnet50`" in refusal("pyiqa:dbcnn", CheckpointError)


def test_other_failures_of_a_file_are_told(stand_in):
    def create_metric(*_, **__):
        raise PermissionError(13, "Permission denied", "/cache")

    stand_in.create_metric = create_metric
    assert "Permission denied" in refusal("pyiqa:dbcnn", CheckpointError)


def test_weights_that_do_not_fit_are_told(stand_in):
    def create_metric(*_, **__):
        raise RuntimeError("state_dict:\nMissing key")

    stand_in.create_metric = create_metric
    message = refusal("pyiqa:dbcnn", CheckpointError)
    assert message.endswith("dbcnn: RuntimeError: state_dict:")


def test_a_module_that_a_metric_lacks_is_named(stand_in):
    stand_in.create_metric = lambda *_, **__: __import__("no_such_module")
    assert re.search(r"no_such_module.*'resolute\[iqa\]'", refusal("pyiqa:dbcnn", ConfigError))


# With pyiqa, and random weights where its own would be downloaded to.


@pytest.fixture(scope="module")
def pyiqa():
    """Return pyiqa, or skip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        needs("pyiqa", "iqa")
        yield sys.modules["pyiqa"]


@pytest.fixture
def cache(pyiqa, monkeypatch, tmp_path):
    """Let pyiqa keep its weights in an empty folder, and cut it off from the network."""

    def urlopen(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", urlopen)
    return tmp_path


def place_of_weights(name):
    """Return where the weights of a metric are expected, as told by the error without them."""
    return Path(refusal(f"pyiqa:{name}", CheckpointError).split(" and save it as ")[1])


def random_weights(pyiqa, name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pyiqa.create_metric(name, **options)


@pytest.mark.iqa
@pytest.mark.filterwarnings("ignore")
def test_a_metric_scores_as_in_pyiqa(pyiqa, cache):
    path = place_of_weights("cnniqa")
    assert path.parent == cache
    theirs = random_weights(pyiqa, "cnniqa", pretrained=None)
    torch.save({"params": theirs.net.state_dict()}, path)
    metric = load_scorer("pyiqa:cnniqa")
    x = images()
    torch.testing.assert_close(metric(x), torch.cat([theirs(image[None]).reshape(1) for image in x]))
    card = metric.card
    assert (card.name, card.low, card.high, card.usual) == ("pyiqa:cnniqa", None, None, card.usual)
    assert "Noncommercial" in card.licence
    assert len(card.sha256) == 64
    assert card.differentiable
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    with torch.no_grad():
        assert not metric(x).requires_grad


@pytest.mark.iqa
@pytest.mark.filterwarnings("ignore")
def test_weights_that_could_run_code_are_refused(pyiqa, cache, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "proof",)

    torch.save({"params": Trap()}, place_of_weights("cnniqa"))
    assert "cnniqa" in refusal("pyiqa:cnniqa", CheckpointError)
    assert not (tmp_path / "proof").exists()


@pytest.mark.iqa
def test_the_softmax_of_prompts_bounds_clip_iqa(pyiqa, monkeypatch):
    """The bound holds for any CLIP; this one is no CLIP at all, hidden in a list as pyiqa does."""

    class Prompts(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip_model = [nn.Conv2d(3, 2, 8)]

        def forward(self, x):
            return (1e6 * self.clip_model[0](x)).mean(dim=(2, 3)).softmax(dim=1)[:, :1]

    stand_in = SimpleNamespace(net=Prompts(), lower_better=False, score_range="0, 1")
    monkeypatch.setattr(pyiqa, "create_metric", lambda *_, **__: stand_in)
    metric = load_scorer("pyiqa:clipiqa+")
    assert (metric.card.low, metric.card.high, metric.card.usual) == (0, 1, (0, 1))
    assert len(list(metric.parameters())) == 2


@pytest.mark.iqa
def test_all_names_of_pyiqa_that_are_bounded_exist(pyiqa):
    from resolute.models.external import _SOFTMAX

    assert set(_SOFTMAX) <= set(pyiqa.list_models("NR"))
