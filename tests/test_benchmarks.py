"""What benchmarks claim without a clock."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import images, network

import resolute
from resolute.images import sample_image, to_uint8, write_png

FOLDER = Path(__file__).parents[1] / "benchmarks"


def imported(monkeypatch, name):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the names in annotations.
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def attack_flops(monkeypatch):
    return imported(monkeypatch, "attack_flops")


@pytest.fixture
def distortion_order(monkeypatch):
    return imported(monkeypatch, "distortion_order")


@pytest.fixture
def quality_metrics(monkeypatch):
    return imported(monkeypatch, "quality_metrics")


def test_an_attack_step_costs_two_forward_passes_and_a_plain_one_three(attack_flops):
    model, x = network().requires_grad_(True), images()
    assert attack_flops.step_in_forwards(model, x) == 2
    assert attack_flops.plain_step_in_forwards(model, x) == pytest.approx(3)
    # Mean shifts that stay frozen are sums, and cost nothing.
    model.sub_mean.requires_grad_(False)
    model.add_mean.requires_grad_(False)
    assert attack_flops.plain_step_in_forwards(model, x) == pytest.approx(3)


def test_the_whole_attack_costs_a_reference_a_last_look_and_two_verdicts_more(attack_flops):
    model, x = network(), images()
    forward = attack_flops.operations(lambda: model(x))
    assert attack_flops.attack_operations(model, x, 3) == (2 * 3 + 4) * forward


def test_every_distortion_grows_with_its_level(distortion_order):
    photo = to_uint8(sample_image("coffee")[:, 100:196, 200:296])
    for name in distortion_order.DISTORTIONS:
        original, *rungs = distortion_order.ladder(photo, name, 0, seed=0)
        assert original is photo
        errors = [float(np.square(rung.astype(float) - photo).mean()) for rung in rungs]
        assert len(errors) == distortion_order.LEVELS
        assert errors == sorted(errors), name
        again = distortion_order.ladder(photo, name, 0, seed=0)[1:]
        assert all(np.array_equal(a, b) for a, b in zip(rungs, again, strict=True))


@pytest.mark.parametrize(("lower_better", "sign"), [(True, 1), (False, -1)])
def test_a_measure_of_noise_orders_its_levels_whichever_way_it_runs(distortion_order, lower_better, sign):
    rungs = distortion_order.ladder(to_uint8(sample_image("coffee")[:, 100:164, 200:264]), "noise", 0, seed=0)
    metric = resolute.as_scorer(
        lambda x: sign * x.diff(dim=-1).abs().mean(dim=(1, 2, 3)), "variation", lower_better=lower_better
    )
    assert distortion_order.order(metric, rungs) == 1
    assert distortion_order.order(metric, rungs[::-1]) == -1


def test_images_of_biq2021_are_drawn_by_seed(quality_metrics, tmp_path):
    table = "Image Name,MOS\n" + "".join(f"ss01 ({i}).jpg,0.{i}\n" for i in range(1, 10))
    (tmp_path / quality_metrics.BIQ_TEST).write_text(table)
    drawn = quality_metrics.biq2021(tmp_path, 4, seed=0)
    assert len({path for path, _ in drawn}) == 4
    assert drawn == quality_metrics.biq2021(tmp_path, 4, seed=0) != quality_metrics.biq2021(tmp_path, 4, seed=1)
    assert all(path.name == f"ss01 ({round(10 * mos)}).jpg" for path, mos in drawn)


def test_scores_that_are_better_when_lower_are_turned(quality_metrics, tmp_path):
    photos = [tmp_path / "dark.png", tmp_path / "bright.png"]
    for path, level in zip(photos, (0.2, 0.7), strict=True):
        write_png(path, torch.full((3, 8, 8), level))
    metric = resolute.as_scorer(lambda x: x.mean(dim=(1, 2, 3)), "level", lower_better=True)
    (dark, bright), _ = quality_metrics.scores_of(metric, [(path, 0.0) for path in photos], fit=4)
    assert dark == pytest.approx(-0.2, abs=1e-6)
    assert bright < dark


def test_a_head_on_frozen_features_is_judged_by_images_it_has_not_seen(monkeypatch):
    frozen_features = imported(monkeypatch, "frozen_features")
    features = torch.randn(60, 90, generator=torch.Generator().manual_seed(0))
    known = 100 * torch.rand(60, generator=torch.Generator().manual_seed(1))
    assert min(frozen_features.folds((features[:, :20], 50 + 10 * features[:, 0]), 1.0)[0]) > 0.5
    # More features than images fit any opinions, of the images that they were fitted to.
    assert abs(np.corrcoef(frozen_features.folds((features, known), 1.0)[1], known)[0, 1]) < 0.4
    fitted = frozen_features.predicted((features, known), features, 1e-3)
    assert np.corrcoef(fitted, known)[0, 1] > 0.95


def test_a_metric_is_compared_with_the_head_on_the_same_images(monkeypatch):
    frozen_features = imported(monkeypatch, "frozen_features")
    features = torch.randn(90, 20, generator=torch.Generator().manual_seed(0))
    opinions = 50 + 10 * features[:, 0]
    parts = zip(("train", "val", "test"), features.split([40, 30, 20]), opinions.split([40, 30, 20]), strict=True)
    splits = {name: (seen, known) for name, seen, known in parts}
    penalties = [1.0, 1e6]
    assert frozen_features.best_of(splits["train"], penalties) == 1.0
    scores = {name: (-splits[name][1]).tolist() for name in ("val", "test")}
    rows = frozen_features.against("turned", scores, splits, 1.0).markdown().splitlines()[-3:]
    assert [line.split("|")[1].strip() for line in rows] == ["val, 30", "test, 20", "val, test, 50"]
    assert all(line.split("|")[2].strip() == "-1.000" for line in rows)
    assert all(line.split("|")[4].strip().startswith("-1.") for line in rows)


def test_a_head_that_learned_from_noised_images_is_told_from_one_that_did_not(monkeypatch):
    frozen_features = imported(monkeypatch, "frozen_features")
    clean = torch.randn(120, 20, generator=torch.Generator().manual_seed(0))
    opinions = 50 + 10 * clean[:, 0]
    # The first feature tells the opinion and is lost under noise, where the second tells it.
    noised = torch.cat((clean[:, 1:2], clean[:, :1], clean[:, 2:]), dim=1)
    rows = frozen_features.under_noise((clean, opinions), (noised, opinions), 0.1).markdown().splitlines()[-3:]
    found = [[float(cell.split(",")[0]) for cell in line.split("|")[2:4]] for line in rows]
    (clean_by_clean, noised_by_clean), (clean_by_noised, noised_by_noised), by_both = found
    assert min(clean_by_clean, noised_by_noised) > 0.8
    assert max(noised_by_clean, clean_by_noised) < 0.6
    assert min(by_both) > max(noised_by_clean, clean_by_noised)
