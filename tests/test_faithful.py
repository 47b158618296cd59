"""Did it invent this? Outputs taken apart by their inputs, movement, masks of trust, and the study of them."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from small import tiny
from test_cli import fails, run

from resolute import Bicubic, ConfigError, ImageError, ModelWarning, load
from resolute import run as run_study
from resolute.attacks import Square
from resolute.attacks.gradient import has_gradient
from resolute.certificates import Nudges, Trust, calibrate_trust, faithful
from resolute.certificates.trust import (
    THRESHOLDS,
    beyond,
    error_map,
    find_trust,
    fingerprint_of,
    losses_of,
    steepness_map,
    worst_shares,
)
from resolute.engine import Store
from resolute.images import from_uint8, sample_image, to_uint8, write_png
from resolute.measure.fidelity import psnr_y
from resolute.measure.parts import consistency, parts_of, rms
from resolute.models import EDSR
from resolute.report.page import write_markdown, write_page
from resolute.resize import downscale, downscale_tensor, upscale_tensor
from resolute.studies.faithful import MADE, SHIPPED, Faithful, trust_of
from resolute.studies.faithful_results import results_of
from resolute.studies.results import Case, Missing

FAST = {"draws": 1, "steps": 2}


def quick(image=("in.png",), **changes):
    return Faithful(**{"models": ("bicubic",), "images": image, **FAST, **changes})


def trust(losses, **changes):
    made = {"model": "m", "fingerprint": "f", "photographs": "made up", "bound": 16.0}
    return Trust(**{**made, **changes}, losses=tuple(map(tuple, losses)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A network, inputs with their truths, and photographs to calibrate with."""
    folder = tmp_path_factory.mktemp("faithful")
    for name in ("coffee", "rocket"):
        truth = sample_image(name)[:, 100:164, 100:180]
        write_png(folder / "true" / f"{name}.png", truth)
        write_png(folder / "in" / f"{name}.png", from_uint8(downscale(to_uint8(truth), 4)))
    for left in range(9):
        write_png(folder / "photos" / f"{left}.png", sample_image("chelsea")[:, 100:148, 40 * left : 40 * left + 48])
    tiny(folder / "net.safetensors", "net")
    return folder


@pytest.fixture(scope="module")
def made(place):
    net, photos = str(place / "net.safetensors"), (str(place / "photos"),)
    honest = Faithful(models=(net,), images=photos, high_resolution=True, honest=True, bound=200, rate=0.2)
    (calibration,) = trust_of(honest, run_study(honest, place / "honest"), "crops of a cat")
    calibration.write(place / "net.json")
    study = quick(
        (str(place / "in"),), models=(net, "bicubic"), truths=(str(place / "true"),), bound=200, rate=0.2,
        calibration=str(place / "net.json"),
    )  # fmt: skip
    return study, run_study(study, place / "run"), calibration


# --- parts


def test_the_parts_are_those_of_the_pseudo_inverse():
    height, width, scale = 3, 4, 2
    basis = torch.eye(scale * height * scale * width, dtype=torch.float64).view(-1, 1, scale * height, scale * width)
    shrink = downscale_tensor(basis, scale).flatten(1).T
    inverse = torch.linalg.pinv(shrink)
    low = torch.rand(2, 3, height, width, dtype=torch.float64)
    output = torch.rand(2, 3, scale * height, scale * width, dtype=torch.float64)
    parts = parts_of(output, low)
    x, y = output.flatten(2), low.flatten(2)
    for part, expected in (
        (parts.told, y @ inverse.T),
        (parts.contradicted, (x @ shrink.T - y) @ inverse.T),
        (parts.added, x - x @ shrink.T @ inverse.T),
    ):
        torch.testing.assert_close(part.flatten(2), expected)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_parts_add_up_and_what_is_added_shrinks_to_nothing(scale):
    low = torch.rand(1, 3, 9, 7, dtype=torch.float64)
    output = torch.rand(1, 3, 9 * scale, 7 * scale, dtype=torch.float64)
    parts = parts_of(output, low)
    torch.testing.assert_close(parts.told + parts.contradicted + parts.added, output)
    assert downscale_tensor(parts.added, scale).abs().max() < 1e-12
    torch.testing.assert_close(downscale_tensor(parts.told, scale), low)
    assert abs(float((parts.told * parts.added).sum())) < 1e-10
    assert (float(rms(parts.added)) > 1) == (scale > 1)


def test_bicubic_interpolation_adds_nothing_and_contradicts():
    low = 0.3 + 0.4 * sample_image("coffee")[None, :, 100:120, 100:124]
    parts = parts_of(upscale_tensor(low, 4), low)
    assert float(rms(parts.added)) < 1e-4
    assert float(parts.share_added()) < 1e-8
    assert float(rms(parts.contradicted)) > 1
    basis = torch.eye(12, dtype=torch.float64).view(12, 1, 3, 4)
    big = torch.eye(192, dtype=torch.float64).view(192, 1, 12, 16)
    torch.testing.assert_close(upscale_tensor(basis, 4).flatten(1), 16 * downscale_tensor(big, 4).flatten(1).T)


# --- masks


def test_losses_are_shares_at_the_worst_threshold_so_far():
    rng = np.random.default_rng(0)
    steepness = torch.from_numpy(rng.choice(THRESHOLDS, (12, 15)) * rng.choice([1.0, 1.5], (12, 15)))
    wrong = torch.from_numpy(rng.random((12, 15)) < 0.3)
    worst, found = 0.0, worst_shares(steepness, wrong)
    for threshold, share in zip(THRESHOLDS, found, strict=True):
        mask = steepness <= threshold
        if mask.double().mean() >= 0.01:
            worst = max(worst, float(wrong[mask].double().mean()))
        assert worst <= share <= worst + 1e-4


def test_a_mask_has_no_more_wrong_in_it_than_its_loss():
    truth = sample_image("coffee")[:, 96:192, 96:224]
    output = Bicubic(4)(from_uint8(downscale(to_uint8(truth), 4))[None])[0]
    own = losses_of(output, truth, 16, 4)
    for kept in (20, 30, 45):
        made = trust([[0.0] * kept + [1.0] * (55 - kept)] * 9)
        mask, wrong = made.mask(output, 4, 0.1), beyond(output, truth, 16)
        assert mask.equal(steepness_map(output, 4).double() <= THRESHOLDS[kept - 1])
        assert float(wrong[mask].double().mean()) <= own[kept - 1]
    saved = to_uint8(output).astype(int) - to_uint8(truth).astype(int)
    assert np.array_equal(error_map(output, truth).round().numpy(), np.abs(saved).max(axis=2))


@pytest.mark.parametrize(("n", "rate"), [(9, 0.1), (30, 0.1), (19, 0.3)])
def test_on_average_over_photographs_the_rate_is_kept(n, rate):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(600):
        # Photographs of very different difficulty, some of which fail at once.
        ends = rng.exponential(0.25, n + 1).clip(0, 1)
        curves = ends[:, None] * (np.arange(55) >= rng.integers(0, 55, n + 1)[:, None])
        *calibration, new = curves
        threshold = trust(calibration).threshold(rate)
        held.append(new[THRESHOLDS.index(threshold)] if threshold else 0.0)
    assert np.mean(held) <= rate + 3 * np.std(held) / math.sqrt(len(held))
    assert np.mean(held) > 0


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_too_few_photographs_are_refused_with_the_number_that_it_takes(rate):
    needed = math.ceil(1 / rate - 1e-9) - 1
    assert trust([[0.0] * 55] * needed).threshold(rate) == THRESHOLDS[-1]
    with pytest.raises(ConfigError, match=f"takes {needed} "):
        trust([[0.0] * 55] * (needed - 1)).threshold(rate)


def test_where_no_threshold_keeps_the_rate_nothing_is_trusted():
    made = trust([[1.0] * 55] * 20)
    assert made.threshold(0.1) == 0
    assert not made.mask(torch.zeros(3, 8, 8), 4, 0.1).any()
    generous = trust([[0.0] * 55] * 9)
    assert generous.mask(torch.zeros(3, 8, 8), 4, 0.1).all()
    assert not generous.mask(torch.full((3, 8, 8), torch.nan), 4, 0.1).any()
    # A few pixels of 1,600 are no part of a picture to speak of.
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(3, 40, 10)
    stripes[:, 10:15, 10:15] = 0
    flat = trust([[0.0] * 20 + [1.0] * 35] * 9)
    assert (steepness_map(stripes, 1) <= flat.threshold(0.1)).any()
    assert not flat.mask(stripes, 1, 0.1).any()


def test_a_calibration_comes_back_from_its_file(tmp_path, made):
    calibration = made[2]
    calibration.write(tmp_path / "one.json")
    again = Trust.read(tmp_path / "one.json")
    assert again == calibration
    assert again.sha256 == calibration.sha256
    falling = dataclasses.replace(calibration, losses=((1.0, *[0.0] * 54),) * 9)
    falling.write(tmp_path / "falling.json")
    short = dataclasses.replace(calibration, losses=((0.0,),) * 9)
    short.write(tmp_path / "short.json")
    huge = '{"losses": [[' + "9" * 400 + "]]}"
    for name, text in enumerate(("{", "[1]", '{"losses": 3}', '{"losses": [["x"]]}', "\x00", huge, "[" * 100_000)):
        (tmp_path / f"{name}.json").write_text(text)
    for path in set(tmp_path.glob("*.json")) - {tmp_path / "one.json"}:
        with pytest.raises(ConfigError, match="no calibration of trust"):
            Trust.read(path)


def test_a_calibration_is_of_one_model_and_bound(place, made):
    net, calibration = load(place / "net.safetensors"), made[2]
    assert find_trust(net, 200, [place / "net.json"]) == calibration
    assert find_trust(net, 100, [place / "net.json"]) is None
    assert find_trust(Bicubic(4), 200, [place / "net.json"]) is None
    damaged = place / "damaged.json"
    damaged.write_text("{")
    with pytest.warns(ModelWarning, match=r"damaged\.json"):
        assert find_trust(net, 200, [damaged, place / "net.json"]) == calibration
    assert len({fingerprint_of(one) for one in (net, Bicubic(4), Bicubic(2))}) == 3
    with pytest.raises(ConfigError, match="of net with other weights"):
        faithful(Bicubic(4), torch.zeros(3, 8, 8), None, calibration)


def test_the_functions_and_the_study_calibrate_alike(place, made):
    photos = [sample_image("chelsea")[:, 100:148, 40 * left : 40 * left + 48] for left in range(9)]
    again = calibrate_trust(load(place / "net.safetensors"), photos, "crops of a cat", bound=200)
    assert again.fingerprint == made[2].fingerprint
    assert sorted(again.losses) == sorted(made[2].losses)


# --- movement


def test_movement_is_that_of_the_definition(place):
    net, low = load(place / "net.safetensors"), sample_image("coffee")[:, 100:116, 100:120]
    nudges = Nudges(draws=2, steps=3)
    found = faithful(net, low, nudges, seed=3)
    with torch.no_grad():
        clean = net(low[None])[0].clamp(0, 1)
        noisy = [net(nudges.noisy(low, draw, 3)[None])[0].clamp(0, 1) for draw in range(2)]
        stored = net(nudges.stored(low)[None])[0].clamp(0, 1)
    changes = [(one - clean).abs().amax(dim=0) * 255 for one in noisy]
    torch.testing.assert_close(found.moved["noise"], (changes[0] + changes[1]) / 2)
    torch.testing.assert_close(found.moved["jpeg"], (stored - clean).abs().amax(dim=0) * 255)
    assert torch.equal(found.output, clean)
    assert not torch.equal(noisy[0], noisy[1])
    assert not found.broken
    assert found.trusted is None
    change = (nudges.noisy(low, 0, 3) - low) * 255
    assert 1 < float(change.std()) < 3
    one = Nudges(draws=1, steps=10, noise=1, level=4)
    assert faithful(net, low, one).moved["attack"].mean() > faithful(net, low, one).moved["noise"].mean()


def test_a_model_without_gradients_is_attacked_by_queries(monkeypatch):
    monkeypatch.setattr(Bicubic, "forward", lambda self, x: upscale_tensor(x.detach(), 4))
    flat, low = Bicubic(4), torch.rand(3, 12, 12)
    assert isinstance(Nudges().attack(flat, low[None]), Square)
    assert float(faithful(flat, low, Nudges(draws=1, steps=3)).moved["attack"].max()) > 0


def test_a_black_corner_hides_no_gradient():
    assert has_gradient(Bicubic(4), torch.zeros(1, 3, 16, 16))


def test_an_output_that_is_not_finite_is_the_worst_there_is(place, tmp_path, monkeypatch):
    whole = EDSR.forward
    monkeypatch.setattr(EDSR, "forward", lambda self, x: whole(self, x) * torch.nan)
    study = dataclasses.replace(made_study(place), images=(str(place / "in" / "coffee.png"),))
    (record, _) = run_study(study, tmp_path)
    assert record.broken
    assert (record.added, record.contradicted, record.consistency, record.psnr_y) == (255, 255, 0, 0)
    assert (record.trusted, record.wrong, record.wrong_trusted) == (0, 100, None)
    assert record.noise_moved == record.attack_moved == 255
    results = study.results([record])
    assert "1 output not finite" in results.sentences[0]
    assert "No pixel is trusted" in results.sentences[1]
    honest = dataclasses.replace(
        study, images=(str(place / "true" / "coffee.png"),), truths=(), calibration="", high_resolution=True,
        honest=True, models=study.models[:1],
    )  # fmt: skip
    assert run_study(honest, tmp_path / "honest")[0].losses == (1.0,) * 55


def made_study(place):
    return quick(
        (str(place / "in"),), models=(str(place / "net.safetensors"), "bicubic"), truths=(str(place / "true"),),
        bound=200, rate=0.2, calibration=str(place / "net.json"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"noise": 0}, {"level": 0.5}, {"draws": 0}, {"steps": 0}, {"jpeg": 0}, {"jpeg": 101}]
)
def test_nudges_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Nudges(**wrong)
    with pytest.raises(ConfigError):
        quick(**wrong).cells()


# --- the study


def test_every_figure_is_that_of_the_definition(made, place):
    study, records, calibration = made
    subjects = {subject.name: subject for subject in study.subjects()}
    models = {"net": load(place / "net.safetensors"), "bicubic": Bicubic(4)}
    assert [(r.image, r.model) for r in records] == [(i, m) for i in ("coffee", "rocket") for m in ("net", "bicubic")]
    for record in records:
        subject, model = subjects[record.image], models[record.model]
        low, truth = subject.low, subject.truth
        with torch.no_grad():
            output = model(low)
        parts, wrong = parts_of(output, low), beyond(output[0], truth[0], 200)
        assert record.consistency == pytest.approx(float(consistency(output, low)), abs=1e-3)
        assert record.truth_consistency == pytest.approx(float(consistency(truth, low)), abs=1e-3)
        assert record.added == pytest.approx(float(rms(parts.added)), abs=1e-3)
        assert record.contradicted == pytest.approx(float(rms(parts.contradicted)), abs=1e-3)
        assert record.truth_added == pytest.approx(float(rms(parts_of(truth, low).added)), abs=1e-3)
        assert record.psnr_y == pytest.approx(float(psnr_y(output, truth, 4)), abs=1e-3)
        assert record.wrong == pytest.approx(100 * float(wrong.double().mean()), abs=1e-3)
        assert record.truth_consistency > 50
        if record.model == "net":
            mask = calibration.mask(output[0], 4, 0.2)
            assert mask.any()
            assert record.trusted == pytest.approx(100 * float(mask.double().mean()), abs=1e-3)
            assert record.wrong_trusted == pytest.approx(100 * float(wrong[mask].double().mean()), abs=1e-3)
            assert record.calibration == calibration.sha256
        else:
            assert record.trusted is None


def test_equal_images_hide_no_others(made):
    _, records, _ = made
    # A black photograph, of which bicubic interpolation gives what there was.
    black = [
        dataclasses.replace(one, image="black", **dict.fromkeys(("psnr_y", "consistency"), None if usual else 70.0))
        for one in records
        if one.image == "coffee"
        for usual in [one.model == "bicubic"]
    ]
    table = results_of([*records, *black]).tables[0]
    shown = [
        dict(zip((c.name for c in table.columns), (c.value for c in row.cells), strict=True)) for row in table.rows
    ]
    for row, equal in zip(shown, (70, 100), strict=True):
        own = [one for one in records if one.model == row["model"]]
        assert row["consistency"] == pytest.approx((sum(one.consistency for one in own) + equal) / 3)
        assert row["PSNR"] == pytest.approx((sum(one.psnr_y for one in own) + equal) / 3)
    assert "100 dB" in table.caption


def test_the_page_opens_with_the_verdict_and_the_mask(made, place):
    study, records, _ = made
    results = study.results(records)
    assert results.sentences[0].startswith("Did net invent this?")
    assert "crops of a cat" in results.sentences[1]
    cases = list(study.cases(records, place / "run"))
    assert all(isinstance(case, Case) for case in cases)
    assert [case.filters["model"] for case in cases] == ["net", "net"]
    labels = [view.label for view in cases[0].views]
    assert {"input", "output", "truth", "error", "moved by noise", "where it is added"} <= set(labels)
    assert "covered" in labels[cases[0].pair[1]]
    page = write_page([place / "run"], place / "run" / "page.html").read_text()
    assert "Did net invent this?" in page
    assert results.sentences[1] in write_markdown([place / "run"], place / "run" / "page.md").read_text()
    (place / "true" / "coffee.png").rename(place / "away.png")
    try:
        assert any(isinstance(case, Missing) for case in study.cases(records, place / "run"))
    finally:
        (place / "away.png").rename(place / "true" / "coffee.png")


def test_an_input_that_was_made_otherwise_is_told(made):
    study, records, _ = made
    assert not any("another shrinking" in one for one in study.results(records).sentences)
    odd = [dataclasses.replace(one, truth_consistency=30.0) for one in records[:2]]
    assert any("fits 1 of 2 inputs" in one for one in study.results([*odd, *records[2:]]).sentences)


def test_what_is_not_trusted_is_covered(made, place):
    study, records, calibration = made
    views = {view.label: view.pixels for view in next(iter(study.cases(records, place / "run"))).views}
    covered = next(pixels for label, pixels in views.items() if "covered" in label)
    mask = calibration.mask(views["output"], 4, 0.2)
    same = (covered - views["output"]).abs().amax(dim=0) < 1e-6
    assert float((same == mask).double().mean()) > 0.98


def test_without_truth_and_calibration_the_rest_is_told(place, tmp_path):
    models = str(place / "net.safetensors"), "bicubic"
    study = quick((str(place / "in" / "coffee.png"),), models=models, bound=100)
    records = run_study(study, tmp_path)
    assert {record.wrong for record in records} == {record.trusted for record in records} == {None}
    sentences = study.results(records).sentences
    assert "--calibrate FOLDER" in sentences[1]
    assert "9 or more" in sentences[1]
    names = [column.name for table in study.results(records).tables for column in table.columns]
    assert "trusted" not in names
    assert "PSNR" not in names
    case = next(iter(study.cases(records, tmp_path)))
    assert case.views[case.pair[1]].label.startswith("added")


def test_truths_are_found_by_name_or_refused(place, tmp_path):
    low, one = str(place / "in"), str(place / "true" / "coffee.png")
    write_png(tmp_path / "half" / "coffee.png", sample_image("coffee")[:, 100:164, 100:180])
    write_png(tmp_path / "odd.png", torch.zeros(3, 20, 20))
    with pytest.raises(ImageError, match="no reference is called rocket"):
        quick((low,), truths=(str(tmp_path / "half"),)).cells()
    assert quick((str(place / "in" / "coffee.png"),), truths=(one,)).subjects()[0].truth is not None
    with pytest.raises(ImageError, match="20 x 20"):
        quick((str(place / "in" / "coffee.png"),), truths=(str(tmp_path / "odd.png"),)).cells()
    with pytest.raises(ImageError, match="no file"):
        quick(("samples",), truths=(one,)).cells()
    with pytest.raises(ConfigError, match="truth themselves"):
        quick((low,), truths=(one,), high_resolution=True).cells()
    with pytest.raises(ConfigError, match="with truth"):
        quick((low,), honest=True).cells()


def test_photographs_that_are_there_twice_calibrate_once(place, tmp_path):
    for number in (0, 1, 0, 2):
        write_png(
            tmp_path / "photos" / f"{len(list(tmp_path.rglob('*.png')))}.png",
            sample_image("chelsea")[:, 100:148, 40 * number : 40 * number + 48],
        )
    study = quick((str(tmp_path / "photos"),), high_resolution=True, honest=True)
    records = run_study(study, tmp_path / "run")
    with pytest.warns(UserWarning, match="1 photograph left out"):
        (found,) = trust_of(study, records, "cats")
    assert len(found.losses) == 3
    assert "4 photographs" in results_of(records).sentences[0]


# --- the command


def test_as_typed(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, low, fast = (
        place / "net.safetensors",
        place / "in" / "coffee.png",
        ("--steps", "2", "--rate", "0.1", "--bound", "200/255"),
    )
    code, told, _ = run("faithful", net, "--calibrate", place / "photos", *fast)
    assert code == 0
    assert "9 photographs" in told
    assert len(list((tmp_path / MADE).glob("*.json"))) == 1
    # Once made, it is found again.
    again = "--truth", place / "true", *fast, "--out", "again"
    code, told, _ = run("faithful", net, low, *again, "--fail-under", "added=0.001")
    assert code == 13
    assert (tmp_path / "again" / "report.html").is_file()
    assert "the 9 of the calibration" in " ".join(told.split())
    assert all(record.psnr_y is not None for record in Store(tmp_path / "again").read())


def test_too_few_photographs_leave_out_the_mask_alone(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = "faithful", "bicubic", "--calibrate", place / "photos", "--rate", "0.05"
    for images in ((), (place / "in" / "coffee.png", "--steps", "2")):
        with pytest.warns(ModelWarning) as told:
            assert run(*few, *images)[0] == 0
        (line,) = (str(one.message) for one in told)
        assert "no mask for bicubic: a rate of 5 % takes 19 photographs" in line
        assert "has 9" in line
    (record,) = Store(tmp_path / "runs" / "faithful").read()
    assert record.noise_moved is not None
    assert record.trusted is None


def test_what_cannot_be_is_said(place, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    low, photos = place / "in", place / "photos"
    assert "name the images" in fails(5, "faithful", "bicubic")
    fails(4, "faithful", "no-such.pth", low)
    fails(3, "faithful", "bicubic", "no-such.png")
    assert "of net with other weights" in " ".join(
        fails(5, "faithful", "bicubic", low, "--calibration", place / "net.json", "--bound", "200/255").split()
    )
    net = place / "net.safetensors"
    assert "errors of 200 levels" in " ".join(
        fails(5, "faithful", net, low, "--calibration", place / "net.json").split()
    )
    assert "no calibration of trust" in " ".join(
        fails(5, "faithful", net, low, "--calibration", low / "coffee.png").split()
    )
    fails(5, "faithful", "bicubic", low, "--bound", "0")
    fails(5, "faithful", "bicubic", low, "--bound", "1")
    fails(5, "faithful", "bicubic", "--calibrate", photos, "--fail-under", "added=1")
    assert run("faithful", "bicubic", "--calibrate", photos, "--plan")[0] == 0
    assert not list((tmp_path / MADE).glob("*.json"))


def test_shipped_calibrations_are_of_models_as_they_are():
    files = sorted(SHIPPED.glob("*.json"))
    assert files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            made = Trust.read(path)
            assert find_trust(load(made.model), made.bound, [path]) == made
            assert made.threshold(0.1) > 0
            assert path.stat().st_size < 20_000


def test_a_rate_that_the_calibration_is_too_small_for_leaves_out_the_mask_alone(made, place):
    study, _, _ = made
    with pytest.warns(ModelWarning, match="99 photographs"):
        cells = dataclasses.replace(study, models=study.models[:1], rate=0.01).cells()
    assert [cell.trust for cell in cells] == [None, None]
    record = dataclasses.replace(run_study(study, place / "run")[0], trusted=None, rate=0.01)
    assert any("99 or more photographs" in sentence for sentence in results_of([record]).sentences)
