"""Studies that are killed, starved, run twice at once or by many: the figures are those of an unbroken run."""

import dataclasses
import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time

import pytest
from odd import FULL, tried
from small import Fatal, read_lines
from warm import child, killed_after, warm

from resolute import ConfigError, Grid, ImageError, run
from resolute.attacks.registry import AttackTable
from resolute.engine import Store
from resolute.engine.estimate import estimate
from resolute.engine.journal import Claims, Journal
from resolute.engine.plan import DEATHS, Unit
from resolute.engine.running import Machine, plan_of
from resolute.engine.store import files_of
from resolute.engine.workers import packed
from resolute.errors import OutputError
from resolute.files import among_others_in
from resolute.images import sample_image, write_png
from resolute.models import EDSR, Card
from resolute.models.weights import save_model
from resolute.studies import AttackRecord


@pytest.fixture
def study(photos, tiny_model):
    return Grid(
        name="small",
        models=(str(tiny_model), "bicubic"),
        attacks=(AttackTable(kind="ifgsm", steps=8), AttackTable(kind="pgd", steps=4, restarts=2)),
        epsilons=(2, 4, 8),
        images=(str(photos),),
    )


def tiny(study):
    return dataclasses.replace(study, models=("bicubic",), epsilons=(4,), attacks=study.attacks[:1])


def figures(folder):
    """The figures of a folder as bytes, in the order that a reader gets them."""
    return "\n".join(json.dumps(record.figures()) for record in Store(folder).read()).encode()


def lines(folder):
    return [line["key"] for file in files_of(folder, "records") for line in read_lines(file)]


@pytest.mark.hostile
def test_kill_9_at_random_moments_changes_no_figure(study, tmp_path):
    run(study, tmp_path / "whole")
    whole = figures(tmp_path / "whole")
    rng = random.Random(0)
    kills, broken, wanted = 0, 0, 50 if FULL else 12
    while kills < wanted:
        out = tmp_path / f"broken-{broken}"
        broken += 1
        while len(Store(out).read()) < 24 and kills < wanted:
            kills += killed_after(rng.random() * 0.4, study, out)
        run(study, out)
        assert figures(out) == whole
        assert len(lines(out)) == 24, "no cell is computed twice"


def test_a_model_named_twice_is_one(study, tmp_path):
    once = tiny(study)
    twice = dataclasses.replace(once, models=("bicubic", "bicubic"))
    assert [cell.key for cell in plan_of(twice).cells] == [cell.key for cell in plan_of(once).cells]
    assert "1 model x" in twice.outline(plan_of(twice).cells)
    assert len(run(twice, tmp_path)) == 2


def test_workers_give_the_figures_of_one_process(study, tmp_path):
    one = run(study, tmp_path / "one")
    several = run(study, tmp_path / "several", Machine(workers=2))
    assert [record.figures() for record in several] == [record.figures() for record in one]
    assert figures(tmp_path / "several") == figures(tmp_path / "one")
    assert len(files_of(tmp_path / "several", "records")) <= 2
    assert sorted(lines(tmp_path / "several")) == sorted(record.key for record in one)


def test_a_worker_that_is_killed_is_replaced(study, tmp_path):
    run(study, tmp_path / "whole")
    killed = []

    def kill(_found):
        if len(killed) < 2:
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[-1], signal.SIGKILL)

    run(study, tmp_path / "out", Machine(workers=2), on_found=kill)
    assert len(killed) == 2
    assert figures(tmp_path / "out") == figures(tmp_path / "whole")


def test_a_cell_that_kills_its_workers_is_left_out_and_said(study, tmp_path):
    study = dataclasses.replace(study, models=("bicubic",), attacks=study.attacks[:1], epsilons=(2, 4))

    plan = plan_of(study)
    plan.cells[1] = dataclasses.replace(plan.cells[1], attack=Fatal(epsilon=4 / 255))
    found = []
    records = run(plan, tmp_path, Machine(workers=2), on_found=found.append)
    [failure] = [failure for one in found for failure in one.failures]
    assert "ifgsm 4/255" in failure.title
    assert f"killed {DEATHS} times" in failure.reason
    assert len(records) == 3
    assert [line["key"] for line in read_lines(tmp_path / "failed.jsonl")] == [failure.key]
    assert len(run(study, tmp_path)) == 4, "the next run tries it again"


def test_a_killed_first_process_leaves_no_worker_behind_that_spoils_the_next_run(study, tmp_path):
    run(study, tmp_path / "whole")
    out = tmp_path / "out"
    process = child(study, out, machine=Machine(workers=2))
    deadline = time.monotonic() + 60
    while not lines(out) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    run(study, out)
    assert figures(out) == figures(tmp_path / "whole")
    assert len(lines(out)) == len(set(lines(out)))


def test_five_runs_at_once_share_the_work(study, tmp_path):
    run(study, tmp_path / "whole")
    out = tmp_path / "out"
    processes = [child(study, out) for _ in range(5)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert figures(out) == figures(tmp_path / "whole")
    assert len(lines(out)) == len(set(lines(out))) == 24


def test_a_full_disk_stops_with_what_was_done_kept(study, tmp_path):
    run(study, tmp_path / "whole")
    out = tmp_path / "out"
    for room in (900, 3000, 9000):
        process = child(study, out, limit=(resource.RLIMIT_FSIZE, (room, room)))
        process.join(60)
        assert process.exitcode == 7
    assert 0 < len(Store(out).read()) < 24
    run(study, out)
    assert figures(out) == figures(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full(study, tmp_path):
    out = tmp_path / "disk"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "none", out], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        with pytest.raises(OutputError, match=f"{os.strerror(errno.ENOSPC)}.*(again|command)"):
            run(study, out)
        kept = len(Store(out).read())
        assert 0 < kept < 24
        subprocess.run(["mount", "-o", "remount,size=8m", out], check=True)
        run(study, out)
        run(study, tmp_path / "whole")
        assert figures(out) == figures(tmp_path / "whole")
    finally:
        subprocess.run(["umount", "-l", out], check=True)


@tried(1, 10)
def test_killed_runs_of_three_processes_change_no_figure(rng, study, tmp_path):
    out = tmp_path / "out"
    whole = run(study, tmp_path / "whole")
    for _ in range(4):
        killed_after(rng.random() * 3, study, out, machine=Machine(workers=3))
    again = run(study, out, Machine(workers=3))
    assert [record.figures() for record in again] == [record.figures() for record in whole]
    assert len(lines(out)) == len(set(lines(out))) == 24
    assert not list(out.rglob(".*"))


def test_what_a_killed_run_left_half_written_goes_once_nobody_is_at_work(study, tmp_path):
    left = tmp_path / "attacked" / ".0f3a-0123456789abcdef.png"
    left.parent.mkdir()
    left.touch()
    with among_others_in(tmp_path):
        assert not left.exists()
        left.touch()
        run(tiny(study), tmp_path)
        assert left.exists()
    run(tiny(study), tmp_path)
    assert not left.exists()


@pytest.mark.parametrize(
    "lose", [shutil.rmtree, lambda out: out.rename(out.with_name("moved"))], ids=["removed", "moved"]
)
def test_a_folder_that_is_lost_under_way_is_said(study, tmp_path, lose):
    out, found = tmp_path / "out", []

    def disturb(one):
        found.append(one)
        if len(found) == 2:
            lose(out)

    with pytest.raises(OutputError, match="removed"):
        run(study, out, on_found=disturb)
    assert len(run(study, out)) == 24
    assert not Store(out).read_all()[1]


def test_a_line_torn_anywhere_costs_that_line_alone(study, tmp_path):
    study = dataclasses.replace(study, models=("bicubic",), attacks=study.attacks[:1])
    run(study, tmp_path)
    whole, path = figures(tmp_path), tmp_path / "records.jsonl"
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for end in {*range(last, last + 20), *range(last, len(content), 17), *range(len(content) - 20, len(content) - 1)}:
        path.write_bytes(content[:end])
        assert len(Store(tmp_path).read()) == 5
        assert sum(line.torn for line in Store(tmp_path).read_all()[1]) == (end > last)
    for end in (last + 1, last + 100, len(content) - 2):
        path.write_bytes(content[:end])
        run(study, tmp_path)
        assert figures(tmp_path) == whole


def test_clocks_that_jump_change_nothing(study, tmp_path, monkeypatch):
    run(study, tmp_path / "whole")
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: (-1) ** next(jumps) * 10**9 + 10**9)
    out = tmp_path / "out"

    def stop(done, _total, _title):
        if done > 11.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(study, out, progress=stop)
    kept = lines(out)
    for number, path in enumerate(sorted(out.rglob("*"))):
        os.utime(path, (0, 0) if number % 2 else (4e9, 4e9))
    run(study, out)
    assert lines(out)[: len(kept)] == kept
    assert figures(out) == figures(tmp_path / "whole")


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    model = EDSR(scale=2, blocks=10, channels=32, upsampler="direct")
    save_model(model, path, Card(name="wide", architecture=model.arguments(), scale=2))
    return path


@pytest.mark.slow
def test_a_cell_that_memory_does_not_hold_is_done_in_tiles(wide_model, tmp_path):
    write_png(tmp_path / "photo.png", sample_image("astronaut")[:, :320, :320])
    study = Grid(
        name="wide", models=(str(wide_model), f"{wide_model}+mix=0.5"), attacks=(AttackTable(kind="ifgsm", steps=1),),
        epsilons=(4,), images=(str(tmp_path / "photo.png"),), high_resolution=False, scale=2,
    )  # fmt: skip
    [whole] = run(dataclasses.replace(study, models=study.models[:1]), tmp_path / "whole")
    # A gradient of the whole image takes 650 MiB, one in tiles 350 at most; kernels differ between processors.
    process = child(study, tmp_path / "out", room=450 * 2**20)
    process.join(300)
    assert process.exitcode == 0
    # A mixture cannot work in tiles, and is said to have been left out; the study went on.
    [record] = Store(tmp_path / "out").read()
    assert record.model == "wide"
    assert record.sr_psnr == pytest.approx(whole.sr_psnr, abs=0.05)
    [failure] = read_lines(tmp_path / "out" / "failed.jsonl")
    assert "memory" in failure["reason"]
    assert "tiles" in failure["reason"]


def test_units_get_smaller_until_nothing_is_left():
    unit = Unit(cells=(0, 1, 2, 3))
    sizes = []
    while unit:
        sizes.append((len(unit.cells), unit.tile))
        unit = next(iter(unit.smaller()), None)
    assert sizes == [(4, 0), (2, 0), (1, 0), (1, 128), (1, 64), (1, 32), (1, 16)]
    lives, unit = 0, Unit(cells=(0,))
    while unit:
        lives, unit = lives + 1, next(iter(unit.after_death()), None)
    assert lives == DEATHS


def test_units_hold_cells_of_one_model_attack_and_size(study):
    plan = plan_of(study)
    for batch in (1, 4, 100):
        units = plan.units((), batch)
        assert sorted(place for unit in units for place in unit.cells) == list(range(24))
        for unit in units:
            cells = [plan.cells[place] for place in unit.cells]
            assert len(cells) <= max(batch, cells[0].together)
            assert len({(cell.model, cell.label, cell.subject.low.shape) for cell in cells}) == 1


def test_batches_change_no_figure(study, tmp_path):
    run(study, tmp_path / "one")
    run(study, tmp_path / "four", Machine(batch=4))
    assert figures(tmp_path / "four") == figures(tmp_path / "one")


def test_several_seeds_are_cells_of_their_own(study, tmp_path):
    study = dataclasses.replace(study, models=("bicubic",), epsilons=(4,))
    one = run(study, tmp_path)
    both = run(dataclasses.replace(study, seeds=(0, 1)), tmp_path)
    assert {record.seed for record in both} == {0, 1}
    assert {record.key for record in one} < {record.key for record in both}
    assert len(lines(tmp_path)) == len(both) == 8


def test_of_two_records_of_one_key_the_same_is_taken_in_any_order(study, tmp_path):
    [record] = run(dataclasses.replace(study, models=("bicubic",), epsilons=(4,), attacks=study.attacks[:1]), tmp_path)[
        :1
    ]
    rows = [dataclasses.replace(record, sr_psnr=value, seconds=value) for value in (30.0, 30.1, 30.05)]
    found = set()
    for number, order in enumerate(((0, 1, 2), (2, 1, 0), (1, 0, 2))):
        for place, row in enumerate(order):
            Journal(tmp_path / str(number), f"records-{place}").append(rows[row].as_line())
        [one] = Store(tmp_path / str(number)).read()
        found.add(one)
    assert len(found) == 1


def claim_in_child(folder, keys, answer):
    answer.send(Claims(folder).take(keys))


def test_a_claim_holds_until_its_process_ends(tmp_path):
    def other(keys):
        ours, theirs = warm.Pipe()
        process = warm.Process(target=claim_in_child, args=(tmp_path, keys, theirs))
        process.start()
        answer = ours.recv()
        process.join()
        return answer

    a, b = "a" * 24, "b" * 24
    mine = Claims(tmp_path)
    assert mine.take([a])
    assert not other([b, a])
    assert other([b]), "a refused claim leaves nothing behind, nor does a process that has ended"
    assert mine.take([a, b])
    mine.release([a])
    assert other([a])
    mine.close()


def test_the_estimate_is_about_what_it_takes(study, tmp_path):
    study = dataclasses.replace(study, models=study.models[:1], attacks=(AttackTable(kind="ifgsm", steps=400),))
    plan = plan_of(study)
    units = plan.units((), 1)
    cost = estimate(plan, units, Machine())
    assert cost.memory is not None
    assert cost.memory > 2**27
    began = time.perf_counter()
    run(study, tmp_path)
    took = time.perf_counter() - began
    assert cost.seconds is not None
    assert took / 4 < cost.seconds < 4 * took


def test_images_that_vanish_are_named(study, photos, tmp_path):
    (photos / "coffee.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="coffee"):
        run(study, tmp_path / "out", Machine(workers=2))


def test_a_record_is_what_it_says(study, tmp_path):
    record = run(study, tmp_path)[0]
    assert isinstance(record, AttackRecord)
    assert set(record.figures()) == {field.name for field in dataclasses.fields(AttackRecord)} - {"seconds"}


def test_a_model_that_no_other_process_can_be_sent_is_said(study):
    plan = plan_of(study)
    plan.cells[0].model.register_forward_hook(lambda *_: None)
    with pytest.raises(ConfigError, match="other processes"):
        packed(plan)
