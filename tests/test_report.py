import dataclasses
import html
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from plotly import graph_objects
from resolute.report.material import Material
from resolute.report.pictures import gallery
from resolute.report.source import read_folders
from resolute.report.tables import find_pairs, most_fragile
from small import rewrite

from resolute.attacks.registry import AttackTable
from resolute.engine.store import Store
from resolute.errors import ConfigError, OutputError
from resolute.images import read_image, sample_image, write_png
from resolute.models import python_file
from resolute.models.base import Card
from resolute.models.edsr import EDSR
from resolute.models.weights import save_model
from resolute.report import write_report
from resolute.studies.grid import Grid
from resolute.studies.standings import standings
from resolute.studies.summary import compare, summarize, worst_case
from resolute.studies.verdicts import verdict

SECTIONS = ["verdict", "board", "figures", "comparison", "curves", "pictures", "features", "flags", "making"]


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

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words += data
            if self._inside in ("td", "th"):
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


def tiny_model(path: Path, name: str, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = EDSR(scale=4, blocks=1, channels=4, upsampler="direct")
    save_model(model, path, Card(name=name, architecture=model.arguments(), scale=4, licence="MIT"))
    return path


def tiny_study(
    folder: Path, models: tuple[str, ...] = ("tiny", "tiny-entropy", "bicubic"), name: str = "small", seed: int = 0
) -> Study:
    """Return a study of small crops and models, all of whose files lie in ``folder``."""
    for image in ("chelsea", "coffee"):
        write_png(folder / "photos" / f"{image}.png", sample_image(image)[:, 100:148, 200:248])
    files = [
        model if model == "bicubic" else str(tiny_model(folder / f"{model}.safetensors", model, seed + number))
        for number, model in enumerate(models)
    ]
    return Grid(
        name=name,
        models=tuple(files),
        attacks=(AttackTable(kind="ifgsm", steps=2), AttackTable(kind="fda", steps=2)),
        epsilons=(4, 16),
        images=(str(folder / "photos"),),
    )


def edit(folder: Path, change: Callable[[Record], Record]) -> None:
    """Rewrite the records of a folder."""
    rewrite(folder, [change(record) for record in Store(folder).read()])


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A finished study; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    tiny_study(folder).run(folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> Path:
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
    assert html.escape(verdict(Store(finished).read(), "tiny", "tiny-entropy"), quote=False) in page.html
    assert page.words.index("an SR-PSNR of") < page.words.index("All figures")


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
        assert any(f"{row.sr_psnr:.2f}" in cells for cells in page.rows)


def test_the_comparison_holds_every_interval(page, finished):
    records = Store(finished).read()
    for found in (*compare(records, "tiny", "tiny-entropy"), *compare(worst_case(records), "tiny", "tiny-entropy")):
        text = f"{found.sr.mean:+.2f} [{found.sr.low:+.2f}, {found.sr.high:+.2f}]".replace("-", "\u2212")
        assert any(cell.startswith(text) for cells in page.rows for cell in cells)


def test_plotly_accepts_every_figure(page):
    figures = [*page.data["charts"].values(), *(f["histogram"] for c in page.data["cases"] for f in c["features"])]
    assert len(figures) == 6 + 8 * 2
    for figure in figures:
        graph_objects.Figure(figure)
    assert set(page.data["charts"]) <= set(page.ids)


def test_cases_start_with_the_worst_and_have_all_views(page, finished):
    cases = page.data["cases"]
    worst = min((r for r in Store(finished).read() if r.model != "bicubic"), key=lambda record: record.sr_psnr)
    assert (cases[0]["image"], cases[0]["budget"]) == (worst.image, f"{worst.epsilon * 255:g}/255")
    assert len({(c["image"], c["attack"], c["budget"]) for c in cases}) == 2 * 2 * 2
    for case in cases:
        assert case["models"] == "tiny | tiny-entropy"
        assert len(case["views"]) == 2 + 2 * 4
        assert all(page.data["pictures"][v["picture"]].startswith("data:image/webp;base64,") for v in case["views"])


def test_two_reports_are_equal(finished, page, tmp_path):
    assert write_report([finished], tmp_path / "again.html").read_text(encoding="utf-8") == page.html


def test_hostile_names_stay_names(run, tmp_path):
    image, model = "<script>alert(1)</script>", "a\"b'c</script><img src=x onerror=alert(2)>"
    edit(run, lambda r: dataclasses.replace(r, model=r.model.replace("tiny", model), image=image + r.image))
    facts = json.loads((run / "study.json").read_text())
    facts["study"]["name"] = "</title><script>alert(3)</script>"
    facts["provenance"]["command"] = "<b onmouseover=alert(4)>"
    (run / "study.json").write_text(json.dumps(facts))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert len(page.scripts) == 3
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not any("alert" in script for script in page.scripts[2:])
    for name in (image, model, facts["study"]["name"], facts["provenance"]["command"]):
        assert name in page.words
    trace = next(trace for trace in page.data["charts"]["budget-0"]["data"] if "name" in trace)
    assert trace["name"] == html.escape(model, quote=False)


def test_an_image_file_may_be_called_anything(tmp_path):
    study = tiny_study(tmp_path, models=("tiny",))
    (tmp_path / "photos" / "coffee.png").rename(tmp_path / "photos" / "<svg onload=alert(1)> \udcff'\".png")
    run(study, tmp_path / "run")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "svg" not in dict(page.tags)
    assert "<svg onload=alert(1)> ?'\"" in page.words
    assert {case["image"] for case in page.data["cases"]} == {"chelsea", "<svg onload=alert(1)> \udcff'\""}


def test_missing_and_infinite_figures_are_marked(run, tmp_path):
    unmoved = {"sr_psnr": None, "lr_psnr": None, "attacked_psnr_y": None, "clean_psnr_y": None, "sr_ssim": None}
    edit(run, lambda r: dataclasses.replace(r, **unmoved) if r.attack == "fda" else r)
    page = Page(write_report([run], tmp_path / "report.html"))
    assert ["4/255", "\u2013", "\u221e", "\u221e", "\u2013", "\u2013", "2"] in page.rows
    assert "2 unmoved" in page.words
    assert "NaN" not in page.scripts[0]
    assert page.data["charts"]["budget-1"]["data"][0]["y"] == [None, None]


def test_nothing_moved_at_all(run, tmp_path):
    edit(run, lambda r: dataclasses.replace(r, sr_psnr=None, lr_psnr=None))
    words = Page(write_report([run], tmp_path / "report.html")).words
    assert "cannot be compared" in words
    edit(run, lambda r: dataclasses.replace(r, model="only"))
    assert "no attack moved any output" in Page(write_report([run], tmp_path / "report.html")).words


def test_without_ground_truth(tmp_path):
    study = dataclasses.replace(tiny_study(tmp_path), high_resolution=False, crop=16)
    run(study, tmp_path / "run")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "no ground truth" in page.words
    assert not any(view["label"] == "ground truth" for case in page.data["cases"] for view in case["views"])


def test_without_a_pair_the_most_fragile_is_described(run, tmp_path):
    edit(run, lambda r: dataclasses.replace(r, model=r.model.replace("tiny-entropy", "other")))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "the most fragile model is" in page.words
    assert "No defended version" in page.words
    assert "comparison" not in page.ids
    assert {case["models"] for case in page.data["cases"]} == {"tiny", "other"}


def test_bicubic_alone_has_no_pictures(run, tmp_path):
    edit(run, lambda r: dataclasses.replace(r, model="bicubic", weights=""))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "the most fragile model is bicubic" in page.words
    assert page.data["cases"] == []


def test_two_folders_are_merged(tmp_path):
    study = tiny_study(tmp_path, models=("tiny", "tiny-entropy"))
    for number, model in enumerate(study.models):
        run(dataclasses.replace(study, models=(model,), name=f"part {number}"), tmp_path / str(number))
    page = Page(write_report([tmp_path / "0", tmp_path / "1"], tmp_path / "report.html"))
    assert "part 0, part 1" in page.words
    assert len(page.data["cases"]) == 8
    assert page.notes.count("told apart") == 0
    assert "tiny-entropy keeps an SR-PSNR" in page.words


def test_the_same_folder_twice_is_one(finished, page, tmp_path):
    again = Page(write_report([finished, finished], tmp_path / "report.html"))
    assert again.rows == page.rows


def test_one_name_for_two_things_is_told_apart(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    study = tiny_study(other, seed=5)
    run(dataclasses.replace(study, crop=40, attacks=(AttackTable(kind="ifgsm", steps=1),)), other / "run")
    evidence = read_folders([run, other / "run"])
    assert {record.model for record in evidence.records} == {
        "tiny", "tiny (2)", "tiny-entropy", "tiny-entropy (2)", "bicubic",
    }  # fmt: skip
    assert {record.attack for record in evidence.records} == {"ifgsm", "ifgsm (2)", "fda"}
    assert {record.image for record in evidence.records} == {"chelsea", "chelsea (2)", "coffee", "coffee (2)"}
    page = Page(write_report([run, other / "run"], tmp_path / "report.html"))
    assert page.notes.count("told apart") == 5
    assert "tiny-entropy (2) against tiny (2)." in page.words
    assert {case["models"] for case in page.data["cases"]} == {"tiny | tiny-entropy", "tiny (2) | tiny-entropy (2)"}


def test_a_defended_model_has_the_name_of_the_plain_one_and_a_suffix():
    assert find_pairs(["a", "a-b", "a-b (2)", "ab"]) == [("a", "a-b"), ("a", "a-b (2)")]


def test_a_missing_model_gives_a_note(tmp_path):
    tiny_study(tmp_path).run(tmp_path / "run")
    moved = (tmp_path / "tiny-entropy.safetensors").rename(tmp_path / "moved.safetensors")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "The weights of tiny-entropy" in page.notes
    assert page.data["cases"] == []
    found = Page(write_report([tmp_path / "run"], tmp_path / "report.html", models=[moved]))
    assert len(found.data["cases"]) == 8
    assert "The weights" not in found.notes


def test_a_changed_model_gives_a_note(tmp_path):
    tiny_study(tmp_path).run(tmp_path / "run")
    tiny_model(tmp_path / "tiny.safetensors", "tiny", seed=9)
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "The weights of tiny " in page.notes
    assert page.data["cases"] == []


def test_a_changed_image_gives_a_note(tmp_path):
    tiny_study(tmp_path).run(tmp_path / "run")
    write_png(tmp_path / "photos" / "coffee.png", torch.rand(3, 48, 48))
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "The image coffee is not where" in page.notes
    assert {case["image"] for case in page.data["cases"]} == {"chelsea"}


def test_missing_images_leave_the_figures(tmp_path):
    tiny_study(tmp_path, models=("tiny",)).run(tmp_path / "run")
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert "The image coffee is not where" in page.notes
    assert "There are no pictures to show" in page.words
    assert page.data["charts"]


def test_a_missing_attacked_image_gives_a_note(run, tmp_path):
    keys = {record.key for record in Store(run).read() if record.image == "coffee"}
    first, *_ = sorted(keys)
    for key in keys:
        (run / "attacked" / f"{key}.png").unlink()
    write_png(run / "attacked" / f"{first}.png", torch.rand(3, 5, 5))
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "An attacked image of coffee is missing from run/attacked" in page.notes
    assert {case["image"] for case in page.data["cases"]} == {"chelsea"}


def test_a_key_cannot_lead_out_of_the_folder(run, tmp_path):
    for file in (run / "attacked").glob("*.png"):
        file.rename(tmp_path / file.name)
    edit(run, lambda r: dataclasses.replace(r, key=f"../../{r.key}"))
    assert all(read_image(Store(run).image_path(r.key)).numel() for r in Store(run).read())
    page = Page(write_report([run], tmp_path / "report.html"))
    assert page.data["cases"] == []
    assert "is missing" in page.notes


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"study": {"name": 3}, "provenance": []}'])
def test_without_the_study_the_figures_remain(run, tmp_path, content):
    (run / "study.json").unlink()
    if content is not None:
        (run / "study.json").write_text(content)
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "run/study.json is missing" in page.notes
    assert "not recorded" in page.words
    assert any("tiny" in cells for cells in page.rows)


def test_an_unfinished_study_says_so(run, tmp_path, page):
    assert "unfinished" not in page.words
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(lines[:-3]))
    assert "unfinished" in Page(write_report([run], tmp_path / "report.html")).words


def test_built_in_names_and_samples_are_found(tmp_path):
    study = Grid(name="samples", models=("bicubic", "edsr-s"), attacks=(AttackTable(kind="fgsm"),), epsilons=(8,),
                  every=4, crop=48)  # fmt: skip
    run(study, tmp_path / "run")
    page = Page(write_report([tmp_path / "run"], tmp_path / "report.html"))
    assert {(case["models"], case["image"]) for case in page.data["cases"]} == {
        ("edsr-s", "astronaut"), ("edsr-s", "rocket"),
    }  # fmt: skip
    assert "licence" in page.words


def test_pictures_are_limited_in_number_and_size(tmp_path):
    study = dataclasses.replace(tiny_study(tmp_path, models=("tiny",)), high_resolution=False)
    write_png(tmp_path / "photos" / "wide.png", sample_image("rocket")[:, :50, :200])
    run(study, tmp_path / "run")
    evidence = read_folders([tmp_path / "run"])
    none = gallery(evidence, Material(evidence), max_bytes=0)
    assert none.cases == []
    assert none.album.uris == []
    assert any("all 12 cases are left out" in note for note in none.notes)
    few = gallery(evidence, Material(evidence), max_bytes=200_000)
    assert 0 < len(few.cases) < 12
    assert any(f"the {12 - len(few.cases)} mildest of 12 cases are left out" in note for note in few.notes)
    assert few.album.size <= 200_000
    assert len(few.album.uris) == len({*few.album.uris})
    one = gallery(evidence, Material(evidence), max_images=1)
    assert len({case.image for case in one.cases}) == 1
    wide = [case for case in gallery(evidence, Material(evidence)).cases if case.image == "wide"]
    assert all((case.width, case.height) == (384, 200) for case in wide)
    assert gallery(evidence, Material(evidence)).cropped


def test_the_page_is_no_larger_than_asked(finished, page, tmp_path):
    whole = len(page.html.encode())
    assert whole < 10_000_000
    assert "--megabytes" not in page.notes
    pictures = sum(map(len, page.data["pictures"]))
    limit = (whole - pictures / 2) / 1_000_000
    half = Page(write_report([finished], tmp_path / "half.html", megabytes=limit))
    assert whole - pictures < len(half.html.encode()) <= limit * 1_000_000
    assert 0 < len(half.data["cases"]) < len(page.data["cases"])
    assert "A larger --megabytes shows more." in half.notes
    none = Page(write_report([finished], tmp_path / "none.html", megabytes=0.1))
    assert none.data["cases"] == none.data["pictures"] == []
    assert "all 8 cases are left out" in none.notes


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
        attributes = f'data-attack="{standing.attack}" data-level="{standing.level:g}">'
        row = next(
            row for row in page.html.split("<tr data-set=")[1:] if attributes in row and f">{standing.model}<" in row
        )
        assert cell in row.split("</tr>")[0]


def test_hashes_of_models_and_images_are_there(page, finished):
    for record in Store(finished).read():
        assert record.pixels in page.html
        assert record.weights in page.html


def test_empty_studies_say_what_to_do(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"^no records in .*empty; run a study into that folder first[^\n]*$"):
        write_report([finished, tmp_path / "empty"], tmp_path / "report.html")
    with pytest.raises(ConfigError, match="name one"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_an_error_of_the_output(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report([finished], tmp_path / "file" / "report.html")


def test_the_most_fragile_may_have_no_truth(finished):
    records = [dataclasses.replace(r, clean_psnr_y=None) for r in Store(finished).read() if r.image == "coffee"]
    text = most_fragile(records)
    assert "on average over one image" in text
    assert "ground truth" not in text


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
    run(study, tmp_path / "run")
    assert proof.exists()
    # As another process would see it.
    proof.unlink()
    monkeypatch.setattr(python_file, "_run", set())
    assert "left out" in write_report([tmp_path / "run"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert not proof.exists()
