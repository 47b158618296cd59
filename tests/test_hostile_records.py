"""Orders that anyone may have written; forged records of every kind are in ``test_kinds``."""

import contextlib
import json
import shutil

import pytest
from odd import damaged, forged, text_of, tried
from test_cli import run

from resolute.engine.store import Store
from resolute.errors import ConfigError


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
