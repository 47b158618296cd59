"""A page of each kind in a real browser: on a desk and on a phone, light and dark.

Screenshots go to the folder that RESOLUTE_SHOTS names, then of whole pages; else what a screen shows, to the folder of
the test.
"""

import os
import shutil
from pathlib import Path

import pytest
from small import few_resamples, tiny
from torch.nn import init
from watched import Watched

from resolute.engine.running import Machine, run
from resolute.images import sample_image, write_png
from resolute.leaderboard import build_site
from resolute.models import Card, QualityNet
from resolute.models.denoisers import UNet
from resolute.models.weights import save_model
from resolute.provenance import provenance
from resolute.report import write_hardening, write_report
from resolute.report.comparison import compare_folders, write_comparison
from resolute.studies.audit import Audit
from resolute.studies.certification import Certification
from resolute.studies.certified_iqa import Attacks, CertifiedIqa, Contender
from resolute.studies.check import Check
from resolute.studies.check_suite import CheckSuite
from resolute.studies.choice import Choice
from resolute.studies.faithful import Faithful
from resolute.studies.kinds import KINDS
from resolute.studies.metric_as_loss import MetricAsLoss
from resolute.studies.restoration import Restoration
from resolute.studies.survival import Survival
from resolute.studies.twin import Twin
from resolute.training.hardened import Hardening, ModelFigures
from resolute.training.judge import Damage, Judged

pytestmark = pytest.mark.browser

FORMS = [(width, scheme) for width in (1400, 390) for scheme in ("light", "dark")]


def figures(name, clean, kept, truth):
    """How a model stands on two images."""
    damage = {"APGD": Damage(kept, truth), "PGD": Damage(kept + 1, truth + 1)}
    return ModelFigures(name, tuple(Judged(image, clean, damage) for image in ("coffee", "rocket")))


def hardened(folder):
    """The folder of a hardening, made up."""
    shown = "clean output", "attacked", "output"
    names = {"before": ("original", "clean", *shown), "after": shown}
    files = {role: {name: f"{role}-{name}.png" for name in own} for role, own in names.items()}
    for file in (file for own in files.values() for file in own.values()):
        write_png(folder / file, sample_image("coffee")[:, 100:148, 100:148])
    facts = {"recipe": {"steps": 100}, "precision of the search": "float32", "provenance": vars(provenance())}
    Hardening(
        "net", folder / "net-hardened.pth", "", 4, 0.9, figures("net", 28.0, 10.0, 11.0),
        figures("net, hardened", 27.9, 29.0, 26.0), figures("mixture", 27.9, 12.0, 12.0),
        figures("bicubic", 26.0, 37.0, 25.9), {"coffee": files}, facts,
    ).save(folder)  # fmt: skip
    return folder


def of_scores(folder):
    """The studies of the second paper, of untrained networks and four photographs."""
    lines = ["path,mos,split"]
    for index, name in enumerate(("coffee", "chelsea", "rocket", "astronaut")):
        write_png(folder / "rated" / f"{name}.png", sample_image(name)[:, 100:148, 100:164])
        lines.append(f"{name}.png,{20 * index},test")
    (folder / "rated" / "mos.csv").write_text("\n".join(lines) + "\n")
    for name in ("plain", "greedy"):
        net = UNet((4, 4))
        init.normal_(net.last.weight, std=0.02)
        training = {"steps": 4, "seconds_per_step": 0.25, "recipe": {"reward": {"weight": 0.1 * (name == "greedy")}}}
        card = Card(name=name, architecture=net.arguments(), scale=1, training=training)
        save_model(net, folder / name / f"{name}.safetensors", card)
    metric, front = str(folder / "metric.safetensors"), str(folder / "plain" / "plain.safetensors")
    contenders = (
        Contender(defence="undefended"), Contender(defence="MS", smoothed=True),
        Contender(defence="DMS", smoothed=True, denoiser=front),
    )  # fmt: skip
    return (
        CertifiedIqa(
            name="certified-iqa", metric=metric, images=str(folder / "rated"), samples=60, contenders=contenders,
            order=("MS", "DMS"), attacks=Attacks(images=1, linf=(4,), l2=(0.05,), steps=1, draws=1),
        ),
        MetricAsLoss(
            name="metric-as-loss", restorers=("plain", "greedy"), control="plain", metric=metric, judges=(),
            samples=3, images=(str(folder / "rated"),), sigma=0.1, pictures=2, runs=str(folder),
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pages(finished, tmp_path_factory) -> dict[str, Path]:
    """A page of each kind, of the smallest studies there are."""
    folder = tmp_path_factory.mktemp("pages")
    write_png(folder / "photos" / "coffee.png", sample_image("coffee")[:, 100:164, 100:164])
    images, net = (str(folder / "photos"),), str(tiny(folder / "net.safetensors", "net"))
    metric = QualityNet(widths=(8, 8), hidden=4)
    save_model(metric, folder / "metric.safetensors", metric.describe("metric", licence="MIT"))
    few = CheckSuite(steps=2, restarts=2, draws=2, queries=2)
    studies = [
        Check(models=(net,), images=images, suite=few),
        Certification(images=images, metric=str(folder / "metric.safetensors"), samples=20, fit=64),
        Audit(name="scores", images=images),
        Restoration(models=("bicubic",), images=images, sigmas=(0.05,), epsilons=(0.01,), samples=96, crop=40),
        Survival(models=(net, "bicubic"), images=images, corruptions=("noise", "jpeg")),
        Twin(models=(net, f"{net}+as=bfloat16"), images=images, steps=2),
        Faithful(models=("bicubic",), images=images, high_resolution=True, draws=1, steps=2),
        Choice(models=(net, "bicubic"), images=images, steps=2),
        *of_scores(folder),
    ]
    made: dict[str, Path] = {}
    for study in studies:
        place = folder / "runs" / study.kind
        run(study, place, Machine())
        with pytest.MonkeyPatch.context() as patch:
            few_resamples(patch)
            made[study.kind] = write_report([place], place / "report.html")
    # As the demonstration has it: attacks, and an audit below.
    made["attacks"] = write_report([finished, folder / "runs" / "audit"], folder / "demo.html")
    made["comparison"] = write_comparison(compare_folders(finished, finished), folder / "comparison.html")
    shutil.copytree(finished, folder / "runs" / "finished")
    made["leaderboard"], _ = build_site(folder / "runs", folder / "site")
    made["hardening"] = write_hardening(hardened(folder / "hardened"))
    assert set(KINDS) <= set(made)
    return made


def test_every_kind_of_page_on_a_desk_and_on_a_phone_light_and_dark(browser, pages, tmp_path):
    shots = Path(os.environ.get("RESOLUTE_SHOTS", tmp_path))
    for kind, path in pages.items():
        watched = Watched(browser, path, 1400, ready="main")
        page = watched.page
        for width, scheme in FORMS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            # Charts follow a moment later.
            page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width, timeout=20_000)
            shots.mkdir(parents=True, exist_ok=True)
            whole = "RESOLUTE_SHOTS" in os.environ
            page.screenshot(path=shots / f"{kind}-{width}-{scheme}.png", full_page=whole)
        mute = "() => [...document.images].filter(image => image.checkVisibility() && !image.alt).length"
        assert page.evaluate(mute) == 0, kind
        title = page.locator("h1").inner_text()
        assert len(title) > 10, kind
        assert title == page.title()
        assert not watched.trouble, kind
        watched.context.close()


def test_a_phone_shows_rows_of_sentences_as_lists_and_no_heading_pushes_another_down(browser, pages):
    watched = Watched(browser, pages["check"], 390, ready="main")
    table = watched.page.locator("table.words").first
    assert table.evaluate("element => element.scrollWidth <= element.parentElement.clientWidth")
    assert table.locator("thead").is_hidden()
    cell = table.locator("tbody tr").first.locator("td").first
    assert cell.evaluate("element => getComputedStyle(element, '::before').content") == '"raised"'
    watched.context.close()
    watched = Watched(browser, pages["twin"], 390, ready="main")
    heads = watched.page.locator("#table-0 thead th")
    tops = heads.evaluate_all("all => all.map(one => one.querySelector('button').getBoundingClientRect().top)")
    # All begin on one line, right above the first row.
    assert max(tops) - min(tops) < 2
    assert watched.page.locator("#table-0 thead").evaluate("element => element.offsetHeight") < 100
    watched.context.close()


def test_a_page_says_first_what_its_picture_shows(pages):
    text = pages["attacks"].read_text()
    assert "Attacks on tiny, tiny-entropy; which scores of coffee.png look gamed?" in text
    verdict = text.split('id="verdict"')[1].split("</section>")[0]
    assert verdict.index("SR-PSNR") < verdict.index("submission")


def test_what_has_one_picture_offers_no_second_one(browser, pages):
    watched = Watched(browser, pages["certification"], ready="#left")
    for box in ("pick-left", "pick-right", "pick-mode", "gallery"):
        assert watched.page.locator(f"#{box}").is_hidden()
    watched.context.close()
