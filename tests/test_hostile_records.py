"""Orders that anyone may have written; forged records of every kind are in ``test_kinds``."""

import contextlib
import dataclasses
import json
import os
import shutil

import pytest
import torch
from odd import damaged, forged, text_of, tried
from small import read_lines
from test_cli import run

from resolute.engine.journal import RecordsRead
from resolute.engine.store import Store
from resolute.errors import BrokenImageError, ConfigError
from resolute.images import image_sha256, read_image, read_kept, write_png
from resolute.measure.fidelity import psnr_rgb
from resolute.studies.audit import Audit
from resolute.studies.audit_results import AuditRecord


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("attacked", "*.html"))


@tried(4, 120)
def test_a_forged_order_ends_no_reader(rng, folder):
    path = folder / "study.json"
    content = json.loads(path.read_bytes())
    path.write_bytes(damaged(rng, path.read_bytes()) if rng.random() < 0.3 else text_of(forged(rng, content)))
    code, _, stderr = run("report", folder, "--out", folder / "tables.md")
    assert code in (0, 5, 11), stderr
    with contextlib.suppress(ConfigError):
        assert len(Store(folder).read()) == 24


@pytest.mark.parametrize("name", ["records.jsonl", "records-2.jsonl", "study.json"])
@pytest.mark.parametrize("odd", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_nobody_waits_for_a_pipe_or_reads_a_device(name, odd, folder):
    (folder / name).unlink(missing_ok=True)
    odd(folder / name)
    code, _, stderr = run("report", folder)
    assert code == 5
    assert name in stderr
    assert len(RecordsRead(Store(folder)).refresh()) == (0 if name == "records.jsonl" else 24)


def test_no_name_in_a_record_acts_on_a_terminal(folder):
    acts = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"
    rows = [row | {"model": f"{acts}evil"} for row in read_lines(folder / "records.jsonl")]
    (folder / "records.jsonl").write_bytes(b"\n".join(map(text_of, rows)))
    for command in (("query", "SELECT DISTINCT model FROM attacks", "--runs"), ("report", "--compare", folder)):
        code, stdout, stderr = run(*command, folder)
        assert code == 0, stderr
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(stdout + stderr)
        assert "evil" in stdout or command[0] == "report"
    assert run("report", folder)[0] == 0
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set((folder / "report.html").read_text())


def test_a_picture_that_leads_out_of_its_folder_is_not_shown(folder, tmp_path):
    write_png(tmp_path / "secret.png", torch.zeros(3, 4, 4))
    (folder / "attacked").mkdir()
    (folder / "attacked" / "0f.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(BrokenImageError, match="leads out"):
        read_kept(folder, "attacked/0f.png")


AUDITED = {
    "key": "0" * 24, "model": "score", "weights": "", "width": 8, "height": 8, "seed": 0, "seconds": 0.0,
    "scorer": {}, "defence": "blur-3", "fit": 0, "undefended": 1.0, "defended": 0.0, "gap": 1.0,
}  # fmt: skip


def test_an_audit_shows_no_other_file_than_the_one_that_was_audited(tmp_path):
    shown, secret = torch.zeros(3, 8, 8), torch.rand(3, 8, 8)
    write_png(tmp_path / "secret.png", secret)
    write_png(tmp_path / "shown.png", shown)
    names = str(tmp_path / "shown.png"), str(tmp_path / "secret.png")
    record = AuditRecord(**(AUDITED | {"image": names[0], "pixels": image_sha256(shown), "reference": names[1]}))
    [case] = Audit(images=names).cases([record], tmp_path)
    assert [view.label for view in case.views] == ["submission"]
    told = dataclasses.replace(record, psnr=float(psnr_rgb(shown[None], read_image(names[1])[None])))
    [case] = Audit(images=names).cases([told], tmp_path)
    assert "reference" in [view.label for view in case.views]
    assert not [*Audit(images=names).cases([dataclasses.replace(told, image=names[1], pixels="")], tmp_path)]
