"""The page and the Markdown of a study of attacks: what is on it, in which order, and what is missing."""

import dataclasses
import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from plotly import graph_objects
from small import edit, grid, network, tiny
from typer.testing import CliRunner

from resolute.attacks.registry import AttackTable
from resolute.cli.app import app
from resolute.engine.running import Machine, run
from resolute.engine.store import Store
from resolute.errors import ConfigError, ModelWarning, OutputError
from resolute.figures import DASH, INFINITY, MINUS
from resolute.images import sample_image, write_png
from resolute.models import python_file
from resolute.report import write_report
from resolute.report.page import checks_of
from resolute.report.reading import read_folder, read_kinds
from resolute.studies.faithful import Faithful
from resolute.studies.grid import Grid
from resolute.studies.summary import compare, standings, summarize, worst_case
from resolute.studies.verdicts import sentences_of

SECTIONS = ["verdict", "pictures", "figures", "curves", "gallery", "making"]


class Page(HTMLParser):
    """A page as a browser would take it apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self._inside = ""
        self._in_cell = False
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._inside = ""
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words += data
            if self._in_cell and self._inside != "small":
                self.rows[-1][-1] += data.strip()

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]

    @property
    def notes(self) -> str:
        return " ".join(self.html.split('class="note">')[1:])

    @property
    def data(self):
        return json.loads(self.scripts[0])

    def values(self, *columns: str) -> list[list[str]]:
        """Return rows that hold these texts, besides others."""
        return [cells for cells in self.rows if set(columns) <= set(cells)]


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The records and pictures of a finished study, to be changed at will."""
    folder = tmp_path / "run"
    for file in finished.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(finished)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def page(finished, tmp_path_factory) -> Page:
    return Page(write_report([finished], tmp_path_factory.mktemp("page") / "report.html"))


def test_the_verdict_comes_first_and_the_rest_in_order(page, finished):
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    said = page.html.split('id="verdict"')[1].split("</section>")[0]
    for sentence in sentences_of(Store(finished).read(), {"tiny-entropy": "tiny"}):
        assert html.escape(sentence, quote=False) in said


def test_it_is_one_file_that_needs_no_network(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, value)
    assert "default-src 'none'" in page.html
    assert "url(" not in page.html.split("</style>")[0]
    assert len(page.html) < 10_000_000
    assert len(page.scripts) == 3


def test_the_table_holds_every_mean(page, finished):
    records = Store(finished).read()
    for row in summarize(records):
        assert any(
            f"{row.level:g}/255" in cells and f"{row.sr_psnr:.2f}" in cells and f"{row.lr_psnr:.2f}" in cells
            for cells in page.rows
        )
    for row in summarize(worst_case(records)):
        assert page.values(row.model, "worst case", f"{row.level:g}/255", f"{row.sr_psnr:.2f}")


def test_the_comparison_holds_every_interval(page, finished):
    records = Store(finished).read()
    for found in (*compare(records, "tiny", "tiny-entropy"), *compare(worst_case(records), "tiny", "tiny-entropy")):
        gain = found.sr.shown()
        text = f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]".replace("-", MINUS).replace("+0.00", "0.00")
        assert any(cell.startswith(text) for cells in page.rows for cell in cells)


def test_plotly_accepts_every_figure(page):
    figures = [*page.data["charts"].values(), *(c["figure"] for case in page.data["cases"] for c in case["charts"])]
    assert len(figures) == 8 + 8 * 2
    for figure in figures:
        graph_objects.Figure(figure)
    assert set(page.data["charts"]) <= set(page.ids)


def test_cases_start_with_the_worst_and_have_all_views(page, finished):
    cases = page.data["cases"]
    worst = min((r for r in Store(finished).read() if r.model != "bicubic"), key=lambda record: record.sr_psnr)
    first = cases[0]["filters"]
    assert (first["image"], first["budget"]) == (worst.image, f"{worst.epsilon * 255:g}/255")
    assert len({tuple(case["filters"].values()) for case in cases}) == 2 * 2 * 2
    for case in cases:
        assert case["filters"]["models"] == "tiny | tiny-entropy"
        assert len(case["views"]) == 2 + 2 * 4 + 2 * 3
        assert len(case["charts"]) == 2
        assert all(page.data["pictures"][v["picture"]].startswith("data:image/webp;base64,") for v in case["views"])


def test_two_reports_are_equal(finished, page, tmp_path):
    assert write_report([finished], tmp_path / "again.html").read_text(encoding="utf-8") == page.html


def test_hostile_names_stay_names(copied, tmp_path):
    image, model = "<script>alert(1)</script>", "a\"b'c</script><img src=x onerror=alert(2)>"
    edit(copied, lambda r: dataclasses.replace(r, model=r.model.replace("tiny", model), image=image + r.image))
    facts = json.loads((copied / "study.json").read_text())
    facts["study"]["name"] = "<svg onload=alert(3)>"
    facts["provenance"]["command"] = "<b onmouseover=alert(4)>"
    (copied / "study.json").write_text(json.dumps(facts))
    page = Page(write_report([copied], tmp_path / "report.html"))
    assert len(page.scripts) == 3
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any("alert" in script for script in page.scripts[2:])
    for name in (image, model, facts["study"]["name"], facts["provenance"]["command"]):
        assert name in page.words
    trace = next(trace for trace in page.data["charts"]["budget-0"]["data"] if "name" in trace)
    assert trace["name"] == html.escape(model, quote=False)


def test_an_image_file_may_be_called_anything(tmp_path):
    study = grid(tmp_path, models=("tiny",))
    (tmp_path / "photos" / "coffee.png").rename(tmp_path / "photos" / "<svg onload=alert(1)> \udcff'\".png")
    run(study, tmp_path / "run", Machine())
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "svg" not in dict(page.tags)
    assert {case["filters"]["image"] for case in page.data["cases"]} == {"chelsea", "<svg onload=alert(1)> \udcff'\""}


def test_missing_and_infinite_figures_are_marked(copied, tmp_path):
    unmoved = {"sr_psnr": None, "lr_psnr": None, "attacked_psnr_y": None, "clean_psnr_y": None, "sr_ssim": None}
    edit(copied, lambda r: dataclasses.replace(r, **unmoved) if r.attack == "fda" else r)
    page = Page(write_report([copied], tmp_path / "report.html"))
    assert ["tiny", "FDA", "4/255", DASH, INFINITY, INFINITY, DASH, DASH, "2"] in page.rows
    assert "2 unmoved" in page.words
    assert not re.search(r"[\[:,]\s*NaN", page.scripts[0]), "a picture in base64 may hold the letters"
    assert page.data["charts"]["budget-1"]["data"][0]["y"] == [None, None]


def test_nothing_moved_at_all(copied, tmp_path):
    edit(copied, lambda r: dataclasses.replace(r, sr_psnr=None, lr_psnr=None))
    page = Page(write_report([copied], tmp_path / "report.html"))
    assert all(INFINITY in cells for cells in page.values("I-FGSM", "4/255", "2"))


def test_without_ground_truth(tmp_path):
    study = dataclasses.replace(grid(tmp_path), high_resolution=False, crop=16)
    run(study, tmp_path / "run", Machine())
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert not any(id.startswith("overview") for id in page.ids)
    assert not any(view["label"] == "ground truth" for case in page.data["cases"] for view in case["views"])


def test_without_a_pair_the_most_fragile_is_described(copied, tmp_path):
    edit(copied, lambda r: dataclasses.replace(r, model=r.model.replace("tiny-entropy", "other"), defends=""))
    page = Page(write_report([copied], tmp_path / "report.html"))
    assert "way to bicubic closed" not in page.words
    assert {case["filters"]["models"] for case in page.data["cases"]} == {"tiny", "other"}


def test_two_folders_are_merged(tmp_path):
    study = grid(tmp_path, models=("tiny", "tiny-entropy"))
    for number, image in enumerate(("chelsea", "coffee")):
        part = dataclasses.replace(study, images=(str(tmp_path / "photos" / f"{image}.png"),), name=f"part {number}")
        run(part, tmp_path / str(number), Machine())
    page = Page(write_report([tmp_path / "0", tmp_path / "1"], tmp_path / "report.html"))
    assert "part 0, part 1" in page.words
    assert len(page.data["cases"]) == 8
    assert page.notes.count("told apart") == 0
    assert page.values("tiny", "FDA", "4/255", "2")
    assert set(SECTIONS) <= set(page.ids)


def test_the_same_folder_twice_is_one(finished, page, tmp_path):
    again = Page(write_report([finished, finished], tmp_path / "report.html"))
    assert again.rows == page.rows


def test_one_name_for_two_things_is_told_apart(copied, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    study = grid(other, seed=5)
    run(dataclasses.replace(study, crop=40, attacks=(AttackTable(kind="ifgsm", steps=1),)), other / "run", Machine())
    (evidence,) = read_kinds([copied, other / "run"])
    assert {record.model for record in evidence.records} == {
        "tiny", "tiny (2)", "tiny-entropy", "tiny-entropy (2)", "bicubic",
    }  # fmt: skip
    assert {record.attack for record in evidence.records} == {"ifgsm", "ifgsm (2)", "fda"}
    assert {record.image for record in evidence.records} == {"chelsea", "chelsea (2)", "coffee", "coffee (2)"}
    page = Page(write_report([copied, other / "run"], tmp_path / "report.html"))
    assert page.notes.count("told apart") == 5


def test_a_model_that_does_not_upscale_is_named_where_there_is_no_truth(photos, tmp_path):
    torch.save(network(scale=4, blocks=1).state_dict(), tmp_path / "wrong.pth")
    study = Faithful(
        name="faithful", models=("edsr-xs", str(tmp_path / "wrong.pth")), high_resolution=False,
        images=(str(photos / "coffee.png"),), crop=16,
    )  # fmt: skip
    with pytest.warns(ModelWarning, match=r"wrong\.pth does not upscale"):
        run(study, tmp_path / "run")
    (note,) = read_folder(tmp_path / "run").notes
    assert note.startswith("wrong.pth does not upscale")
    assert note in html.unescape(write_report([tmp_path / "run"], tmp_path / "page.html").read_text("utf-8"))


def test_a_missing_model_gives_a_note(tmp_path):
    run(grid(tmp_path), tmp_path / "run", Machine())
    (tmp_path / "tiny-entropy.safetensors").rename(tmp_path / "moved.safetensors")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert re.search(r"\b8 cases [^.]* tiny-entropy\b", page.notes)
    assert page.data["cases"] == []


def test_a_changed_model_gives_a_note(tmp_path):
    run(grid(tmp_path), tmp_path / "run", Machine())
    tiny(tmp_path / "tiny.safetensors", "tiny", seed=9)
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert re.search(r"\b8 cases [^.]* tiny ", page.notes)
    assert page.data["cases"] == []


def test_a_changed_image_gives_a_note(tmp_path):
    run(grid(tmp_path), tmp_path / "run", Machine())
    write_png(tmp_path / "photos" / "coffee.png", torch.rand(3, 48, 48))
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert re.search(r"\b4 cases [^.]* coffee ", page.notes)
    assert {case["filters"]["image"] for case in page.data["cases"]} == {"chelsea"}


def test_missing_images_leave_the_figures(tmp_path):
    run(grid(tmp_path, models=("tiny",)), tmp_path / "run", Machine())
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "be shown: " in page.notes
    assert page.data["cases"] == []
    assert page.data["charts"]


def test_a_missing_attacked_image_gives_a_note(copied, tmp_path):
    files = [copied / record.files[0] for record in Store(copied).read() if record.image == "coffee"]
    for file in files:
        file.unlink()
    write_png(files[0], torch.rand(3, 5, 5))
    page = Page(write_report([copied], tmp_path / "report.html"))
    assert "be shown: " in page.notes
    assert {case["filters"]["image"] for case in page.data["cases"]} == {"chelsea"}


def test_a_file_cannot_lead_out_of_the_folder(copied, tmp_path):
    for file in (copied / "attacked").glob("*.png"):
        file.rename(tmp_path / file.name)
    lines = (copied / "records.jsonl").read_text().replace('"attacked/', '"../')
    (copied / "records.jsonl").write_text(lines)
    with pytest.raises(ConfigError, match=r"records\.jsonl"):
        write_report([copied], tmp_path / "report.html")


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"study": {"name": 3}, "provenance": []}'])
def test_a_damaged_study_is_named(copied, tmp_path, content):
    (copied / "study.json").unlink()
    if content is not None:
        (copied / "study.json").write_text(content)
    with pytest.raises(ConfigError, match=r"run/study\.json"):
        write_report([copied], tmp_path / "report.html")


def test_built_in_names_and_samples_are_found(tmp_path):
    study = Grid(name="samples", models=("bicubic", "edsr-s"), attacks=(AttackTable(kind="fgsm"),), epsilons=(8,),
                  every=4, crop=48)  # fmt: skip
    run(study, tmp_path / "run", Machine())
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert {(case["filters"]["models"], case["filters"]["image"]) for case in page.data["cases"]} == {
        ("edsr-s", "astronaut"), ("edsr-s", "rocket"),
    }  # fmt: skip


def test_pictures_are_limited_in_number_and_size(tmp_path):
    study = dataclasses.replace(grid(tmp_path, models=("tiny",)), high_resolution=False)
    write_png(tmp_path / "photos" / "wide.png", sample_image("rocket")[:, :50, :200])
    run(study, tmp_path / "run", Machine())
    cases = Page(write_report([tmp_path / "run"], tmp_path / "report.html")).data["cases"]
    assert len(cases) == 12
    wide = [case for case in cases if case["filters"]["image"] == "wide"]
    assert all((case["width"], case["height"]) == (384, 200) for case in wide)


def test_the_page_is_no_larger_than_asked(finished, page, tmp_path):
    whole = len(page.html.encode())
    assert whole < 10_000_000
    assert "--megabytes" not in page.notes
    pictures = sum(map(len, page.data["pictures"]))
    limit = (whole - pictures / 2) / 1_000_000
    half = Page(write_report([finished], tmp_path / "half.html", megabytes=limit))
    assert whole - pictures < len(half.html.encode()) <= limit * 1_000_000
    assert 0 < len(half.data["cases"]) < len(page.data["cases"])
    assert f"the {8 - len(half.data['cases'])} mildest of 8 cases" in half.notes
    none = Page(write_report([finished], tmp_path / "none.html", megabytes=0.1))
    assert none.data["cases"] == none.data["pictures"] == []
    assert "8 cases" in none.notes


def test_every_curve_has_the_band_of_the_leaderboard(finished, page):
    board = {(s.model, s.attack, s.level): s.sr for s in standings(Store(finished).read())}
    for chart, attack in (("budget-0", "ifgsm"), ("budget-1", "fda")):
        bands = [trace for trace in page.data["charts"][chart]["data"] if trace.get("fill") == "toself"]
        assert [trace["legendgroup"] for trace in bands] == ["tiny", "tiny-entropy", "bicubic"]
        for trace in bands:
            ends = [board[trace["legendgroup"], attack, level] for level in (4, 16)]
            expected = [ends[0].high, ends[1].high, ends[1].low, ends[0].low]
            assert trace["y"] == pytest.approx(expected, abs=1e-3)


def test_the_leaderboard_holds_every_mean_and_interval(page, finished):
    for standing in standings(Store(finished).read()):
        cell = f"{standing.sr.mean:.2f}<small>[{standing.sr.low:.2f}, {standing.sr.high:.2f}]</small>"
        rows = [row for row in page.html.split("<tr>") if f">{standing.model}<" in row and cell in row]
        assert any(f">{standing.level:g}/255<" in row for row in rows)


def test_hashes_of_models_are_there(page, finished):
    for record in Store(finished).read():
        assert record.weights in page.html


def test_empty_studies_say_what_to_do(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"^.*\bempty;[^\n]*$"):
        write_report([finished, tmp_path / "empty"], tmp_path / "report.html")
    with pytest.raises(ConfigError, match="name one"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_an_error_of_the_output(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report([finished], tmp_path / "file" / "report.html")


def test_a_report_of_another_form_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"report.pdf ends in neither .html nor .md"):
        write_report([finished], tmp_path / "report.pdf")


@pytest.mark.filterwarnings("ignore:the code in")
def test_a_page_runs_no_code_that_a_folder_names(tmp_path, monkeypatch, photos):
    code = "from pathlib import Path\nfrom torch import nn\nPath({!r}).touch()\n" + (
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))\n"
    )
    proof, file = tmp_path / "proof", tmp_path / "net.py"
    file.write_text(code.format(str(proof)))
    study = Grid(
        name="code",
        models=(f"{file}:Net#x2",),
        attacks=(AttackTable(kind="fgsm"),),
        epsilons=(4.0,),
        images=(str(photos),),
        scale=2,
        crop=16,
    )
    run(study, tmp_path / "run", Machine())
    assert proof.exists()
    # As another process would see it.
    proof.unlink()
    monkeypatch.setattr(python_file, "_run", set())
    assert "be shown" in write_report([tmp_path / "run"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert not proof.exists()


def test_the_command_for_a_check_can_be_pasted(tmp_path, monkeypatch):
    folder = tmp_path / "my models"
    study = dataclasses.replace(grid(folder, models=("tiny", "bicubic")), epsilons=(4,))
    run(dataclasses.replace(study, attacks=study.attacks[:1]), tmp_path / "run", Machine())
    (command,) = checks_of(read_folder(tmp_path / "run"))
    assert html.escape(command) in write_report([tmp_path / "run"], tmp_path / "a.html").read_text().replace(
        "&#39;", "&#x27;"
    )
    assert command in write_report([tmp_path / "run"], tmp_path / "a.md").read_text()
    program, *arguments = shlex.split(command)
    assert program == "resolute"
    seen = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr("resolute.cli.studying.run_study", lambda plan, place, *_: seen.append((plan, place)))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert {cell.like[0] for cell in seen[0][0].cells} == {"tiny"}
    assert Path(seen[0][1].folder) == tmp_path / "run" / "check"
    (tmp_path / "run" / "check").mkdir()
    assert checks_of(read_folder(tmp_path / "run")) == []
