"""The study of DMS-IQA: what it computes, goes on with, concludes, prints and draws."""

import dataclasses
import json
import shutil

import pytest
import torch
from resolute.report.certified_iqa import iqa_markdown, iqa_page
from resolute.studies.store import read_lines
from test_cli import fails, run
from test_report_browser import Watched

from resolute import Card, ConfigError, QualityNet, UNet
from resolute.errors import RefutedError
from resolute.images import sample_image, write_png
from resolute.measure import agreement_of
from resolute.models.weights import save_model
from resolute.report.assets import plotting_library
from resolute.report.comparison import compare_folders
from resolute.studies import certified_iqa_summary
from resolute.studies.certified_iqa import ATTACKS, CERTIFICATES, Attacks, CertifiedIqa, Contender
from resolute.studies.certified_iqa_summary import Results, compare, order, shifts, standings
from resolute.studies.kinds import read_study
from resolute.terminal import compare_defences

NAMES = ("coffee", "chelsea", "rocket", "astronaut", "motorcycle")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iqa")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, denoiser = QualityNet(widths=(8, 8), hidden=4), UNet((8, 8))
        torch.nn.init.normal_(denoiser.last.weight, std=0.02)
    save_model(net, folder / "tiny.safetensors", net.describe("tiny", licence="MIT"))
    card = Card(name="front", architecture=denoiser.arguments(), scale=1, licence="MIT")
    save_model(denoiser, folder / "front.safetensors", card)
    lines = ["path,mos,split"]
    for index, name in enumerate(NAMES):
        write_png(folder / "photos" / f"{name}.png", sample_image(name)[:, 100:140, 100:148])
        lines.append(f"{name}.png,{20 * index},{'train' if index == 4 else 'test'}")
    (folder / "photos" / "mos.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    # Of four images no logistic curve is to be had, and to find that out takes long.
    def quick(*arguments, resamples):
        return agreement_of(*arguments, resamples=min(resamples, 10))

    monkeypatch.setattr(certified_iqa_summary, "agreement_of", quick)


def plan(place, **changes):
    front = str(place / "front.safetensors")
    contenders = (
        Contender(defence="undefended"),
        Contender(defence="MS", smoothed=True),
        Contender(defence="DMS", smoothed=True, denoiser=front),
        Contender(defence="<b>JPEG</b>", purifier="jpeg-50"),
    )
    attacks = Attacks(images=2, linf=(4,), l2=(0.05, 2.0), steps=2, draws=2)
    options = {"metric": str(place / "tiny.safetensors"), "images": str(place / "photos"), "samples": 60}
    options |= {"contenders": contenders, "order": ("MS", "DMS"), "attacks": attacks, "name": "small"}
    return CertifiedIqa(**options | changes)


@pytest.fixture(scope="module")
def done(place):
    plan(place).run(place / "out")
    return place / "out"


def untimed(path):
    return {row["key"]: {k: v for k, v in row.items() if k != "seconds"} for row in read_lines(path)}


def test_each_contender_scores_each_image_once(done, place):
    rows = read_lines(done / CERTIFICATES)
    assert len(rows) == 4 * 4
    assert {row["image"] for row in rows} == {f"{name}.png" for name in NAMES[:4]}
    for row in rows:
        assert row["certified"] == (row["contender"] in ("MS", "DMS"))
        if row["certified"]:
            assert row["lower"] <= row["score"] <= row["upper"]
            assert row["reach"] >= 0.05
        if row["bare"]:
            assert row["score"] == row["undefended"]
    seen = []
    plan(place).run(done, progress=lambda taken, total, _title: seen.append((taken, total)))
    assert len(read_lines(done / CERTIFICATES)) == 16
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_attacks_are_found_on_the_metric_and_through_each_defence(done):
    rows = read_lines(done / ATTACKS)
    assert len(rows) == 2 * 3 * (4 + 3)
    for row in rows:
        assert row["rounded"] == (row["norm"] == "linf")
        limit = row["linf"] if row["norm"] == "linf" else row["l2"]
        assert 0 < limit <= row["budget"] * (1 + 1e-4)
        if row["contender"] in ("MS", "DMS") and row["norm"] == "l2" and row["budget"] == 0.05:
            assert row["l2"] <= 0.05
            assert row["interval"][0] <= row["clean"] <= row["interval"][1]
            assert row["left"] is False
        elif row["norm"] == "linf" or row["contender"] not in ("MS", "DMS") or row["budget"] == 2:
            assert row["interval"] is None
            assert row["left"] is None
        if row["interval"] is not None:
            assert row["true_lower"] < row["attacked"] < row["true_upper"]
    bare = [row["gain"] for row in rows if row["contender"] == "undefended"]
    assert min(bare) > 0


def test_an_adaptive_attack_is_never_the_weaker_one(done):
    found = {}
    for row in read_lines(done / ATTACKS):
        found[row["image"], row["contender"], row["norm"], row["budget"], row["mode"]] = row
    pairs = [
        (row, found[*name, "undefended"]) for (*name, mode), row in found.items() if mode == "adaptive"
    ]  # fmt: skip
    assert len(pairs) == 2 * 3 * 3
    for adaptive, transferred in pairs:
        assert adaptive["gain"] >= transferred["gain"]
        assert (adaptive["origin"] == "transferred") == (adaptive["attacked"] == transferred["attacked"])
    assert {adaptive["origin"] for adaptive, _ in pairs} >= {"adaptive"}


def test_a_refuted_certificate_is_an_alarm(done, place, tmp_path):
    out = shutil.copytree(done, tmp_path / "out")
    assert not Results.read(out, resamples=10).alarm()
    rows = read_lines(out / ATTACKS)
    next(row for row in rows if row["interval"] is not None)["left"] = True
    (out / ATTACKS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = Results.read(out, resamples=10)
    assert results.left == 1
    assert results.alarm() in results.sentences()
    with pytest.raises(RefutedError) as raised:
        compare_defences(plan(place), out, "cpu")
    assert raised.value.exit_code == 10
    assert "refuted" in (out / "report.html").read_text()


@pytest.mark.parametrize("stop", [1, 7, 19])
def test_a_killed_run_goes_on_and_ends_the_same(stop, done, place, tmp_path):
    out = tmp_path / "out"

    def interrupt(_taken, _total, _title):
        lines = [*read_lines(out / CERTIFICATES), *read_lines(out / ATTACKS)]
        if len(lines) >= stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan(place).run(out, progress=interrupt)
    before = (out / CERTIFICATES).read_text()
    plan(place).run(out)
    assert (out / CERTIFICATES).read_text().startswith(before)
    for file in (CERTIFICATES, ATTACKS):
        assert len(read_lines(out / file)) == len(untimed(out / file))
        assert untimed(out / file) == untimed(done / file)


def row(contender, image, score, mos, **facts):
    basis = {"metric": "m", "contender": contender, "image": image, "score": score, "mos": mos, "undefended": mos}
    basis |= {"bare": contender == "none", "certified": False, "lower_better": False, "span": 100.0}
    return basis | {"samples": 1, "seconds": 1.0} | facts


def test_agreement_taus_and_order_on_records_made_by_hand():
    good = [row("none", i, float(i), float(i)) for i in range(12)]
    bad = [row("bad", i, -float(i), float(i)) for i in range(12)]
    low = [row("low", i, -float(i), float(i), lower_better=True) for i in range(12)]
    none, worse, same = standings([*good, *bad, *low], resamples=50)
    assert none.agreement.srocc.mean == 1
    assert none.tau_srocc is None
    assert (worse.tau_srocc.mean, worse.tau_plcc.mean) == (2, 2)
    assert same.agreement.plcc.mean == 1
    rising = compare([*good, *bad], ["bad", "none"], resamples=50)
    assert rising[0].srocc.mean == 2
    assert "SROCC higher" in rising[0].sentence()
    assert order(rising, ["bad", "none"]) == [("m", "confirmed")]
    assert order(compare([*good, *bad], ["none", "bad"], resamples=50), ["none", "bad"]) == [("m", "refuted")]
    level = compare([*good, *[r | {"contender": "twin"} for r in good]], ["none", "twin"], resamples=50)
    assert "SROCC no difference shown" in level[0].sentence()
    assert order(level, ["none", "twin"]) == [("m", "undecided")]


def test_deltas_leave_out_what_claims_nothing():
    facts = {"certified": True, "non_finite": 0, "vacuous": False, "lower": 40.0, "upper": 60.0, "delta": 12.0}
    rows = [row("MS", 0, 50.0, 1.0, **facts), row("MS", 1, 50.0, 2.0, **facts | {"vacuous": True, "delta": 99.0})]
    rows.append(row("MS", 2, None, 3.0, **facts | {"non_finite": 2, "delta": None}))
    (found,) = standings(rows, resamples=20)
    assert (found.images, found.abstained, found.vacuous) == (2, 1, 1)
    assert found.delta.mean == pytest.approx(0.12)
    assert (found.width.mean, found.width_raw.mean) == (pytest.approx(0.2), 20)


def test_shifts_count_what_left(done):
    attack = {"metric": "m", "contender": "MS", "mode": "adaptive", "attack": "PGD", "norm": "l2", "budget": 0.05}
    attack |= {"gain_share": 0.1, "l2": 0.05, "clean": 50.0, "interval": [40.0, 65.0], "left": False, "strayed": True}
    (found,) = shifts([attack, attack | {"left": True, "gain_share": 0.3}], [row("MS", 0, 50.0, 1.0)])
    assert (found.mean, found.checked, found.left, found.strayed) == (pytest.approx(0.2), 2, 1, 2)
    assert found.certified == pytest.approx(0.15)


def test_settings_are_checked(place, tmp_path):
    with pytest.raises(ValueError, match="two are called 'MS'"):
        plan(place, contenders=(Contender(defence="MS"), Contender(defence="MS")), order=())
    with pytest.raises(ValueError, match="order: no contender is called 'DDMS'"):
        plan(place, order=("MS", "DDMS"))
    with pytest.raises(ValueError, match="denoiser and a purifier"):
        plan(place, contenders=(Contender(defence="x", denoiser="a", purifier="flip"),), order=())
    for line, key in (("sigma = 0", "sigma"), ("colour = 1", "colour"), ("[attacks]\nsteps = 0", r"attacks\.steps")):
        text = (
            f'kind = "certified-iqa"\nname = "x"\nmetric = "m"\nimages = "i"\ncontenders = [{{defence = "a"}}]\n{line}'
        )
        (tmp_path / "x.toml").write_text(text)
        with pytest.raises(ConfigError, match=rf"x\.toml, line [67]: {key}"):
            read_study(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match="no image in the split 'val'"):
        plan(place, split="val").ratings()
    assert [c.defence for c in CertifiedIqa.read("certified-iqa").contenders[:4]] == [
        "undefended",
        "MS",
        "DMS",
        "DMS-IQA",
    ]


def test_tables_in_markdown(done, tmp_path):
    text = iqa_markdown([done], tmp_path / "x.md").read_text()
    assert "# small" in text
    assert "left its interval" in text
    assert "| MS (" in text
    with pytest.raises(ConfigError, match="no results of the kind certified-iqa"):
        Results.read(tmp_path)


def test_as_typed(place, tmp_path):
    made = dataclasses.asdict(plan(place, attacks=Attacks(images=0)))
    lines = [f"{key} = {json.dumps(value)}" for key, value in made.items() if key not in ("contenders", "attacks")]
    lines += ["[[contenders]]", 'defence = "MS"', "smoothed = true", "[[contenders]]", 'defence = "DMS"']
    (tmp_path / "s.toml").write_text("\n".join([*lines, "[attacks]", "images = 0"]) + "\n")
    out = tmp_path / "out"
    code, stdout, stderr = run("study", tmp_path / "s.toml", "--every", 2, "--samples", 40, "--out", out)
    assert code == 0, stderr
    assert "SROCC MS < DMS" in stdout
    assert len(read_lines(out / CERTIFICATES)) == 4
    code, _, stderr = run("report", out, "--out", tmp_path / "tables.md")
    assert code == 0, stderr
    assert "has nothing for --model to set" in fails(5, "study", tmp_path / "s.toml", "--model", "edsr-s")
    assert "nothing for --precision" in fails(5, "study", tmp_path / "s.toml", "--precision", "bfloat16")
    twice = (tmp_path / "s.toml").read_text().replace('"DMS"', '"MS"')
    (tmp_path / "twice.toml").write_text(twice)
    assert "twice.toml: contenders: two are called 'MS'" in fails(5, "study", tmp_path / "twice.toml")
    assert "cannot read" in fails(5, "study", tmp_path / "s.toml", "--images", tmp_path, "--out", tmp_path / "o")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_opens_without_an_error(width, scheme, done, browser):
    page = iqa_page([done], done / "report.html")
    watched = Watched(browser, page, width, scheme, ready="#agreement-0 svg.main-svg")
    try:
        watched.page.wait_for_load_state("networkidle")
        for chart in ("delta-0", "shift-undefended-l2-0", "shift-adaptive-linf-0"):
            assert watched.page.locator(f"#{chart} svg.main-svg").first.is_visible()
        assert watched.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
        assert watched.trouble == []
        assert watched.requests == [page.as_uri()]
    finally:
        watched.context.close()


def test_the_page_escapes_names(done):
    text = iqa_page([done], done / "report.html").read_text()
    assert "<b>JPEG" not in text.replace("\\u003cb>JPEG", "")
    assert "&lt;b&gt;JPEG" in text


@pytest.mark.browser
def test_every_certificate_is_on_the_page_the_widest_first(done, browser):
    rows = [row for row in read_lines(done / CERTIFICATES) if row["certified"]]
    watched = Watched(browser, iqa_page([done], done / "report.html"), ready="#images-0 [aria-sort]")
    try:
        shown = watched.page.locator("#images-0 tbody tr:visible")
        assert shown.count() == len(rows) == 8
        widths = [float(text.removesuffix(" %")) for text in shown.locator("td:nth-child(3)").all_inner_texts()]
        assert widths == sorted(widths, reverse=True)
        for row in rows:
            assert f"[{row['lower']:.2f}, {row['upper']:.2f}]" in watched.page.locator("#images-0").inner_text()
        watched.page.locator("[data-filters=images-0] select").select_option("DMS")
        assert shown.count() == 4
        assert watched.trouble == []
    finally:
        watched.context.close()


def test_a_small_page_says_what_it_leaves_out(done):
    whole = len(iqa_page([done], done / "report.html").read_bytes())
    none = iqa_page([done], done / "none.html", megabytes=0.1).read_text()
    assert "the certificates of all images are left out" in none
    assert "Image by image" not in none
    # Room for three rows of a kilobyte, and for the words.
    data = none.partition('id="report-data">')[2].partition("</script>")[0]
    limit = (len(plotting_library()) + len(data) + 203_500) / 1_000_000
    some = iqa_page([done], done / "some.html", megabytes=limit)
    assert "5 narrower ones are left out" in some.read_text()
    assert len(some.read_bytes()) < whole


def test_as_typed_two_runs_are_compared_by_the_width_of_their_certificates(done, tmp_path):
    again, wider = (shutil.copytree(done, tmp_path / name) for name in ("again", "wider"))
    rows = read_lines(wider / CERTIFICATES)
    for row in rows:
        if row["contender"] == "DMS":
            row["upper"] += 0.02 * row["span"]
    (wider / CERTIFICATES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert {delta.verdict for delta in compare_folders(done, again).deltas} == {"equal"}
    found = compare_folders(done, wider)
    assert [delta.verdict for delta in found.deltas] == ["worse", "equal", "equal", "equal"]
    worst = found.deltas[0]
    assert worst.setting == ("DMS", "tiny")
    assert worst.values["certified width"].mean == pytest.approx(2)
    assert worst.values["score"].mean == 0
    code, stdout, _ = run("report", "--compare", done, wider, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert code == 0
    assert "became worse in 1" in page
    assert "became worse in 1" in " ".join(stdout.split())
    assert "&lt;b&gt;JPEG&lt;/b&gt;" in page
