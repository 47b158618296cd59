"""The leaderboard of published networks: facts, records in one file, ranks, the page, and where other models stand."""

import dataclasses
import json
import random
import runpy
import tomllib
from pathlib import Path

import duckdb
import pytest
from small import edit, grid, rewrite, tiny
from test_cli import run as typed
from watched import Watched

from resolute.engine.running import Machine
from resolute.engine.running import run as answer
from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.images import sample_image, write_png
from resolute.leaderboard.building import entry_of_records
from resolute.leaderboard.checking import published_again
from resolute.leaderboard.compact import Run, read_runs, write_runs
from resolute.leaderboard.gathering import gather, peers_of, rows_of
from resolute.leaderboard.network import Network, read_networks
from resolute.leaderboard.networks_page import table_of, write_networks_page
from resolute.leaderboard.ranking import sentences
from resolute.studies.grid_results import results_of
from resolute.studies.kinds import read_study
from resolute.studies.peers import Peer, Peers, placed, suite_hash

FILE = Path(__file__).parents[1] / "docs" / "leaderboard" / "networks.toml"
# By what their figures against the truth lie above those of the run, without and under attack.
MOVED = {"first": (3, 1), "second": (4, -1), "weak": (0.2, 5), "again": (3, 1)}


def facts(id, **others):
    words = {"name": id.title(), "family": "plain", "year": 2024, "licence": "MIT", "address": f"{id}.pth"}
    return Network(
        id=id, parameters=270_000, normalises=False, attention=False, reparametrised=False, **(words | others)
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Records of one small network under two attacks, with a made-up worst case."""
    folder = tmp_path_factory.mktemp("measured")
    study = dataclasses.replace(grid(folder, models=("bicubic",)), baseline="")
    answer(study, folder / "run", Machine())
    return folder / "run"


def moved(records, model, weights, clean, attacked):
    return [
        dataclasses.replace(
            one, model=model, weights=weights, clean_psnr_y=one.clean_psnr_y + clean,
            attacked_psnr_y=one.attacked_psnr_y + attacked,
        )
        for one in records
    ]  # fmt: skip


@pytest.fixture
def runs(measured):
    records = Store(measured).read()
    weights = {"first": "1" * 64, "second": "2" * 64, "weak": "3" * 64, "again": "1" * 64}
    found = {id: moved(records, id, weights[id], *by) for id, by in MOVED.items()}
    found["second+mix=0.5"] = moved(records, "second+mix=0.5", "6" * 64, 2, 0.5)
    return {id: Run(own, None) for id, own in found.items()} | {"bicubic": Run(records, None)}


NETWORKS = {id: facts(id) for id in MOVED}


class TestFacts:
    def test_those_of_the_project_are_whole(self):
        networks = read_networks(FILE)
        assert len(networks) > 100
        assert not any("/root" in one.address or one.address.startswith("/") for one in networks.values())
        assert all(one.source or one.reference for one in networks.values())

    @pytest.mark.parametrize("change", [{"year": 1900}, {"source": "http://a.b"}, {"address": "/home/me/a.pth"}])
    def test_what_cannot_be_is_refused(self, tmp_path, change):
        own = tomllib.loads(FILE.read_text())["networks"][0] | change
        (tmp_path / "n.toml").write_text("[[networks]]\n" + "".join(f"{k} = {written(v)}\n" for k, v in own.items()))
        with pytest.raises(ConfigError, match=next(iter(change))):
            read_networks(tmp_path / "n.toml")

    def test_an_id_stands_for_one_network(self, tmp_path):
        text = FILE.read_text()
        (tmp_path / "n.toml").write_text(text + text[text.index("[[networks]]") :])
        with pytest.raises(ConfigError, match="carn-m"):
            read_networks(tmp_path / "n.toml")


def written(value):
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'


class TestRecords:
    def test_the_file_gives_the_same_entry(self, runs, tmp_path):
        write_runs(tmp_path / "records.parquet", runs)
        again = read_runs(tmp_path / "records.parquet")
        assert again.keys() == runs.keys()
        for id, run in runs.items():
            before, after = (entry_of_records(one.records, 4) for one in (run, again[id]))
            assert after.records == before.records
            assert after.suite == before.suite
            found = {(one.attack, one.level): one.sr_psnr.mean for one in after.empirical}
            expected = {(one.attack, one.level): one.sr_psnr.mean for one in before.empirical}
            assert found == pytest.approx(expected, abs=2e-4)

    def test_a_flipped_bit_is_noticed(self, runs, tmp_path):
        path = tmp_path / "records.parquet"
        write_runs(path, runs)
        whole, draw, noticed = path.read_bytes(), random.Random(0), 0
        before = read_runs(path)
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            path.write_bytes(damaged)
            try:
                assert read_runs(path) == before
            except ConfigError as error:
                assert "\n" not in str(error)  # noqa: PT017, a bit may say nothing
                noticed += 1
        assert noticed > 10

    def test_what_is_no_file_of_records_is_named(self, tmp_path):
        (tmp_path / "records.parquet").write_bytes(b"none")
        with pytest.raises(ConfigError, match=r"records\.parquet"):
            read_runs(tmp_path / "records.parquet")

    def test_only_finished_runs_of_known_networks_and_one_suite_are_gathered(self, measured, tmp_path):
        records = Store(measured).read()
        for id in ("first", "second", "unknown", "weak", "again"):
            folder = tmp_path / id
            folder.mkdir()
            (folder / "study.json").write_bytes((measured / "study.json").read_bytes())
            rewrite(folder, moved(records, id, "3" * 64, 1, 0))
        rewrite(tmp_path / "weak", moved(records, "weak", "3" * 64, 1, 0)[1:])
        edit(tmp_path / "again", lambda one: dataclasses.replace(one, seed=1))
        (tmp_path / "empty").mkdir()
        found = gather(sorted(tmp_path.iterdir()), NETWORKS, {})
        assert list(found.runs) == ["first", "second"]
        assert len(found.notes) == 4
        assert all(any(name in note for note in found.notes) for name in ("unknown", "weak", "again", "empty"))
        # What is known already stays without its folder.
        assert list(gather([], NETWORKS, found.runs).runs) == ["first", "second"]

    def test_the_script_writes_all_and_needs_no_run_the_second_time(self, measured, tmp_path, monkeypatch):
        records = Store(measured).read()
        for id, own in {"bicubic": records, "carn-m": moved(records, "CARN-M", "4" * 64, 2, -1)}.items():
            (tmp_path / "runs" / id).mkdir(parents=True)
            facts = json.loads((measured / "study.json").read_text())
            (tmp_path / "runs" / id / "study.json").write_text(json.dumps(facts | {"cells": [one.key for one in own]}))
            rewrite(tmp_path / "runs" / id, own)
        options = ["--out", str(tmp_path / "site"), "--peers", str(tmp_path / "peers.json")]
        script = str(FILE.parents[1] / "make_leaderboard.py")
        pages = []
        for more in ([str(tmp_path / "runs")], []):
            monkeypatch.setattr("sys.argv", [script, *more, *options])
            runpy.run_path(script, run_name="__main__")
            pages.append((tmp_path / "site" / "index.html").read_text())
        assert pages[0] == pages[1]
        assert "CARN-M" in pages[0]
        assert str(tmp_path) not in pages[0]
        assert json.loads((tmp_path / "peers.json").read_text())["networks"][0]["name"] == "CARN-M"


SUITE = """
name = "small"
models = ["bicubic"]
images = ["small"]
names = ["chelsea", "coffee"]
epsilons = [4, 16]

[[attacks]]
kind = "ifgsm"
steps = 2

[[attacks]]
kind = "noise"
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A suite of two attacks and two images, and a file of two models that went through it."""
    folder = tmp_path_factory.mktemp("published")
    for image in ("chelsea", "coffee"):
        write_png(folder / "photos" / f"{image}.png", sample_image(image)[:, 100:148, 200:248])
    (folder / "suite.toml").write_text(SUITE)
    model = tiny(folder / "tiny.safetensors", "tiny")
    images = (f"small={folder / 'photos'}",)
    study = dataclasses.replace(read_study(folder / "suite.toml"), models=(str(model), "bicubic"), images=images)
    answer(study, folder / "run", Machine())
    records = Store(folder / "run").read()
    found = {id: Run([one for one in records if one.model == id], None) for id in ("tiny", "bicubic")}
    write_runs(folder / "records.parquet", found)
    return folder


@pytest.fixture
def recheck(published, monkeypatch):
    monkeypatch.setattr("resolute.studies.kinds.SUITE", str(published / "suite.toml"))

    def typed_with(id, *more, records=published / "records.parquet", images=published / "photos"):
        code, stdout, stderr = typed("recheck", records, id, *more, "--images", images, "--device", "cpu")
        return code, stdout + stderr

    return typed_with


class TestRecheck:
    def test_records_hold_for_whoever_has_model_and_images(self, recheck, published, tmp_path):
        code, told = recheck("bicubic")
        assert code == 0
        assert "2 attacks" in told
        other = tmp_path / "renamed.safetensors"
        other.write_bytes((published / "tiny.safetensors").read_bytes())
        code, told = recheck("tiny", "--weights", other, "--repeat", 100)
        assert code == 0
        assert "8 attacks" in told
        assert "0.00 dB" in told
        assert recheck("tiny", "--replay", 0, "--repeat", 0)[0] == 0

    def test_another_model_and_other_images_are_refused(self, recheck, published, tmp_path):
        code, told = recheck("tiny")
        assert code == 5
        assert "--weights" in told
        own = read_runs(published / "records.parquet", "tiny")["tiny"].records[0].weights
        for weights in (tiny(tmp_path / "tiny.safetensors", "tiny", seed=1), "bicubic"):
            code, told = recheck("tiny", "--weights", weights)
            assert code == 5
            assert own[:16] in told
        assert recheck("bicubic", "--weights", published / "tiny.safetensors")[0] == 5
        for image in ("chelsea", "coffee"):
            write_png(tmp_path / "photos" / f"{image}.png", sample_image("chelsea")[:, 100:148, 200:248])
        code, told = recheck("bicubic", images=tmp_path / "photos")
        assert code == 5
        assert "coffee" in told
        code, told = recheck("bicubic", images=tmp_path)
        assert code == 5
        assert "--images" in told

    def test_a_name_in_the_records_is_no_reason_to_run_code(self, published, tmp_path):
        (tmp_path / "code.py").write_text("raise SystemExit('was run')")
        record = read_runs(published / "records.parquet", "tiny")["tiny"].records[0]
        for name in (f"{tmp_path / 'code.py'}:Net", str(published / "tiny.safetensors")):
            with pytest.raises(ConfigError, match="--weights"):
                published_again([dataclasses.replace(record, model=name)], read_study(published / "suite.toml"), 1)

    @pytest.mark.parametrize("name", ["sr_psnr", "attacked_psnr_y"])
    def test_records_that_are_too_good_are_found_and_an_attack_that_finds_less_refutes_nothing(
        self, recheck, published, tmp_path, name
    ):
        records = read_runs(published / "records.parquet", "bicubic")["bicubic"].records
        # A little is enough where all records have it.
        for by, expected in ((3, 5), (0.7, 5), (-3, 0)):
            moved = [dataclasses.replace(one, **{name: getattr(one, name) + by}) for one in records]
            write_runs(tmp_path / "records.parquet", {"bicubic": Run(moved, None)})
            code, told = recheck("bicubic", "--repeat", 8, records=tmp_path / "records.parquet")
            assert code == expected
            assert name in told

    @pytest.mark.parametrize("name", ["clean_psnr_y", "signs_psnr_y", "signs_sr_psnr"])
    def test_what_no_search_leads_to_has_to_come_out(self, recheck, published, tmp_path, name):
        records = read_runs(published / "records.parquet", "bicubic")["bicubic"].records
        for by in (-0.1, 0.1):
            moved = [dataclasses.replace(one, **{name: getattr(one, name) + by}) for one in records]
            write_runs(tmp_path / "records.parquet", {"bicubic": Run(moved, None)})
            code, told = recheck("bicubic", records=tmp_path / "records.parquet")
            assert code == 5
            assert name in told

    @pytest.mark.parametrize(
        "change",
        [
            {"key": "0" * 24},
            {"epsilon": 5 / 255},
            {"configuration": "PGD()"},
            {"attack": "ifgsm of mine"},
            {"image": "cat"},
            {"seed": 1},
            {"weights": "1" * 64},
            {"pixels": "1" * 64},
            {"linf": 17.0},
        ],
    )
    def test_what_a_record_says_has_to_be_of_the_suite(self, recheck, published, tmp_path, change):
        *records, last = read_runs(published / "records.parquet", "bicubic")["bicubic"].records
        write_runs(
            tmp_path / "records.parquet", {"bicubic": Run([*records, dataclasses.replace(last, **change)], None)}
        )
        assert recheck("bicubic", records=tmp_path / "records.parquet")[0] == 5

    def test_every_record_is_there_once(self, recheck, published, tmp_path):
        records = read_runs(published / "records.parquet", "bicubic")["bicubic"].records
        for other in (records[1:], [*records, records[0]], [*records[1:], records[1]]):
            write_runs(tmp_path / "records.parquet", {"bicubic": Run(other, None)})
            assert recheck("bicubic", records=tmp_path / "records.parquet")[0] == 5

    @pytest.mark.parametrize("name", ["key", "made"])
    def test_no_network_stops_another(self, recheck, published, tmp_path, name):
        bad = f"CASE WHEN id = 'tiny' THEN 'none' ELSE {name} END AS {name}"
        rows = f"SELECT * REPLACE ({bad}) FROM '{published / 'records.parquet'}'"
        duckdb.sql(rows).write_parquet(str(tmp_path / "records.parquet"))
        assert recheck("bicubic", records=tmp_path / "records.parquet")[0] == 0
        code, told = recheck("tiny", records=tmp_path / "records.parquet")
        assert code == 5
        assert "records.parquet" in told

    def test_an_unknown_network_is_told_the_nearest(self, recheck):
        code, told = recheck("bicubik")
        assert code == 5
        assert "bicubic?" in told


class TestRanks:
    def test_the_order_is_of_what_is_kept_against_the_truth(self, runs):
        rows = rows_of(runs, NETWORKS)
        assert [(row.name, row.rank) for row in rows if row.rank] == [("Again", 1), ("Second", 2)]
        why = {row.name: row.why for row in rows if row.rank is None}
        assert "0.5 dB" in why["Weak"]
        assert "Again (2024)" in why["First"]
        assert why.keys() == {"Weak", "First", "bicubic", "second+mix=0.5"}

    def test_a_reference_has_no_rank(self, runs):
        rows = rows_of(runs, NETWORKS | {"second": facts("second", reference="ours")})
        assert next(row for row in rows if row.name == "Second").why == "ours"

    def test_the_first_sentence_is_of_bicubic_interpolation(self, runs):
        first = sentences(rows_of(runs, NETWORKS))[0]
        assert "bicubic" in first
        assert "1 of 2 networks" in first
        assert "bicubic" in sentences(rows_of({"first": runs["first"]}, NETWORKS))[0].lower()

    def test_every_row_stands_in_the_table(self, runs):
        table = table_of(rows_of(runs, NETWORKS))
        assert [one["name"] for one in table.records()][:2] == ["Again", "Second"]
        assert len(table.rows) == len(runs)
        assert {one["size"] for one in table.records() if one["rank"]} == {"200 to 300 k"}


class TestPeers:
    def test_a_model_of_the_same_suite_is_placed(self, runs):
        peers = peers_of(rows_of(runs, NETWORKS), runs)
        assert [one.name for one in peers.networks] == ["Again", "Second"]
        mine = moved(runs["bicubic"].records, "mine", "9" * 64, 3, 0.5)
        (sentence,) = placed(mine, peers)
        assert "ranks 2nd of 3" in sentence
        # Between the mixture's 2 dB and the network's 4, whose attacked figures lie 0.5 above and 1 below.
        base = peers.bicubic
        assert peers.mixture_at(base.clean + 3, 4) == pytest.approx(base.attacked[4] - 0.25, abs=2e-3)
        assert peers.mixture_at(base.clean - 1, 4) is None

    def test_a_published_network_is_not_counted_twice(self, runs):
        peers = peers_of(rows_of(runs, NETWORKS), runs)
        (sentence,) = placed(runs["second"].records, peers)
        assert "ranks 2nd of 2" in sentence

    def test_one_that_is_no_better_than_bicubic_interpolation_has_no_rank(self, runs):
        (sentence,) = placed(runs["weak"].records, peers_of(rows_of(runs, NETWORKS), runs))
        assert "not ranked" in sentence

    @pytest.mark.parametrize("change", [{"seed": 1}, {"configuration": "PGD()"}, {"pixels": "0" * 64}])
    def test_another_suite_is_compared_with_nothing(self, runs, change):
        peers = peers_of(rows_of(runs, NETWORKS), runs)
        records = [dataclasses.replace(runs["second"].records[0], **change), *runs["second"].records[1:]]
        assert placed(records, peers) == []
        assert placed(runs["second"].records[1:], peers) == []
        assert placed(runs["bicubic"].records, peers) == []

    def test_the_verdict_says_it(self, runs, monkeypatch):
        own = runs["second"].records
        peers = Peers(suite_hash(own), (Peer("other", 2020, "", 30.0, {4.0: 20.0}, {4.0: 20.0}),))
        monkeypatch.setattr("resolute.studies.grid_results.read_peers", lambda: peers)
        assert any("ranks" in one for one in results_of(own, [], {}, ()).sentences)


@pytest.mark.browser
def test_the_page_in_a_browser(runs, tmp_path, browser):
    bait = "<img src=x onerror=alert(1)>"
    networks = NETWORKS | {"second": facts("second", name=bait, family="other", year=2022)}
    write_networks_page(rows_of(runs, networks), tmp_path / "index.html", waiting=2)
    watched = Watched(browser, tmp_path / "index.html", ready="#networks .legendtoggle")
    rows = watched.page.locator("#table-0 tbody tr:visible")
    assert rows.count() == len(runs)

    def figures():
        return [float(text.split("\n")[0]) for text in rows.locator("td:nth-child(3)").all_inner_texts()]

    assert figures() == sorted(figures(), reverse=True)
    watched.page.get_by_label("Year").select_option("2022")
    assert rows.count() == 1
    assert bait in rows.inner_text()
    watched.page.get_by_label("Year").select_option("")
    watched.page.locator("select[data-frames]").select_option("16/255")
    watched.page.wait_for_function("document.querySelector('#networks').textContent.includes('16/255')")
    heading = watched.page.locator("#table-0 thead button").nth(3)
    heading.click()
    for width, scheme in ((1280, "light"), (390, "dark")):
        watched.page.set_viewport_size({"width": width, "height": 900})
        watched.page.emulate_media(color_scheme=scheme)
        watched.page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
    assert watched.trouble == []
    assert all(request.startswith("file://") for request in watched.requests)
    watched.context.close()
