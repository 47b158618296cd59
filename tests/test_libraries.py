"""Metrics of piq and torchmetrics, the real ones."""

import re
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from small import images, needs

from resolute import PGD, ScoreGain, load_scorer
from resolute.errors import CheckpointError, ConfigError
from resolute.models.libraries import METRICS


def theirs(name, x):
    if name.startswith("piq"):
        import piq

        return piq.total_variation(x, reduction="none")
    from torchmetrics.functional.image import total_variation

    return total_variation(x, reduction="none")


@pytest.mark.parametrize("name", ["piq:total_variation", "torchmetrics:total_variation"])
@pytest.mark.filterwarnings("ignore")
def test_a_metric_scores_as_in_its_library_and_can_be_attacked(name):
    needs(name.partition(":")[0], "dev")
    metric = load_scorer(name)
    x = images(2, 12, 9)
    torch.testing.assert_close(metric(x), theirs(name, x))
    card = metric.card
    assert (card.name, card.lower_better, card.low, card.high) == (name, True, None, None)
    assert (card.differentiable, card.batch_invariant, card.deterministic) == (True, True, True)
    assert card.licence.startswith(name.partition(":")[0])
    found = PGD(epsilon=4 / 255, steps=3, objective=ScoreGain())(metric, x)
    assert (found.objective > metric(x)).all()


@pytest.mark.parametrize("name", ["piq:brisque", "piq:clip_iqa", "torchmetrics:arniqa"])
@pytest.mark.filterwarnings("ignore")
def test_weights_that_cannot_be_fetched_are_named(name, monkeypatch, tmp_path):
    needs(name.partition(":")[0], "dev")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def urlopen(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", urlopen)
    with pytest.raises(CheckpointError) as caught:
        load_scorer(name)
    assert f"the weights of {name} are not there: fetch https://" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_missing_libraries_say_what_to_do(monkeypatch):
    with pytest.raises(ConfigError, match=r"piq:brisque.*as_scorer"):
        load_scorer("piq:brisk")
    monkeypatch.setitem(sys.modules, "piq", None)
    with pytest.raises(ConfigError, match=r"piq:total_variation .*install piq"):
        load_scorer("piq:total_variation")


def test_a_library_that_cannot_be_imported_says_why(monkeypatch, tmp_path):
    (tmp_path / "piq.py").write_text("raise RuntimeError('operator missing\\nmore')")
    monkeypatch.delitem(sys.modules, "piq", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"operator missing$"):
        load_scorer("piq:total_variation")


def test_the_page_lists_what_is_known_by_name():
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"^\| (\S+) \|", page, re.MULTILINE) if name in METRICS] == list(METRICS)
    for library in ("piq", "torchmetrics"):
        assert f"| {library}:total_variation | lower | none | yes | yes | yes |  |" in page


def test_every_name_has_a_library():
    assert all(name.partition(":")[0] == metric.module.partition(".")[0] for name, metric in METRICS.items())
