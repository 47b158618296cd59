"""The tables of docs/findings.md: they follow from the committed records, and their statistics are what they say."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from small import script_of

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script():
    return script_of("make_findings")


def row(family, fact, kept, flag=False):
    return SimpleNamespace(network=SimpleNamespace(family=family, flag=flag), fact=fact, kept=kept)


def test_tables_are_those_of_the_records(script):
    page = script.PAGE.read_text(encoding="utf-8")
    shown = dict(re.findall(r"<!-- table (\w+) -->\n(.*?)\n<!-- end -->", page, re.DOTALL))
    runs = script.read_runs(script.FOLDER / "records.parquet")
    ranked = script.ranked_of(runs, script.read_networks(script.FOLDER / "networks.toml"))
    assert shown["overview"].splitlines() == script.overview(ranked, runs)
    assert shown["families"].splitlines() == script.families(ranked)
    assert shown["attacks"].splitlines() == script.attacks(ranked)
    assert shown["transfer"].splitlines() == script.transfer(ranked, script.FOLDER / "transfer.parquet")


def test_correlation_over_all_and_within_families(script):
    # Up with the fact between families, down within them.
    rows = [row(family, 10 * place + i, 10 * place - i) for place, family in enumerate("abc") for i in range(3)]
    assert script.correlation(lambda one: one.fact)(rows) > 0.5
    assert script.correlation(lambda one: one.fact, within=True)(rows) == pytest.approx(-1)


def test_difference_over_all_and_within_families(script):
    rows = [row("a", 0, 5, flag=True), row("a", 0, 4), row("b", 0, 1), row("b", 0, 1), row("b", 0, 2, flag=True)]
    difference = script.difference
    assert difference(lambda one: one.network.flag)(rows) == pytest.approx(3.5 - 2)
    assert difference(lambda one: one.network.flag, within=True)(rows) == pytest.approx(1)


def test_the_interval_draws_families_whole(script, monkeypatch):
    monkeypatch.setattr(script, "ROUNDS", 200)

    def mean(rows):
        return sum(one.kept for one in rows) / len(rows)

    alike = [row("a", 0, 1.0) for _ in range(100)]
    assert script.interval(alike, mean) == "+1.00 [+1.00, +1.00]"
    # A hundred of one family and a hundred of another are two, not two hundred.
    assert script.interval([*alike, *(row("b", 0, 3.0) for _ in range(100))], mean) == "+2.00 [+1.00, +3.00]"
