"""Entries of a leaderboard, made from records, checked again, refused where they do not hold; and the site."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from small import edit, grid, rewrite
from test_cli import run as typed
from watched import Watched

from resolute.attacks.registry import AttackTable
from resolute.engine.running import Machine
from resolute.engine.running import run as answer
from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.images import sample_image, write_png
from resolute.leaderboard import build_site, certified_scores, differences, entries_of, entry_of, read_entry
from resolute.leaderboard.certified import certified_boards
from resolute.leaderboard.certified_scores import ALPHA, RADII, score_boards
from resolute.leaderboard.checking import Again, done_again
from resolute.leaderboard.site import schema_text, stem_of
from resolute.studies.certified_iqa import Attacks, CertifiedIqa, Contender
from resolute.studies.check import Check, evidence_of
from resolute.studies.check_suite import CheckSuite
from resolute.studies.restoration import Restoration
from resolute.studies.summary import summarize, worst_case


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def drop(run, unwanted):
    rewrite(run, [record for record in Store(run).read() if not unwanted(record)])


def marked(page):
    return page.read_text().count("below bicubic")


def written(entry, folder, name="entry.json"):
    path = folder / name
    path.write_text(entry.to_json())
    return path


class TestEntries:
    def test_it_holds_the_means_of_the_records(self, finished):
        entry = entry_of(finished, "tiny")
        records = [record for record in Store(finished).read() if record.model == "tiny"]
        for rows in (summarize(records), summarize(worst_case(records))):
            for row in rows:
                figure = next(e for e in entry.empirical if (e.attack, e.level) == (row.attack, row.level))
                assert figure.sr_psnr.mean == pytest.approx(row.sr_psnr, abs=1e-4)
                assert figure.sr_psnr.low <= figure.sr_psnr.mean <= figure.sr_psnr.high
                assert figure.images == 2
        assert entry.threat.budgets == [4, 16]
        assert entry.threat.norms == ["linf"]
        assert entry.threat.knowledge == ["white-box"]
        assert entry.model.sha256 == records[0].weights
        assert entry.cells == 8

    def test_it_survives_its_file(self, finished, tmp_path):
        entry = entry_of(finished, "tiny", submitter="A. Person", link="https://example.org/a")
        assert read_entry(written(entry, tmp_path)) == entry

    def test_what_the_attacker_knows_is_told_apart(self, tmp_path):
        study = grid(tmp_path, models=("tiny",))
        tables = (AttackTable(kind="square", queries=3), AttackTable(kind="pgd", steps=1, norm="l2"))
        model = f"{study.models[0]}+round8"
        study = dataclasses.replace(study, models=(model,), baseline=model, attacks=tables, epsilons=(16,))
        answer(study, tmp_path / "run", Machine())
        (entry,), notes = entries_of(tmp_path / "run")
        assert notes == []
        assert entry.threat.knowledge == ["adaptive", "black-box"]
        assert entry.threat.norms == ["linf", "l2"]

    def test_the_suite_is_the_attacks_with_their_settings_and_not_the_budgets(self, run):
        before = entry_of(run, "tiny")
        drop(run, lambda record: record.epsilon > 0.05)
        assert entry_of(run, "tiny").suite.version == before.suite.version
        edit(run, lambda r: dataclasses.replace(r, configuration=r.configuration.replace("steps=2", "steps=1")))
        assert entry_of(run, "tiny").suite.version != before.suite.version

    def test_a_choice_of_cells_is_refused(self, run):
        bad = next(record.key for record in Store(run).read() if record.model == "tiny")
        drop(run, lambda record: record.key == bad)
        with pytest.raises(ConfigError, match="lacks 1 of 2 "):
            entry_of(run, "tiny")
        entries, notes = entries_of(run)
        assert {entry.model.name for entry in entries} == {"tiny-entropy", "bicubic"}
        assert len(notes) == 1

    def test_leaving_out_an_attack_is_refused(self, run):
        drop(run, lambda record: record.model == "tiny" and record.attack == "fda")
        with pytest.raises(ConfigError, match=r"4/255 lacks 2 "):
            entry_of(run, "tiny")

    def test_several_seeds_are_refused(self, run):
        again = [dataclasses.replace(r, seed=1, key=r.key[::-1]) for r in Store(run).read() if r.model == "tiny"]
        rewrite(run, Store(run).read() + again)
        with pytest.raises(ConfigError, match="several seeds"):
            entry_of(run, "tiny")

    def test_other_kinds_have_no_place_among_attacks(self, run):
        facts = json.loads((run / "study.json").read_text()) | {"kind": "certified-iqa"}
        (run / "study.json").write_text(json.dumps(facts))
        with pytest.raises(ConfigError, match="certified-iqa, and entries are of attacks"):
            entries_of(run)

    def test_flags_of_a_check_come_with_the_entry(self, run, tmp_path):
        assert not entry_of(run, "tiny").checked
        model = grid(tmp_path / "again").models[0]
        suite = CheckSuite(steps=2, restarts=2, draws=2, queries=2)
        answer(
            Check(models=(model,), images=(str(tmp_path / "again" / "photos"),), suite=suite), run / "check", Machine()
        )
        entry = entry_of(run, "tiny")
        assert entry.checked
        raised = evidence_of(Store(run / "check").read()).flags()
        assert {flag.name for flag in raised if flag.raised} <= {flag.name for flag in entry.flags}
        assert not entry_of(run, "tiny-entropy").checked


class TestChecks:
    def test_an_entry_holds_against_its_own_records(self, finished):
        assert differences(entry_of(finished, "tiny"), finished) == []

    def test_another_figure_is_found(self, finished):
        entry = entry_of(finished, "tiny")
        content = entry.model_dump(mode="json")
        for end in ("low", "mean", "high"):
            content["empirical"][0]["sr_psnr"][end] -= 0.01
        told = differences(type(entry).model_validate(content), finished)
        assert {text.partition(":")[0] for text in told} == {
            f"empirical[0].sr_psnr.{end}" for end in ("low", "mean", "high")
        }

    def test_changed_records_are_found_even_where_means_stay(self, run):
        entry = entry_of(run, "tiny")
        edit(run, lambda r: dataclasses.replace(r, sr_psnr_unrounded=1.0))
        assert any(text.startswith("records: ") for text in differences(entry, run))

    def test_records_are_made_again_unasked(self, run, tmp_path):
        path = written(entry_of(run, "tiny"), tmp_path)
        code, stdout, _ = typed("recheck", path, run)
        assert code == 0
        assert "8 records, 5 attacked images and 2 attacks" in stdout
        # Records and entry made up together are found by the images alone.
        edit(run, lambda r: dataclasses.replace(r, sr_psnr=r.sr_psnr + 3))
        path = written(entry_of(run, "tiny"), tmp_path)
        assert typed("recheck", path, run, "--replay", 0, "--repeat", 0)[0] == 0
        code, _, stderr = typed("recheck", path, run)
        assert code == 5
        assert "attacked image" in stderr
        assert typed("recheck", path, run, "--replay", 0)[0] == 5

    def test_without_attacked_images_attacks_are_run_again(self, run, tmp_path):
        entry = entry_of(run, "tiny")
        shutil.rmtree(run / "attacked")
        again = done_again(entry, run, 3, 0)
        assert again == Again(0, 1, [], apart=again.apart)
        assert again.apart < 0.5
        edit(run, lambda r: dataclasses.replace(r, attacked_psnr_y=r.attacked_psnr_y + 3))
        assert "attacked_psnr_y" in done_again(entry, run, 3, 0).told[0]

    def test_a_missing_model_is_no_reason_to_believe(self, run, finished, tmp_path):
        facts = (run / "study.json").read_text()
        where = json.loads(facts)["study"]["models"][0]
        (run / "study.json").write_text(facts.replace(where, str(tmp_path / "gone.safetensors")))
        path = written(entry_of(run, "tiny"), tmp_path)
        code, _, stderr = typed("recheck", path, run)
        assert code == 5
        assert "--weights" in stderr
        assert typed("recheck", path, run, "--weights", where)[0] == 0

    @pytest.mark.parametrize(
        "change",
        [
            {"extra": 1},
            {"version": 2},
            {"empirical": []},
            {"records": "short"},
            {"link": "javascript:alert(1)"},
            {"link": "https://a.b/\"onclick='x"},
            {"submitter": "x" * 201},
        ],
    )
    def test_a_broken_entry_is_refused(self, finished, tmp_path, change):
        content = entry_of(finished, "tiny").model_dump(mode="json") | change
        (tmp_path / "bad.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=r"bad\.json"):
            read_entry(tmp_path / "bad.json")

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("empirical", 0, "sr_psnr", "low"), 99.0),
            (("empirical", 0, "sr_psnr", "high"), 0.0),
            (("empirical", 0, "sr_psnr", "mean"), 99.0),
            (("empirical", 0, "sr_psnr", "n"), 9),
            (("empirical", 0, "unmoved"), 3),
            (("empirical", 0, "images"), 3),
            (("empirical", 0, "level"), 5.0),
            (("empirical", 0, "attack"), "fda"),
            (("suite", "version"), "0" * 16),
            (("suite", "attacks", 0, "seed"), 1),
            (("data", "images"), 1),
            (("empirical", 0, "attacked_psnr", "high"), 1e300),
            (("empirical", 0, "level"), 256),
            (("empirical", 0, "attack"), "pgd"),
            (("empirical", 2, "clean_psnr"), {"mean": 9.0, "low": 9.0, "high": 9.0, "n": 2}),
            (("empirical", 0, "sr_psnr"), {"mean": 99.0, "low": 99.0, "high": 99.0, "n": 2}),
            (("cells",), 7),
        ],
    )
    def test_an_entry_that_contradicts_itself_is_named_and_left_out(self, run, tmp_path, place, value):
        content = entry_of(run, "tiny").model_dump(mode="json")
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (tmp_path / "all").mkdir()
        (tmp_path / "all" / "bad.json").write_text(json.dumps(content))
        good = written(entry_of(run, "tiny-entropy"), tmp_path / "all")
        page, notes = build_site(tmp_path / "all", tmp_path / "site")
        assert [note.partition(" ")[0] for note in notes] == ["bad.json"]
        assert read_entry(next((tmp_path / "site" / "entries").glob("*.json"))) == read_entry(good)
        assert "bad.json" in page.read_text()

    def test_an_entry_cannot_push_out_another(self, run, tmp_path):
        folder = tmp_path / "all"
        shutil.copytree(run, folder / "run")
        content = entry_of(run, "tiny").model_dump(mode="json")
        for figures in content["empirical"]:
            figures["sr_psnr"] = {"mean": 99.0, "low": 99.0, "high": 99.0, "n": figures["images"]}
        (folder / "a.json").write_text(json.dumps(content))
        # Equal figures under another person's name, or without their flags, are another entry.
        honest = entry_of(run, "tiny", submitter="Me")
        written(honest, folder, "me.json")
        written(honest.model_copy(update={"submitter": "Thief"}), folder, "a-thief.json")
        written(honest.model_copy(update={"checked": True, "flags": []}), folder, "b-unflagged.json")
        build_site(folder, tmp_path / "site")
        entries = [read_entry(file) for file in (tmp_path / "site" / "entries").glob("*.json")]
        found = [(one.submitter, one.checked) for one in entries if one.model.name == "tiny"]
        assert sorted(found) == [("", False), ("Me", False), ("Me", True), ("Thief", False)]

    def test_a_made_up_bicubic_interpolation_marks_nobody(self, run, tmp_path):
        folder = tmp_path / "all"
        shutil.copytree(run, folder / "run")
        before = marked(build_site(folder, tmp_path / "site")[0])
        content = entry_of(run, "bicubic").model_dump(mode="json")
        for figures in content["empirical"]:
            figures["clean_psnr"] = {"mean": 60.0, "low": 60.0, "high": 60.0, "n": figures["images"]}
        (folder / "a.json").write_text(json.dumps(content))
        assert marked(build_site(folder, tmp_path / "site")[0]) == before

    def test_a_run_that_no_entry_can_hold_stops_no_other(self, run, tmp_path):
        shutil.copytree(run, tmp_path / "all" / "good")
        shutil.copytree(run, tmp_path / "all" / "odd")
        edit(tmp_path / "all" / "odd", lambda r: dataclasses.replace(r, model="x" * 300, sr_psnr=1e9))
        _, notes = build_site(tmp_path / "all", tmp_path / "site")
        assert len(notes) == 3

    @pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"mean": NaN}', b"[" * 100_000])
    def test_what_is_no_entry_is_refused(self, tmp_path, content):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.json"):
            read_entry(tmp_path / "bad.json")

    def test_a_byte_order_mark_is_no_fault(self, run, tmp_path):
        path = written(entry_of(run, "tiny"), tmp_path)
        marked = tmp_path / "marked.json"
        marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert read_entry(marked) == read_entry(path)

    def test_the_published_schema_is_that_of_the_code(self):
        published = Path(__file__).parents[1] / "docs" / "leaderboard.schema.json"
        assert published.read_text(encoding="utf-8") == schema_text(), "write it again with: python docs/make_schema.py"


class TestSite:
    def test_entries_and_runs_of_one_suite_stand_together(self, run, tmp_path):
        folder = tmp_path / "all"
        shutil.copytree(run, folder / "run")
        written(entry_of(run, "tiny", submitter="A. Person"), folder)
        page, notes = build_site(folder, tmp_path / "site")
        assert notes == []
        files = sorted((tmp_path / "site" / "entries").glob("*.json"))
        entries = {read_entry(file).model.name: read_entry(file) for file in files}
        assert sorted(entries) == ["bicubic", "tiny", "tiny-entropy"]
        assert len(files) == 3
        assert entries["tiny"].submitter == "A. Person"
        text = page.read_text()
        assert text.count('class="sortable" id="board-') == 1
        assert (tmp_path / "site" / "leaderboard.schema.json").is_file()

    def test_other_attacks_or_images_have_a_board_of_their_own(self, run, tmp_path):
        folder = tmp_path / "all"
        shutil.copytree(run, folder / "one")
        shutil.copytree(run, folder / "two")
        edit(folder / "two", lambda r: dataclasses.replace(r, seed=1, sr_psnr=r.sr_psnr + 1))
        text = build_site(folder, tmp_path / "site")[0].read_text()
        assert text.count('class="sortable" id="board-') == 2

    def test_bad_ones_are_left_out_and_said(self, run, tmp_path):
        (tmp_path / "all").mkdir()
        written(entry_of(run, "tiny"), tmp_path / "all")
        (tmp_path / "all" / "bad.json").write_text("{}")
        page, notes = build_site(tmp_path / "all", tmp_path / "site")
        assert "bad.json" in notes[0]
        assert "bad.json" in page.read_text()

    def test_an_empty_folder_says_what_to_do(self, tmp_path):
        with pytest.raises(ConfigError, match="put entries"):
            build_site(tmp_path, tmp_path / "site")

    def test_a_name_cannot_lead_out_of_the_site(self, finished):
        entry = entry_of(finished, "tiny")
        content = entry.model_dump(mode="json")
        content["model"]["name"] = "../../<b>etc/passwd"
        stem = stem_of(type(entry).model_validate(content))
        assert "/" not in stem
        assert not stem.startswith(".")

    def test_as_typed(self, run, tmp_path):
        code, stdout, _ = typed("submit", run, "--model", "tiny", "--submitter", "Me", "--out", tmp_path / "all")
        assert code == 0
        (path,) = (tmp_path / "all").glob("*.json")
        assert path.name in stdout
        assert typed("leaderboard", tmp_path / "all")[0] == 0
        assert (tmp_path / "all" / "site" / "index.html").is_file()
        # The site lies in the folder and is no entry of the next one.
        assert typed("leaderboard", tmp_path / "all")[0] == 0
        (tmp_path / "all" / "bad.json").write_text("{}")
        code, stdout, stderr = typed("leaderboard", tmp_path / "all")
        assert code == 11
        assert "bad.json" in stdout
        assert "1 bad entry" in stderr
        code, _, stderr = typed("submit", run, "--model", "tiny", "--link", "http://insecure.org")
        assert code == 5
        assert "link" in stderr
        assert "tiny, tiny-entropy, bicubic" in typed("submit", run, "--model", "no")[2]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_site_in_a_browser(run, tmp_path, browser, width, scheme):
    bait = "<img src=x onerror=alert(1)>"
    edit(run, lambda r: dataclasses.replace(r, model=r.model.replace("tiny", bait)))
    (tmp_path / "all").mkdir()
    for number, name in enumerate((bait, f"{bait}-entropy")):
        written(entry_of(run, name, submitter=bait), tmp_path / "all", f"{number}.json")
    page, _ = build_site(tmp_path / "all", tmp_path / "site")
    watched = Watched(browser, page, width, scheme, ready="#board-0 [aria-sort]")
    rows = watched.page.locator("#board-0 tbody tr:visible")

    def figures():
        return [float(text.split("\n")[0]) for text in rows.locator("td:nth-child(3)").all_inner_texts()]

    assert rows.count() == 2
    assert figures() == sorted(figures(), reverse=True)
    before = figures()
    watched.page.get_by_label("Budget").select_option("16/255")
    assert figures() != before
    heading = watched.page.locator("#board-0 thead button").nth(2)
    heading.focus()
    heading.press("Enter")
    assert figures() == sorted(figures())
    assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= width
    watched.page.locator("#board-0 tbody tr:visible a").first.click()
    watched.page.wait_for_selector("text=Threat model")
    assert bait in watched.page.locator("h1").inner_text()
    assert watched.page.evaluate("() => document.documentElement.scrollWidth") <= width
    watched.page.locator("header a", has_text="JSON").click()
    watched.page.wait_for_url("**/*.json")
    assert watched.trouble == []
    assert all(request.startswith("file://") for request in watched.requests)
    watched.context.close()


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proven")
    write_png(folder / "photos" / "one.png", sample_image("coffee")[:, 100:140, 100:140])
    study = Restoration(
        models=("bicubic", "bicubic+confine=0.05"), images=(str(folder / "photos"),), sigmas=(0.05,),
        epsilons=(0.01, 0.02), samples=96, seed=0,
    )  # fmt: skip
    answer(study, folder / "runs" / "proven", Machine())
    return folder / "runs"


class TestCertified:
    def test_what_is_proven_has_a_board_of_its_own(self, proven, finished, tmp_path):
        both = shutil.copytree(proven, tmp_path / "runs")
        shutil.copytree(finished, both / "attacked")
        page, notes = build_site(both, tmp_path / "site")
        assert notes == []
        (board,), _ = certified_boards([both / "proven"])
        records = [r for r in Store(both / "proven").read() if r.model == "bicubic"]
        rows = {(row.cells[0].value, row.cells[3].value): row for row in board.table.rows}
        assert len(rows) == 4
        for record in records:
            figures = rows["bicubic", record.epsilon].cells
            assert figures[1].value.mean == pytest.approx(record.certified[1])
            assert figures[9].value == "given"
        assert f'id="{board.id}"' in page.read_text()
        assert 'id="board-0"' in page.read_text()

    def test_rows_of_other_images_stand_on_another_board(self, proven, tmp_path):
        write_png(tmp_path / "more" / "two.png", sample_image("rocket")[:, 100:140, 100:140])
        study = Restoration(
            models=("bicubic",), images=(str(tmp_path / "more"), str(proven.parent / "photos")), sigmas=(0.05,),
            epsilons=(0.01,), samples=96, seed=0,
        )  # fmt: skip
        answer(study, tmp_path / "runs" / "both", Machine())
        boards, _ = certified_boards([proven / "proven", tmp_path / "runs" / "both"])
        rows = {board.images: [(r.cells[0].value, r.cells[3].value) for r in board.table.rows] for board in boards}
        assert len(rows[1]) == 4
        assert rows[2] == [("bicubic", 0.01)]

    def test_folders_are_not_mixed(self, proven, tmp_path):
        """Keys and images of a folder of others are what they like; they take no honest row away."""
        source, again = proven / "proven", tmp_path / "again"
        shutil.copytree(source, again)
        assert certified_boards([source, again])[0] == certified_boards([source])[0]

        def rows(*runs):
            return [(r.cells[0].value, r.cells[1].value) for b in certified_boards(runs)[0] for r in b.table.rows]

        forged = [dataclasses.replace(one, key=one.key[::-1], certified_median=1.0) for one in Store(again).read()]
        forged = [dataclasses.replace(one, certified_mean=1.0, certified_centre=1.0) for one in forged]
        facts = json.loads((again / "study.json").read_text())
        (again / "study.json").write_text(json.dumps(facts | {"cells": [key[::-1] for key in facts["cells"]]}))
        rewrite(again, forged)
        both = rows(source, again)
        assert set(rows(source)) < set(both)
        assert sum(called.endswith(", again") for called, _ in both) == 4
        rewrite(again, [*forged, *(dataclasses.replace(one, key=f"{one.key}0", pixels="other") for one in forged)])
        assert set(rows(source)) < set(rows(source, again))

    def test_scales_have_boards_of_their_own(self, proven, tmp_path):
        source, again = proven / "proven", tmp_path / "again"
        shutil.copytree(source, again)
        facts = json.loads((again / "study.json").read_text())
        facts["study"]["scale"], facts["cells"] = 2, [key[::-1] for key in facts["cells"]]
        (again / "study.json").write_text(json.dumps(facts))
        rewrite(again, [dataclasses.replace(one, key=one.key[::-1]) for one in Store(again).read()])
        boards, notes = certified_boards([source, again])
        assert notes == []
        assert [board.title[:2] for board in boards] == ["\u00d74", "\u00d72"]

    def test_a_folder_that_cannot_be_read_is_left_out_like_a_bad_line(self, proven, tmp_path):
        runs = shutil.copytree(proven, tmp_path / "runs")
        shutil.copytree(proven / "proven", runs / "odd")
        (runs / "odd" / "records.jsonl").unlink()
        os.mkfifo(runs / "odd" / "records.jsonl")
        code, _, stderr = typed("leaderboard", runs, "--out", tmp_path / "site")
        assert code == 11, stderr
        assert "odd/records.jsonl" in stderr

    def test_alone_it_makes_a_site(self, proven, tmp_path):
        page, notes = build_site(proven, tmp_path / "site")
        assert notes == []
        assert "certified-0" in page.read_text()

    def test_other_studies_beside_them_are_named_in_one_line(self, proven, tmp_path):
        runs = shutil.copytree(proven, tmp_path / "runs")
        for name in ("mine", "yours"):
            (runs / name).mkdir()
            (runs / name / "study.json").write_text('{"kind": "twin"}')
        page, (note,) = build_site(runs, tmp_path / "site")
        assert note.startswith("mine, yours: ")
        assert note in page.read_text()

    def test_what_is_unfinished_is_left_out(self, proven, tmp_path):
        runs = shutil.copytree(proven, tmp_path / "runs")
        drop(runs / "proven", lambda record: record.epsilon > 0.015)
        boards, (note,) = certified_boards([runs / "proven"])
        assert boards == []
        assert "not finished" in note
        with pytest.raises(ConfigError):
            build_site(runs, tmp_path / "site")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A finished study of three photographs with opinions: a metric without a defence, under noise, and purified."""
    folder = tmp_path_factory.mktemp("judged")
    names = ("coffee", "chelsea", "rocket")
    for name in names:
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:140, 100:148])
    rows = [f"{name}.png,{10 * (3 - number)},test\n" for number, name in enumerate(names)]
    (folder / "photos" / "mos.csv").write_text("path,mos,split\n" + "".join(rows))
    contenders = (
        Contender(defence="none"),
        Contender(defence="MS", smoothed=True),
        Contender(defence="flip", purifier="flip"),
    )
    study = CertifiedIqa(
        name="judged", metric="quality-s", images=str(folder / "photos"), contenders=contenders, samples=60,
        attacks=Attacks(images=1, linf=(), l2=(0.05,), steps=1),
    )  # fmt: skip
    answer(study, folder / "runs" / "judged", Machine())
    return folder / "runs"


def rows_of(table):
    names = [column.name for column in table.columns]
    return [{name: cell.value for name, cell in zip(names, row.cells, strict=True)} for row in table.rows]


def spread_around(middle, count=60):
    """Samples whose median is the middle, all within a fifth of it."""
    return tuple(middle - 0.1 + 0.2 * number / (count - 1) for number in range(count))


def sampled(record, samples):
    """A record with other samples, and the figures that follow from them, which no attack refutes."""
    if hasattr(record, "linf"):
        return dataclasses.replace(record, true_lower=None, true_upper=None)
    if record.smoothing is None:
        return record
    made = dataclasses.replace(record, samples=samples)
    low, high = made.interval(record.epsilon)
    return dataclasses.replace(made, score=sorted(samples)[(len(samples) - 1) // 2], lower=low, upper=high)


class TestMetrics:
    @pytest.fixture(autouse=True)
    def few_resamples(self, monkeypatch):
        monkeypatch.setattr(certified_scores, "RESAMPLES", 9)

    def test_proven_and_measured_stand_apart(self, judged, finished, tmp_path):
        both = shutil.copytree(judged, tmp_path / "runs")
        shutil.copytree(finished, both / "attacked")
        page, notes = build_site(both, tmp_path / "site")
        assert notes == []
        (board,), _ = score_boards([judged / "judged"])
        assert board.images == 3
        proven, measured = rows_of(board.certified), rows_of(board.measured)
        assert [(row["defence"], row["radius"]) for row in proven] == [("MS", f"{radius:g}") for radius in RADII]
        assert [row["defence"] for row in measured] == ["none", "MS", "flip"]
        for id in ("metrics-0", "metrics-0-measured", "board-0"):
            assert f'id="{id}"' in page.read_text()
        records = [one for one in Store(judged / "judged").read() if getattr(one, "smoothing", None)]
        for row in proven:
            bounds = [one.certificate.at(float(row["radius"]), ALPHA / 3) for one in records]
            widest = [max(b.upper - one.score, one.score - b.lower) for b, one in zip(bounds, records, strict=True)]
            assert row["\u03b4"] == pytest.approx(sum(widest) / 3)
            assert row["not bounded"] == sum(one.vacuous for one in bounds)
        assert proven[-1]["not bounded"] == 3
        assert proven[-1]["certified SROCC"] == -1

    @pytest.mark.parametrize("lower_better", [False, True])
    def test_what_is_certified_is_the_order_of_the_intervals(self, judged, tmp_path, lower_better):
        run = shutil.copytree(judged / "judged", tmp_path / "run")

        def ordered(record):
            if not hasattr(record, "mos"):
                return sampled(record, ())
            middle = 100 - record.mos if lower_better else record.mos
            scorer = record.scorer | {"lower_better": lower_better}
            return sampled(dataclasses.replace(record, scorer=scorer), spread_around(middle))

        edit(run, ordered)
        (board,), _ = score_boards([run])
        first = rows_of(board.certified)[0]
        assert (first["certified SROCC"], first["pairs in order"]) == (1, 100)
        assert 0 < first["\u03b4"] < 0.1

    def test_contradictions_and_refuted_ones_are_named_and_left_out(self, judged, tmp_path):
        forgeries = {
            "score": lambda r: dataclasses.replace(r, score=99.0),
            "median": lambda r: dataclasses.replace(r, samples=spread_around(99.0)),
            "lower": lambda r: dataclasses.replace(r, lower=r.score),
            "samples": lambda r: dataclasses.replace(r, samples=r.samples[1:]),
            "range": lambda r: sampled(r, spread_around(120.0)),
            "span": lambda r: dataclasses.replace(r, span=1e9),
            "radius": lambda r: dataclasses.replace(r, lengthening=1e-9),
            "size": lambda r: dataclasses.replace(r, size=(4, 4)),
            "finite": lambda r: dataclasses.replace(r, non_finite=1),
            "opinion": lambda r: dataclasses.replace(r, mos=None),
        }
        (honest,), _ = score_boards([judged / "judged"])
        for name, forge in forgeries.items():
            run = shutil.copytree(judged / "judged", tmp_path / name)
            edit(run, lambda r, forge=forge: forge(r) if getattr(r, "smoothing", None) else r)
            boards, (note,) = score_boards([run, judged / "judged"])
            assert note.startswith(f"{name}, MS (quality-s): "), note
            assert rows_of(boards[0].certified) == rows_of(honest.certified)
        run = shutil.copytree(judged / "judged", tmp_path / "refuted")
        edit(run, lambda r: dataclasses.replace(r, true_lower=99.0, true_upper=100.0) if hasattr(r, "linf") else r)
        assert "refute" in score_boards([run])[1][0]

    def test_folders_are_not_mixed(self, judged, tmp_path):
        again = shutil.copytree(judged / "judged", tmp_path / "again")
        boards, _ = score_boards([judged / "judged", again])
        assert [rows_of(one.certified) for one in boards] == [
            rows_of(one.certified) for one in score_boards([again])[0]
        ]
        edit(again, lambda r: sampled(r, spread_around(50.0)))
        (board,), notes = score_boards([judged / "judged", again])
        assert notes == []
        assert {row["defence"] for row in rows_of(board.certified)} == {"MS", "MS, again"}
        # Other opinions are another question.
        edit(again, lambda r: dataclasses.replace(r, mos=r.mos + 1) if hasattr(r, "mos") else r)
        assert len(score_boards([judged / "judged", again])[0]) == 2

    def test_what_is_unfinished_is_left_out(self, judged, tmp_path):
        runs = shutil.copytree(judged, tmp_path / "runs")
        drop(runs / "judged", lambda record: record.image == "coffee.png")
        boards, (note,) = score_boards([runs / "judged"])
        assert boards == []
        assert "not finished" in note

    def test_scores_that_are_not_finite_bound_nothing(self, judged, tmp_path):
        run = shutil.copytree(judged / "judged", tmp_path / "run")
        bad = {"score": None, "lower": None, "upper": None, "samples": (), "non_finite": 60, "safe_1": None}
        edit(run, lambda r: dataclasses.replace(r, **bad) if getattr(r, "smoothing", None) else r)
        (board,), notes = score_boards([run])
        assert notes == []
        assert {row["certified SROCC"] for row in rows_of(board.certified)} == {-1}
        assert rows_of(board.measured)[1]["SROCC"] == "not finite"
