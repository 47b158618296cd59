"""The study of DMS-IQA: what it computes, goes on with, concludes, prints and draws."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from small import few_resamples, read_lines, rewrite
from test_cli import fails, run
from watched import Watched

from resolute import ConfigError
from resolute import run as run_study
from resolute.certificates.certificate import Smoothing
from resolute.engine import Store
from resolute.engine.store import files_of
from resolute.errors import ImageWarning
from resolute.images import sample_image, write_png
from resolute.models import Card, QualityNet
from resolute.models.denoisers import UNet
from resolute.models.weights import save_model
from resolute.report.comparison import compare_folders
from resolute.report.page import write_markdown, write_page
from resolute.report.reading import read_folder
from resolute.studies import certified_iqa_tables, score_study
from resolute.studies.certified_iqa import Attacks, CertifiedIqa, Contender
from resolute.studies.certified_iqa_summary import Summary, compare, rising, shifts, standings
from resolute.studies.kinds import read_study
from resolute.studies.score_attacked import ScoreAttackRecord, gain, refutes
from resolute.studies.score_study import parted
from resolute.studies.scored import ScoreRecord, width_of
from resolute.training.rated import read_ratings

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
def quick_agreement(monkeypatch):
    few_resamples(monkeypatch)


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
    run_study(plan(place), place / "out")
    return place / "out"


def lines(folder):
    return [line for file in files_of(folder, "records") for line in read_lines(file)]


def figures(folder):
    return [record.figures() for record in Store(folder).read()]


def test_each_contender_scores_each_image_once(done, place, monkeypatch):
    scores, _ = parted(Store(done).read())
    assert len(scores) == 4 * 4
    assert {score.image for score in scores} == {f"{name}.png" for name in NAMES[:4]}
    for score in scores:
        assert (score.smoothing is not None) == (score.defence in ("MS", "DMS"))
        assert score.mos == 20 * NAMES.index(score.image.removesuffix(".png"))
        if score.smoothing is not None:
            assert score.lower <= score.score <= score.upper
            assert width_of(score, 0.05) is not None
        if score.defence == "undefended":
            assert score.score == score.undefended
    monkeypatch.setattr(score_study, "scored", lambda *_: pytest.fail("what is there is not done again"))
    seen = []
    run_study(plan(place), done, progress=lambda taken, total, _title: seen.append((taken, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_one_image_is_one_thing_whatever_stands_before_the_metric(done):
    evidence = read_folder(done)
    assert evidence.notes == []
    assert len({(record.image, record.pixels) for record in evidence.records}) == 4


def test_a_made_up_record_puts_no_picture_from_elsewhere_on_the_page(done, place, tmp_path):
    study, secret = plan(place), tmp_path / "secret.png"
    write_png(secret, sample_image("motorcycle")[:, :40, :48])
    records = Store(done).read()
    assert len(list(study.cases(records, done))) == 4
    for name in (str(secret), f"../{secret}", "../../secret.png", "motorcycle.png"):
        forged = [dataclasses.replace(record, image=name) for record in records if record.image == "coffee.png"]
        assert len(forged) >= 4
        assert not list(study.cases(forged, done))


def test_another_radius_needs_no_new_samples(done, place, tmp_path, monkeypatch):
    out = shutil.copytree(done, tmp_path / "out")
    asked = parted(Store(out).read())
    monkeypatch.setattr(score_study, "scored", lambda *_: pytest.fail("no sample is drawn again"))
    wider = plan(place, epsilon=0.08)
    records = run_study(wider, out)
    assert [record.figures() for record in records] == figures(done)
    assert "up to 0.08" in " ".join(wider.results(records).sentences)
    deltas = [
        [found.delta.mean for found in standings(asked[0], radius, resamples=10) if found.delta]
        for radius in (0.05, 0.08)
    ]
    assert len(deltas[0]) == 2
    assert all(a < b for a, b in zip(*deltas, strict=True))


def test_other_opinions_and_names_are_other_records(place, tmp_path):
    photos = shutil.copytree(place / "photos", tmp_path / "photos")
    small = {"images": str(photos), "attacks": Attacks(images=0), "order": (), "every": 4}
    run_study(plan(place, **small, contenders=(Contender(defence="MS", smoothed=True),)), tmp_path / "out")
    table = photos / "mos.csv"
    table.write_text(table.read_text().replace("coffee.png,0,", "coffee.png,7,"))
    (found,) = run_study(plan(place, **small, contenders=(Contender(defence="new", smoothed=True),)), tmp_path / "out")
    assert (found.mos, found.defence) == (7, "new")


def test_attacks_are_found_on_the_metric_and_through_each_defence(done):
    scores, attacks = parted(Store(done).read())
    clean = {score.key: score for score in scores}
    assert len(attacks) == 2 * 3 * (4 + 3)
    for attack in attacks:
        score = clean[attack.clean_key]
        assert (score.defence, score.image) == (attack.defence, attack.image)
        assert attack.rounded == (attack.norm == "linf")
        assert attack.files == ()
        limit = 255 * attack.linf if attack.norm == "linf" else attack.l2
        assert 0 < limit <= attack.budget * (1 + 1e-4)
        certified = score.smoothing is not None and width_of(score, attack.l2) is not None
        assert certified == (attack.defence in ("MS", "DMS") and attack.norm == "l2" and attack.budget == 0.05)
        assert not refutes(score, attack)
        if certified:
            assert attack.true_lower < attack.defended < attack.true_upper
            low, high = score.interval(attack.l2)
            assert low <= score.score <= high
    bare = [gain(clean[attack.clean_key], attack) for attack in attacks if attack.defence == "undefended"]
    assert min(bare) > 0


def test_an_adaptive_attack_is_never_the_weaker_one(done):
    scores, attacks = parted(Store(done).read())
    clean = {score.key: score for score in scores}
    found = {(a.image, a.defence, a.norm, a.budget, a.adaptive): a for a in attacks}
    pairs = [(a, found[*name, False]) for (*name, adaptive), a in found.items() if adaptive]
    assert len(pairs) == 2 * 3 * 3
    for adaptive, transferred in pairs:
        score = clean[adaptive.clean_key]
        assert gain(score, adaptive) >= gain(score, transferred)
        assert (adaptive.origin == "transferred") == (adaptive.defended == transferred.defended)
    assert {adaptive.origin for adaptive, _ in pairs} >= {"adaptive"}


def refute(out):
    """Let one attack within a certified radius contradict the certificate."""
    records = Store(out).read()
    scores, attacks = parted(records)
    clean = {score.key: score for score in scores}
    attack = next(a for a in attacks if clean[a.clean_key].smoothing and width_of(clean[a.clean_key], a.l2) is not None)
    beyond = clean[attack.clean_key].interval(attack.l2)[1] + 1
    wrong = dataclasses.replace(attack, defended=beyond + 1, true_lower=beyond, true_upper=beyond + 2)
    rewrite(out, [wrong if record is attack else record for record in records])


def typed(place, tmp_path, **changes):
    """The small study as a file."""
    made = dataclasses.asdict(plan(place, **changes))
    text = [f"{key} = {json.dumps(value)}" for key, value in made.items() if key not in ("contenders", "attacks")]
    for contender in made["contenders"]:
        text += ["[[contenders]]", *(f"{key} = {json.dumps(value)}" for key, value in contender.items())]
    text += ["[attacks]", *(f"{key} = {json.dumps(value)}" for key, value in made["attacks"].items())]
    (tmp_path / "s.toml").write_text("\n".join(['kind = "certified-iqa"', *text]) + "\n")
    return tmp_path / "s.toml"


def test_a_refuted_certificate_is_an_alarm(done, place, tmp_path):
    out = shutil.copytree(done, tmp_path / "out")
    assert not plan(place).results(Store(out).read()).alarm
    refute(out)
    records = Store(out).read()
    assert Summary.of(*parted(records), resamples=10).left == 1
    assert plan(place).results(records).alarm
    assert "refuted" in fails(10, "study", typed(place, tmp_path), "--out", out)
    page = (out / "report.html").read_text()
    assert page.count('role="alert"') == 1
    assert "refuted" in page


def score_of(defence, image, score, mos, **facts):
    basis = {
        "key": f"{abs(hash((defence, image))):016x}", "model": "m", "weights": "", "image": str(image), "pixels": "",
        "width": 8, "height": 8, "seed": 0, "seconds": 1.0, "defence": defence, "score": score, "undefended": mos,
        "mos": mos, "scorer": {"name": "m", "lower_better": False}, "span": 100.0,
    }  # fmt: skip
    return ScoreRecord(**basis | facts)


def test_agreement_taus_and_order_on_records_made_by_hand():
    good = [score_of("none", i, float(i), float(i)) for i in range(12)]
    bad = [score_of("bad", i, -float(i), float(i)) for i in range(12)]
    down = {"name": "m", "lower_better": True}
    low = [score_of("low", i, -float(i), float(i), scorer=down) for i in range(12)]
    none, worse, same = standings([*good, *bad, *low], 0.05, resamples=50)
    assert none.agreement.srocc.mean == 1
    assert none.tau_srocc is None
    assert (worse.tau_srocc.mean, worse.tau_plcc.mean) == (2, 2)
    assert same.agreement.plcc.mean == 1
    found = compare([*good, *bad], ["bad", "none"], resamples=50)
    assert found[0].srocc.mean == 2
    assert "SROCC higher" in found[0].sentence()
    assert rising(found, ["bad", "none"]) == [("m", "confirmed")]
    assert rising(compare([*good, *bad], ["none", "bad"], resamples=50), ["none", "bad"]) == [("m", "refuted")]
    twins = [dataclasses.replace(score, defence="twin") for score in good]
    level = compare([*good, *twins], ["none", "twin"], resamples=50)
    assert "no difference" in level[0].sentence()
    assert rising(level, ["none", "twin"]) == [("m", "undecided")]


def test_fidelity_is_to_the_clean_score_and_compared_before_one_metric_only():
    rng = np.random.default_rng(0)
    clean = rng.uniform(20, 80, 12)
    down = {"name": "d", "lower_better": True}
    near = [smoothed("near", i, [clean[i] + 2] * 101, undefended=clean[i]) for i in range(12)]
    far = [smoothed("far", i, [70 - 0.5 * clean[i]] * 101, undefended=clean[i]) for i in range(12)]
    other = [smoothed("other", i, [clean[i] + 4] * 101, undefended=clean[i], scorer=down) for i in range(12)]
    bare = [dataclasses.replace(one, defence="bare", score=one.undefended, smoothing=None) for one in near]
    alone, one, two, three = standings([*bare, *near, *far, *other], 0.05, resamples=50)
    assert alone.fidelity is alone.shift is alone.distance is None
    assert (one.fidelity.mean, two.fidelity.mean) == (pytest.approx(1), pytest.approx(-1))
    assert (one.shift.mean, one.distance.mean) == (pytest.approx(0.02), pytest.approx(0.02))
    assert three.shift.mean == pytest.approx(-0.04)
    summary = Summary.of([*bare, *near, *far, *other], [], order=("near", "far"), resamples=50)
    found = {(each.first, each.second): each for each in summary.differences}
    assert set(found) == set(itertools.combinations(("bare", "other", "near", "far"), 2))
    assert found["near", "far"].fidelity.mean == pytest.approx(-2)
    assert found["near", "far"].delta.mean == pytest.approx(0)
    assert found["other", "near"].fidelity is None
    assert found["other", "near"].metric == "d and m"
    assert found["bare", "near"].delta is None
    assert sum("against" in sentence for sentence in summary.sentences()) == 1
    assert {table.title for table in certified_iqa_tables.tables_of(summary)} >= {"Fidelity", "Differences"}


def smoothed(defence, image, samples, **facts):
    samples = tuple(map(float, samples))
    middle = sorted(samples)[(len(samples) - 1) // 2]
    basis = {"smoothing": Smoothing(n=len(samples)), "samples": samples, "low": 0.0, "high": 100.0}
    return score_of(defence, image, middle, float(image), **basis | facts)


def test_deltas_leave_out_what_claims_nothing():
    # Half of the samples on either side: the interval is as wide as all of them, up to the radius that they reach.
    wide = smoothed("MS", 0, [40.0] * 100 + [48.0] + [60.0] * 100)
    vacuous = smoothed("MS", 1, [50.0] * 3)
    abstained = dataclasses.replace(smoothed("MS", 2, [50.0]), score=None, samples=(), non_finite=2)
    assert wide.interval(0.05) == (40, 60)
    (found,) = standings([wide, vacuous, abstained], 0.05, resamples=20)
    assert (found.images, found.abstained, found.vacuous) == (2, 1, 1)
    assert found.delta.mean == pytest.approx(0.12)
    assert (found.width.mean, found.width_raw.mean) == (pytest.approx(0.2), 20)


def attack_on(score, **facts):
    basis = {
        "key": score.key[::-1], "model": "m", "weights": "", "image": score.image, "pixels": "", "width": 8,
        "height": 8, "seed": 0, "seconds": 1.0, "defence": score.defence, "clean_key": score.key, "configuration": "",
        "adaptive": True, "origin": "adaptive", "norm": "l2", "budget": 0.05, "rounded": False, "clean": 1.0,
        "attacked": 2.0, "defended": score.score, "linf": 0.01, "l2": 0.05, "true_error": 0.001,
    }  # fmt: skip
    return ScoreAttackRecord(**basis | facts)


def test_shifts_count_what_left():
    score = smoothed("MS", 0, [40.0] * 100 + [48.0] + [60.0] * 100)
    strayed = attack_on(score, defended=63.0, true_lower=58.0, true_upper=70.0)
    left = attack_on(score, defended=73.0, true_lower=71.0, true_upper=75.0)
    beyond = attack_on(score, budget=4.0, l2=4.0, defended=73.0, true_lower=71.0, true_upper=75.0)
    near, far = shifts([strayed, left, beyond], [score])
    assert (near.mean, near.checked, near.left, near.strayed) == (pytest.approx(0.2), 2, 1, 2)
    assert near.certified == pytest.approx(0.12)
    assert (far.images, far.checked, far.left, far.certified) == (1, 0, 0, None)
    told = Summary.of([score], [strayed, left, beyond], resamples=10)
    assert "1 of 2" in told.alarm()
    assert not Summary.of([score], [strayed, beyond], resamples=10).alarm()


def test_settings_are_checked(place, tmp_path):
    with pytest.raises(ValueError, match=r"contenders.*'MS'"):
        plan(place, contenders=(Contender(defence="MS"), Contender(defence="MS")), order=())
    with pytest.raises(ValueError, match=r"order: .*'DDMS'"):
        plan(place, order=("MS", "DDMS"))
    with pytest.raises(ValueError, match="purifier"):
        plan(place, contenders=(Contender(defence="x", denoiser="a", purifier="flip"),), order=())
    for line, key in (("sigma = 0", "sigma"), ("colour = 1", "colour"), ("[attacks]\nsteps = 0", r"attacks\.steps")):
        text = (
            f'kind = "certified-iqa"\nname = "x"\nmetric = "m"\nimages = "i"\ncontenders = [{{defence = "a"}}]\n{line}'
        )
        (tmp_path / "x.toml").write_text(text)
        with pytest.raises(ConfigError, match=rf"x\.toml, line [67]: {key}"):
            read_study(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match="split 'val'"):
        plan(place, split="val").ratings()
    assert [c.defence for c in read_study("certified-iqa").contenders[:4]] == [
        "undefended",
        "MS",
        "DMS",
        "DMS-IQA",
    ]


def test_lines_and_images_that_are_no_use_are_named_and_left_out(place, tmp_path):
    photos = shutil.copytree(place / "photos", tmp_path / "photos")
    write_png(photos / "dot.png", sample_image("coffee")[:, :9, :9])
    (photos / "broken.png").write_bytes(b"no image")
    lines = (
        "dot.png,1,test\nbroken.png,2,test\nrocket.png,,test\ngone.png,3,test\ncoffee.png,99,test\nchelsea.png,9,all\n"
    )
    (photos / "mos.csv").write_text((photos / "mos.csv").read_text() + lines)
    with pytest.warns(ImageWarning) as told:
        cells = plan(place, images=str(photos), attacks=Attacks(images=0)).cells()
    able = {(cell.name, cell.mos) for cell in cells if not cell.problem}
    assert able == {(f"{name}.png", 20 * i) for i, name in enumerate(NAMES[:4])}
    assert {cell.name for cell in cells if cell.problem} == {"dot.png"}
    table, images = (str(one.message) for one in told)
    assert all(f"line {number}" in table for number in (9, 10, 11, 12))
    assert "broken.png" in images
    # What a metric learns from has to be whole.
    with pytest.raises(ConfigError, match="line 9"):
        read_ratings(photos, needed=("test",))


def test_tables_in_markdown(done, tmp_path):
    text = write_markdown([done], tmp_path / "x.md").read_text()
    assert "MS < DMS" in text
    for heading in ("Agreement", "Certificates", "Attacks", "Images"):
        assert heading in text
    assert "| MS (" in text


def test_as_typed(place, tmp_path):
    out = tmp_path / "out"
    contenders = (Contender(defence="MS", smoothed=True), Contender(defence="DMS"))
    file = typed(place, tmp_path, contenders=contenders, attacks=Attacks(images=0))
    code, stdout, stderr = run("study", file, "--every", 2, "--samples", 40, "--out", out)
    assert code == 0, stderr
    assert "MS < DMS" in stdout
    assert len(lines(out)) == 4
    assert run("report", out, "--out", tmp_path / "tables.md")[0] == 0
    asked = "SELECT defence, count(*) AS n, count(lower) AS certified FROM scores GROUP BY ALL ORDER BY defence"
    code, stdout, _ = run("query", asked, "--runs", out, "--format", "csv")
    assert (code, stdout.split()) == (0, ["defence,n,certified", "DMS,2,0", "MS,2,2"])
    assert "--model" in fails(5, "study", file, "--model", "edsr-s")
    twice = file.read_text().replace('"DMS"', '"MS"')
    (tmp_path / "twice.toml").write_text(twice)
    assert "twice.toml: contenders" in fails(5, "study", tmp_path / "twice.toml")
    assert "mos.csv" in fails(5, "study", file, "--images", tmp_path, "--out", tmp_path / "o")


@pytest.mark.browser
def test_the_page_opens_without_an_error(done, browser):
    page = write_page([done], done / "report.html")
    watched = Watched(browser, page, ready="#agreement svg.main-svg")
    try:
        watched.page.wait_for_load_state("networkidle")
        for chart in ("delta", "shift-undefended-l2", "shift-adaptive-linf"):
            assert watched.page.locator(f"#{chart} svg.main-svg").first.is_visible()
        assert watched.page.locator("#pick-case option").count() == 4
        assert "opinion" in watched.page.locator("#facts").inner_text()
        for width, scheme in ((1280, "light"), (390, "dark")):
            watched.page.set_viewport_size({"width": width, "height": 900})
            watched.page.emulate_media(color_scheme=scheme)
            watched.page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
        assert watched.trouble == []
        assert watched.requests == [page.as_uri()]
    finally:
        watched.context.close()


def test_the_page_escapes_names(done):
    text = write_page([done], done / "report.html").read_text()
    assert "<b>JPEG" not in text.replace("\\u003cb>JPEG", "")
    assert "&lt;b&gt;JPEG" in text


def test_certificates_are_listed_the_widest_first(done, place, monkeypatch):
    records = Store(done).read()
    scores, _ = parted(records)
    certified = [score for score in scores if score.smoothing is not None]
    table = plan(place).results(records).tables[-1].records()
    assert len(table) == len(certified) == 8
    widths = [line["width"] for line in table]
    assert widths == sorted(widths, reverse=True)
    assert {(line["from"], line["to"]) for line in table} == {score.interval(0.05) for score in certified}
    assert widths[0] == pytest.approx(max(width_of(score, 0.05) for score in certified))
    monkeypatch.setattr(certified_iqa_tables, "WIDEST", 3)
    some = plan(place).results(records).tables[-1]
    assert [line["width"] for line in some.records()] == widths[:3]
    assert "5 narrower" in some.caption


def test_as_typed_two_runs_are_compared_by_the_width_of_their_certificates(done, tmp_path):
    again, wider = (shutil.copytree(done, tmp_path / name) for name in ("again", "wider"))

    def widened(record):
        if not isinstance(record, ScoreRecord) or record.defence != "DMS":
            return record
        middle = record.score
        return dataclasses.replace(record, samples=tuple(middle + 2 * (one - middle) for one in record.samples))

    rewrite(wider, [widened(record) for record in Store(done).read()])
    assert {delta.verdict for delta in compare_folders(done, again).deltas} == {"equal"}
    found = compare_folders(done, wider)
    assert [delta.verdict for delta in found.deltas] == ["worse", "equal", "equal", "equal"]
    worst = found.deltas[0]
    assert worst.setting == ("DMS", "tiny behind front")
    scores = [score for score in Store(done).of(ScoreRecord) if score.defence == "DMS"]
    mean = np.mean([width_of(score, 0.05) for score in scores])
    assert worst.values["certified width"].mean == pytest.approx(mean)
    assert worst.values["score"].mean == 0
    code, stdout, _ = run("report", "--compare", done, wider, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert code == 0
    assert "worse in 1" in page
    assert "worse in 1" in stdout
    assert "&lt;b&gt;JPEG&lt;/b&gt;" in page
