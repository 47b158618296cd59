"""Gains of attacks: the formulas of the comparison, and the table of studies of attacked scores."""

import math

import numpy as np
import pytest
import torch
from test_certification import certified, plan

from resolute.attacks.score import ScoreAttack
from resolute.images import sample_image, write_png
from resolute.measure.gains import gains_of
from resolute.models import QualityNet
from resolute.models.weights import save_model

CLEAN, ATTACKED = [0.2, 0.5, 0.7], [0.3, 0.9, 0.6]


def reference(clean, attacked):
    """The comparison's formulas, written out; scores on one scale."""
    low, high = min(clean), max(clean)
    f, g = ([(value - low) / (high - low) for value in values] for values in (clean, attacked))
    pairs = list(zip(f, g, strict=True))
    sign = math.copysign(1, sum(b - a for a, b in pairs))
    return {
        "absolute": np.mean([b - a for a, b in pairs]),
        "relative": np.mean([(b - a) / (a + 1) for a, b in pairs]),
        "r_score": np.mean([math.log10(max(1 - a, a) / (abs(b - a) + 1e-6)) for a, b in pairs]),
        # Of as many values on either side, the mean distance of the sorted ones.
        "wasserstein": sign * np.mean([abs(b - a) for a, b in zip(sorted(f), sorted(g), strict=True)]),
        "energy": sign
        * math.sqrt(
            2 * np.mean([abs(a - b) for a in f for b in g])
            - np.mean([abs(a - b) for a in f for b in f])
            - np.mean([abs(a - b) for a in g for b in g])
        ),
    }


@pytest.mark.parametrize("attacked", [ATTACKED, [0.1, 0.4, 0.2], CLEAN[::-1]])
def test_gains_are_those_of_the_formulas(attacked):
    found = gains_of(CLEAN, attacked)
    for name, value in reference(CLEAN, attacked).items():
        own = getattr(found, name)
        assert (own if isinstance(own, float) else own.mean) == pytest.approx(value, abs=1e-9), name


def test_a_metric_that_falls_with_quality_gains_as_much_as_its_mirror_image():
    mirrored = gains_of([1 - x for x in CLEAN], [1 - x for x in ATTACKED], lower_better=True)
    found = gains_of(CLEAN, ATTACKED)
    assert mirrored.absolute.mean == pytest.approx(found.absolute.mean)
    assert mirrored.r_score.mean == pytest.approx(found.r_score.mean)
    assert mirrored.energy == pytest.approx(found.energy)


def test_the_interval_is_students():
    found = gains_of([0, 1, 0, 1], [1, 1, 0.5, 1]).absolute
    assert found.mean == pytest.approx(0.375)
    assert found.high - found.mean == pytest.approx(3.182446 * np.std([1, 0, 0.5, 0], ddof=1) / 2, abs=1e-5)


@pytest.mark.parametrize(("clean", "attacked"), [([1, 2], [1]), ([1, 1], [2, 2]), ([], []), ([1, math.inf], [1, 2])])
def test_what_makes_no_scale_is_refused(clean, attacked):
    with pytest.raises(ValueError, match="gains"):
        gains_of(clean, attacked)


def test_a_study_of_attacked_scores_has_the_table(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = QualityNet(widths=(4, 4), hidden=4)
    save_model(net, tmp_path / "tiny.safetensors", net.describe("tiny", licence="MIT"))
    for name in ("coffee", "chelsea", "rocket"):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 100:140, 100:140])
    study = plan(tmp_path / "tiny.safetensors", tmp_path / "photos", attacks=(ScoreAttack(epsilon=4 / 255, steps=2),))
    scores, attacks = certified(study, tmp_path / "out")
    table = study.results([*scores, *attacks]).tables[-1]
    assert table.title == "Gains"
    alone, defended = table.records()
    assert (alone["score"], defended["score"]) == ("alone", "defended")
    by_key = {score.key: score for score in scores}
    expected = gains_of([by_key[one.clean_key].score for one in attacks], [one.defended for one in attacks])
    assert defended["absolute gain"] == pytest.approx(expected.absolute.mean)
    assert defended["images"] == 3
    # Of one image there is no scale.
    first = next(one for one in attacks if one.clean_key == scores[0].key)
    assert "Gains" not in [one.title for one in study.results([scores[0], first]).tables]
