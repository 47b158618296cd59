"""No generated sentence contradicts the table that it stands above."""

import dataclasses
import math
import random
import re

import pytest
from odd import FULL

from resolute.chart import BICUBIC
from resolute.figures import MINUS
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid_tables import comparison_table, grid_tables, results_table
from resolute.studies.pairs import families
from resolute.studies.summary import compare, headline_level, summarize, worst_case
from resolute.studies.verdicts import (
    below_bicubic,
    clean_psnr,
    family_verdicts,
    is_compact,
    most_fragile,
    names_of,
    pairings,
    sentences_of,
)

DEFENDS = {"b": "a", "b+mix=0.5": "b", "c": "a", "e": "d"}
INSTEAD = re.compile(r"(\S+) dB instead of (?:the )?(\S+) dB(?: of \S+)? \((\S+) dB(?:, (may be chance|one image))?\)")

BASE = AttackRecord(
    key="0" * 24, model="m", weights="", attack="ifgsm", configuration="IFGSM()", epsilon=4 / 255,
    image="i",
    pixels="0" * 64,
    width=8, height=8, seed=0, clean_psnr_y=None, clean_ssim_y=None, attacked_psnr_y=None, attacked_ssim_y=None,
    lr_psnr=36.0, sr_psnr=None, sr_psnr_unrounded=None, sr_psnr_y=None, sr_ssim=None, linf=4.0, gradients=1,
    seconds=0.0, phi_mean=0.0, phi_std=1.0, phi_range=1.0, attacked_phi_mean=0.0, attacked_phi_std=1.0,
    attacked_phi_range=1.0, phi_moved=0.0,
)  # fmt: skip


def drawn(seed):
    """Return records with gaps, unmoved outputs, ties and clear differences."""
    rng = random.Random(seed)
    models = ["a", *rng.sample(["b", "b+mix=0.5", "c", "d", "e"], rng.randint(0, 5)), BICUBIC]
    images = [str(number) for number in range(rng.choice([1, 2, 8]))]
    spread, truth = rng.choice([0.0, 0.01, 3.0]), rng.random() < 0.8
    shift = {model: rng.choice([0.0, 0.004, 1.0, -1.0, 4.0]) for model in models}
    made = []
    for model in models:
        for image in images:
            if made and rng.random() < 0.05:
                continue
            clean = 28 + shift[model] * rng.choice([0, -0.5]) + rng.gauss(0, spread)
            for attack in rng.sample(["ifgsm", "fda"], rng.randint(1, 2)):
                for level in (4, 8):
                    kept = 31 + shift[model] + rng.gauss(0, spread)
                    attacked = clean - rng.uniform(-1, 3)
                    made.append(
                        dataclasses.replace(
                            BASE, model=model, attack=attack, epsilon=level / 255, image=image,
                            sr_psnr=None if rng.random() < 0.1 else kept,
                            clean_psnr_y=clean if truth else None,
                            attacked_psnr_y=attacked if truth else None,
                        )
                    )  # fmt: skip
    return made


def number(text):
    return float(text.replace(MINUS, "-"))


def agrees(sentence):
    """Check that all differences in a sentence add up, and return them."""
    found = [(number(a), number(b), number(d), why) for a, b, d, why in INSTEAD.findall(sentence)]
    for after, before, difference, _ in found:
        assert after - before == pytest.approx(difference, abs=1e-6)
    assert len(found) == sentence.count("instead of")
    return found


@pytest.mark.parametrize("seed", range(60 if FULL else 20))
def test_no_sentence_contradicts_the_table(seed):
    records = drawn(seed)
    told = sentences_of(records, DEFENDS)
    assert told
    for sentence in told:
        agrees(sentence)
    table = results_table(records)
    shown = {
        (line.cells[0].value, line.cells[1].value, line.cells[2].value): line.cells[5].value for line in table.rows
    }
    compact = is_compact(names_of(records), DEFENDS)
    worse = below_bicubic(records)
    clean = clean_psnr(records)
    below = {name for name, value in clean.items() if BICUBIC in clean and round(value, 2) < round(clean[BICUBIC], 2)}
    assert bool(worse) == bool(below)
    assert told[: len(worse)] == worse
    for pairing in [] if compact else pairings(records, DEFENDS):
        found = agrees(pairing.verdict)
        level = headline_level([c.level for c in pairing.comparisons if c.sr] or [c.level for c in pairing.comparisons])
        here = [c for c in compare(records, pairing.plain, pairing.defended) if c.level == level and c.sr]
        for c, (after, before, difference, why) in zip(here, found, strict=False):
            assert round(c.sr.after, 1) == after
            assert round(c.sr.before, 1) == before
            assert difference * c.sr.interval.mean >= 0 or abs(c.sr.interval.mean) < 0.1
            assert bool(why) == (c.sr.clear == 0)
        if "moves less and starts lower" in pairing.verdict:
            assert all(c.sr.clear > 0 and c.clean.clear < 0 and c.truth.clear <= 0 for c in here)
        lines = comparison_table(pairing).rows
        assert len(lines) == len(pairing.comparisons)
    rows = [row for row in summarize(records) if row.level == 4 and row.sr_psnr is not None and row.model != BICUBIC]
    if rows:
        least = min(rows, key=lambda row: row.sr_psnr)
        text = most_fragile(records)
        several = len({row.model for row in summarize(records) if row.level == 4} - {BICUBIC}) > 1
        assert ("most fragile" in text) == several
        assert (f"is {least.model} under" if several else f"of {least.model} keeps") in text
        assert f"{shown[least.model, {'ifgsm': 'I-FGSM', 'fda': 'FDA'}[least.attack], '4/255']:.1f} dB" in text


@pytest.mark.parametrize("seed", range(60 if FULL else 20))
def test_what_is_said_of_a_family_is_in_its_grid(seed):
    records = drawn(seed)
    grouped = families(names_of(records), DEFENDS)
    pool = [record for record in worst_case(records) if round(record.epsilon * 255) == 4]
    for sentence in family_verdicts(records, DEFENDS):
        agrees(sentence)
        family = next(f for f in grouped if f" {f.plain} keeps an SR-PSNR" in sentence)
        gains = {name: found[0] for name in family.variants if (found := compare(pool, family.plain, name))}
        clear = [c.sr.clear for c in gains.values() if c.sr]
        for count, words in ((clear.count(1), "more"), (clear.count(-1), "less")):
            assert (f"{count} keeps {words}" in sentence or f"{count} keep {words}" in sentence) == (
                count > 0 and len(clear) > 1
            )
        truths = [c.truth.clear for c in gains.values() if c.truth]
        assert ("no attacked output gains" in sentence) == (bool(truths) and 1 not in truths)
    for grid in grid_tables(records, DEFENDS):
        plain = {}
        for line in grid.rows:
            values = [cell.value for cell in line.cells[2:]]
            if not line.indent:
                plain = values
            for cell, value, before in zip(line.cells[2:], values, plain, strict=True):
                gain = cell.change
                if gain is not None and before is not None and abs(gain.mean - (value - before)) < 0.004:
                    assert round(before, 2) + round(gain.mean, 2) == pytest.approx(round(value, 2), abs=1e-6)


def test_the_worst_case_is_a_row_of_what_a_terminal_shows():
    kept = {("ifgsm", "1"): 30.0, ("ifgsm", "2"): 24.0, ("fda", "1"): 26.0, ("fda", "2"): 29.0}
    records = [
        dataclasses.replace(BASE, attack=attack, image=image, sr_psnr=value) for (attack, image), value in kept.items()
    ]
    shown = {line.cells[1].value: line.cells[5].value for line in results_table(records, worst=True).rows}
    assert shown == {"I-FGSM": 27.0, "FDA": 27.5, "worst case": 25.0}
    assert len(results_table(records[:2], worst=True).rows) == 1


def test_a_miswired_network_is_said_first():
    records = [
        dataclasses.replace(BASE, model=model, image=image, clean_psnr_y=clean, sr_psnr=kept)
        for model, clean, kept in (("mine", 18.1, 42.0), (BICUBIC, 25.6, 36.0))
        for image in ("1", "2")
    ]
    first = sentences_of(records, {})[0]
    assert "mine (18.10 dB)" in first
    assert "25.60 dB" in first
    cell = results_table(records).rows[0].cells[3]
    assert (cell.value, cell.tone) == (pytest.approx(18.1), "bad")
    assert math.isclose(results_table(records).rows[1].cells[3].value, 25.6)
    assert not below_bicubic([record for record in records if record.model != BICUBIC])


def test_random_signs_stand_beside_the_clean_psnr():
    record = dataclasses.replace(BASE, sr_psnr=30.0, clean_psnr_y=27.0, signs_sr_psnr=40.0, signs_psnr_y=26.0)
    floor = results_table([record]).rows[-1]
    assert [cell.value for cell in floor.cells[:4]] == ["m", "random signs", "4/255", 27.0]
