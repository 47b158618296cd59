"""Every kind of study keeps the same promises, whatever happens to its runs."""

import contextlib
import dataclasses
import errno
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time

import pytest
import torch
from full_disk import counted, full_from
from odd import FULL, damaged, forged, text_of, tried
from small import few_resamples, grid, read_lines
from warm import child, killed_after

from resolute import run
from resolute.attacks.score import ScoreAttack
from resolute.certificates.gap import Calibration, Screening
from resolute.engine.journal import RecordsRead
from resolute.engine.query import query
from resolute.engine.queue import Machine
from resolute.engine.running import plan_of
from resolute.engine.store import Store, files_of
from resolute.errors import ConfigError, OutputError
from resolute.images import sample_image, write_png
from resolute.models import Card, QualityNet
from resolute.models.denoisers import UNet
from resolute.models.scorers import load_scorer
from resolute.models.weights import save_model
from resolute.report.comparison import compare_folders
from resolute.report.page import write_markdown, write_page
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

NAMES = ("coffee", "chelsea", "rocket")

# A network for which images of fewer than six pixels a side are too small.
WIDE = """
from torch import nn

def wide(scale):
    return nn.Sequential(
        nn.ReflectionPad2d(5), nn.Conv2d(3, 3 * int(scale) ** 2, 11), nn.PixelShuffle(int(scale))
    ).requires_grad_(False)
"""
KILLS = 10 if FULL else 2


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A tiny study of every kind."""
    folder = tmp_path_factory.mktemp("kinds")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        metric, judge = QualityNet(widths=(4, 4), hidden=4), QualityNet(widths=(4, 6), hidden=4)
        restorers = [UNet((4, 4)) for _ in range(2)]
        for net in restorers:
            torch.nn.init.normal_(net.last.weight, std=0.02)
    for name, net in (("score", metric), ("judge", judge)):
        save_model(net, folder / name / f"{name}.safetensors", net.describe(name, licence="MIT"))
    for name, net in zip(("plain", "other"), restorers, strict=True):
        card = Card(name=name, architecture=net.arguments(), scale=1, licence="MIT")
        save_model(net, folder / name / f"{name}.safetensors", card)
    for index, name in enumerate(NAMES):
        write_png(folder / "iqa" / f"{name}.png", sample_image(name)[:, 100:132, 100:136])
        write_png(folder / "low" / f"{name}.png", sample_image(name)[:, 100:110, 100 : 110 + index])
    ratings = [f"{name}.png,{20 * index},test" for index, name in enumerate(NAMES)]
    (folder / "iqa" / "mos.csv").write_text("\n".join(["path,mos,split", *ratings]) + "\n")
    score, front = (str(folder / name / f"{name}.safetensors") for name in ("score", "plain"))
    photos = str(folder / "iqa")
    Calibration(
        metric="score", fingerprint=Screening("blur-3").fingerprint(load_scorer(score)), smallest=1,
        screening=Screening("blur-3"), gaps={"made up": tuple(map(float, range(99)))},
    ).write(folder / "honest.json")  # fmt: skip
    made = (
        dataclasses.replace(grid(folder / "grid"), epsilons=(4,)),
        Check(
            models=("bicubic",), images=(str(folder / "low"),),
            suite=CheckSuite(steps=2, restarts=2, draws=2, queries=2),
        ),
        Certification(
            images=(photos,), metric=score, samples=30, sigma=0.1, seed=0,
            attacks=(ScoreAttack(epsilon=4 / 255, steps=1),),
        ),
        CertifiedIqa(
            name="iqa", metric=score, images=photos, samples=30, order=("MS",),
            contenders=(Contender(defence="none"), Contender(defence="MS", smoothed=True, denoiser=front)),
            attacks=Attacks(images=1, linf=(4,), l2=(0.05,), steps=1, draws=1),
        ),
        MetricAsLoss(
            name="loss", restorers=("plain", "other"), control="plain", metric="score", judges=("judge",), samples=3,
            images=(photos,), sigma=0.1, pictures=1, runs=str(folder),
        ),
        Survival(
            models=("bicubic",), images=(photos,), high_resolution=False, corruptions=("jpeg", "noise"),
            severities=(1, 3),
        ),
        Faithful(models=("bicubic",), images=(str(folder / "low"),), draws=1, steps=1),
        Twin(
            models=(str(folder / "plain" / "plain.safetensors"), str(folder / "other" / "other.safetensors")),
            images=(photos,), scale=1, steps=1,
        ),
        Choice(models=("bicubic",), images=(photos,), scale=2, level=1, steps=1),
        Restoration(
            models=("bicubic",), images=(str(folder / "low"),), high_resolution=False, scale=2, sigmas=(0.05, 0.1),
            epsilons=(0.01, 0.02), samples=96, seed=0,
        ),
        Audit(
            images=(photos,), references=(photos,), metric=score, defence="blur-3",
            calibration=str(folder / "honest.json"),
        ),
    )  # fmt: skip
    return {study.kind: study for study in made}


@pytest.fixture(autouse=True)
def quick_agreement(monkeypatch):
    few_resamples(monkeypatch)


@pytest.fixture(params=KINDS)
def study(request, studies):
    return studies[request.param]


@pytest.fixture(scope="module")
def wholes(studies, tmp_path_factory):
    """An undisturbed run of every kind, how often it wrote something, and the seconds that it took."""
    folder, facts = tmp_path_factory.mktemp("wholes"), {}
    for kind, study in studies.items():
        began = time.perf_counter()
        with counted(folder / kind) as found:
            run(study, folder / kind)
        facts[kind] = *found, time.perf_counter() - began
    return {kind: (folder / kind, *facts[kind]) for kind in studies}


@pytest.fixture
def whole(study, wholes):
    return wholes[study.kind][0]


def figures(folder):
    return [record.figures() for record in Store(folder).read()]


def lines(folder):
    return [line["key"] for file in files_of(folder, "records") for line in read_lines(file)]


def lines_of(folder):
    """The keys of all whole lines, where some are torn."""
    bad = {(line.path, line.line) for line in Store(folder).read_all()[1]}
    return [
        json.loads(line)["key"]
        for file in files_of(folder, "records")
        for number, line in enumerate(file.read_bytes().splitlines(), start=1)
        if (file, number) not in bad
    ]


def unfinished(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


def test_there_is_an_instance_of_every_kind(studies):
    assert {kind: type(study) for kind, study in studies.items()} == KINDS


def test_every_cell_is_answered_once(study, whole):
    cells = plan_of(study).cells
    assert len(cells) > 2
    assert sorted(lines(whole)) == sorted(record.key for record in Store(whole).read())
    assert sorted(lines(whole)) == sorted(cell.key for cell in cells)
    assert not Store(whole).read_all()[1]
    assert len({cell.key for cell in cells}) == len(cells)
    assert {type(record) for record in Store(whole).read()} <= set(study.records)


def test_workers_give_the_same_figures(study, whole, tmp_path):
    run(study, tmp_path, Machine(workers=2))
    assert figures(tmp_path) == figures(whole)
    assert sorted(lines(tmp_path)) == sorted(lines(whole))


def test_an_interrupted_run_goes_on(study, whole, tmp_path):
    def stop(_found):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path, on_found=stop)
    kept = lines(tmp_path)
    assert 0 < len(kept) < len(lines(whole))
    run(study, tmp_path)
    assert figures(tmp_path) == figures(whole)
    assert lines(tmp_path)[: len(kept)] == kept
    assert len(lines(tmp_path)) == len(lines(whole))


@pytest.mark.filterwarnings("ignore:the code in")
@pytest.mark.parametrize("workers", [1, *([2] if FULL else [])])
def test_an_image_too_small_is_left_out_and_the_others_are_done(study, workers, tmp_path):
    model, photos = str(tmp_path / "nets" / "wide.py") + ":wide", tmp_path / "photos"
    scale = getattr(study, "scale", 4)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "wide.py").write_text(WIDE)
    images = study.images if isinstance(study.images, str) else study.images[0]
    shutil.copytree(images, photos)
    side = 4 * (scale if getattr(study, "high_resolution", False) else 1)
    write_png(photos / "tiny.png", sample_image("astronaut")[:, 100 : 100 + side, 150 : 150 + side])
    if study.kind == "certified-iqa":
        with (photos / "mos.csv").open("a") as file:
            file.write("tiny.png,50,test\n")
    models = (f"{model}#x{scale},scale={scale}",)
    changes = {"images": str(photos) if study.images == images else (str(photos),)}
    if study.kind == "twin":
        models += (f"{models[0]}+as=bfloat16",)
    if hasattr(study, "models"):
        changes["models"] = models
    planned = plan_of(dataclasses.replace(study, **changes))
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        records = run(planned, tmp_path / "run", Machine(workers=workers), on_found=found.append)
    failed = [failure for one in found for failure in one.failures]
    assert failed
    assert all("tiny" in failure.title and "too small" in failure.reason for failure in failed)
    assert {cell.key for cell in planned.cells} == {one.key for one in (*records, *failed)}
    assert [line["key"] for line in read_lines(tmp_path / "run" / "failed.jsonl")] == [one.key for one in failed]
    assert not any("tiny" in record.image for record in records)
    assert len({record.image for record in records}) > 1


@pytest.mark.slow
def test_runs_at_once_share_the_work(study, whole, tmp_path):
    several = [child(study, tmp_path) for _ in range(5 if FULL else 2)]
    for process in several:
        process.join(120)
        assert process.exitcode == 0
    assert figures(tmp_path) == figures(whole)
    assert sorted(lines(tmp_path)) == sorted(lines(whole))


@pytest.mark.slow
@pytest.mark.hostile
@pytest.mark.parametrize("workers", [1, *([3] if FULL else [])])
def test_kills_at_random_moments_change_no_figure(study, workers, wholes, tmp_path):
    whole, _, took = wholes[study.kind]
    rng = random.Random(study.kind)
    kills, outs = 0, [tmp_path / "0"]
    while kills < KILLS:
        if killed_after(rng.random() * took, study, outs[-1], machine=Machine(workers=workers)):
            kills += 1
        else:  # it was done before
            outs.append(tmp_path / str(len(outs)))
    for out in outs:
        run(study, out)
        assert figures(out) == figures(whole)
        assert len(lines_of(out)) == len(set(lines_of(out))) == len(lines(whole))
        assert not unfinished(out)


@pytest.mark.hostile
def test_a_disk_that_is_full_at_any_write_costs_nothing_that_was_done(study, wholes, tmp_path):
    whole, writes, _ = wholes[study.kind]
    rng = random.Random(study.kind)
    for write in range(1, writes + 1) if FULL else [rng.randint(1, writes)]:
        out = tmp_path / str(write)
        with full_from(out, write), pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
            run(study, out)
        kept = {record.key for record in Store(out).read()}
        run(study, out)
        assert figures(out) == figures(whole), write
        assert len(lines_of(out)) == len(lines(whole)), write
        assert kept <= {record.key for record in Store(out).read()}
        assert not unfinished(out)


def test_a_torn_line_is_answered_again(study, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "copy")
    path = files_of(out, "records")[0]
    path.write_bytes(path.read_bytes()[:-40])
    assert [line.torn for line in Store(out).read_all()[1]][-1]
    run(study, out)
    assert figures(out) == figures(whole)


@tried(1, 10)
def test_disturbed_runs_end_with_the_same_figures(rng, study, whole, tmp_path, monkeypatch):
    out, found, after = tmp_path / "out", [], rng.randrange(1, len(lines(whole)))
    what = rng.choice(("removed", "moved", "clock", "stopped"))
    if what == "clock":
        monkeypatch.setattr(time, "time", lambda: rng.choice((0.0, 1e9, 4e9)))

    def disturb(one):
        found.extend(one.records)
        if len(found) >= after:
            if what == "removed":
                shutil.rmtree(out)
            elif what == "moved":
                out.rename(tmp_path / "moved")
            else:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt, OutputError):
        run(study, out, on_found=disturb)
    assert len(found) >= after
    for path in sorted(out.rglob("*")) if what == "clock" else []:
        moment = rng.choice((0, 4e9))
        os.utime(path, (moment, moment))
    run(study, out)
    assert figures(out) == figures(whole)
    assert sorted(lines(out)) == sorted(lines(whole))


NODES = """
import pickle, sys
from pathlib import Path
from ray.cluster_utils import Cluster

if __name__ == "__main__":
    from resolute import Machine, run
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = []
    for study, out in pickle.loads(Path(sys.argv[1]).read_bytes()):
        nodes += [cluster.add_node(num_cpus=1) for _ in range(3 - len(nodes))]
        cluster.wait_for_nodes()

        def kill(one):
            if len(nodes) == 3:
                cluster.remove_node(nodes.pop(0), allow_graceful=False)

        run(study, out, Machine(ray=cluster.address), on_found=kill)
        assert len(nodes) == 2
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def after_lost_nodes(studies, tmp_path_factory):
    """A folder for every kind, run on one cluster, of whose three nodes one is killed under way and then replaced."""
    pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "nodes.py").write_text(NODES)
    (folder / "arguments").write_bytes(pickle.dumps([(study, folder / kind) for kind, study in studies.items()]))
    done = subprocess.run(
        [sys.executable, folder / "nodes.py", folder / "arguments"],
        capture_output=True, text=True, check=False, timeout=1800, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.hostile
@pytest.mark.skipif(not FULL, reason="the grid does so in test_cluster; all kinds with RESOLUTE_HOSTILE=full")
def test_a_cluster_of_three_nodes_that_loses_one_gives_the_same_figures(study, whole, after_lost_nodes):
    out = after_lost_nodes / study.kind
    assert figures(out) == figures(whole)
    assert sorted(lines(out)) == sorted(lines(whole))


def test_results_page_markdown_query_and_comparison(study, whole, tmp_path):
    records = Store(whole).read()
    results = study.results(records)
    assert results.sentences[0].endswith((".", "!"))
    assert results.tables
    assert all(len(row.cells) == len(table.columns) for table in results.tables for row in table.rows)
    folder = shutil.copytree(whole, tmp_path / "copy")
    page = write_page([folder], tmp_path / "page.html").read_text()
    assert "http-equiv" in page or page.lstrip().startswith("<!doctype")
    text = write_markdown([folder], tmp_path / "tables.md").read_text()
    assert results.sentences[0] in text
    for kind in study.records:
        own = [record for record in records if isinstance(record, kind)]
        answer = query(f"SELECT * FROM {kind.view}", [folder])
        assert len(answer.rows) == len(own)
        stored = {record.key: json.loads(json.dumps(dataclasses.asdict(record))) for record in own}
        for values in answer.rows:
            row = dict(zip(answer.names, values, strict=True))
            for name, value in stored[row["key"]].items():
                found = json.loads(row[name]) if isinstance(value, list | dict) else row[name]
                assert found == value, name
    found = compare_folders(whole, folder)
    assert found.deltas
    assert {delta.verdict for delta in found.deltas} == {"equal"}
    assert found.changes == found.only == []


def test_checks_by_two_suites_have_no_common_mean(studies, wholes):
    check = studies["check"]
    records = Store(wholes["check"][0]).read()
    odd = dataclasses.replace(records[0], restarts=(*records[0].restarts, 30.0))
    assert check.results([odd, *records[1:]]).sentences == check.results(records[1:]).sentences


def test_results_of_unfinished_runs(study, whole):
    records = Store(whole).read()
    for some in ([], records[:1], records[::2]):
        assert study.results(some).sentences


def test_the_outline_and_the_facts_are_words(study):
    cells = study.cells()
    assert any(letter.isdigit() for letter in study.outline(cells))
    assert all(study.facts(cells).values())


@tried(1, 12)
def test_forged_records_cost_nobody_else_a_record(rng, study, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run", ignore=lambda _, names: {n for n in names if n.endswith(".lock")})
    rows = [row for file in files_of(folder, "records") for row in read_lines(file)]
    chosen = set(rng.sample(range(len(rows)), len(rows) // 2))
    lines = [line_of(rng, row) if place in chosen else text_of(row) for place, row in enumerate(rows)]
    (folder / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    records, bad = Store(folder).read_all()
    assert {record.key for record in records} >= {row["key"] for place, row in enumerate(rows) if place not in chosen}
    assert all(len(str(one)) < 400 and one.reason for one in bad)
    assert set(RecordsRead(Store(folder)).refresh()) == {record.key for record in records}
    counts = [
        query(f"SELECT count(*) FROM {view}", [folder]).rows[0][0] for view in dict.fromkeys(r.view for r in records)
    ]
    assert sum(counts) == len(records)
    write_page([folder], tmp_path / "report.html")
    write_markdown([folder], tmp_path / "tables.md")
    with contextlib.suppress(ConfigError):
        compare_folders(folder, whole)


def line_of(rng, row):
    return damaged(rng, text_of(row)) if rng.random() < 0.3 else text_of(forged(rng, row))
