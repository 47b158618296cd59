"""Studies on a real Ray cluster of several nodes on this machine, one of which is killed on the way."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from small import read_lines
from warm import Typed

from resolute import run
from resolute.engine import Store
from resolute.engine.store import files_of
from resolute.studies.kinds import read_study

pytest.importorskip("ray", reason="needs Ray, the extra [ray]")

# In a process of its own: Ray changes signal handlers and leaves threads behind.
SCRIPT = """
import sys
from pathlib import Path
from ray.cluster_utils import Cluster
from resolute import Machine, run
from resolute.studies.kinds import read_study

study, out = read_study(sys.argv[1]), Path(sys.argv[2])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
killed, found = [], []

def kill(one):
    found.append(one)
    if len(found) == 5:
        killed.append(nodes[0])
        cluster.remove_node(nodes[0], allow_graceful=False)

records = run(study, out, Machine(ray=cluster.address), on_found=kill)
print(len(records), "records,", len(killed), "node killed")
cluster.shutdown()
"""


@pytest.fixture
def table(tmp_path, photos, tiny_model):
    path = tmp_path / "study.toml"
    path.write_text(
        f'name = "small"\nmodels = ["{tiny_model}", "bicubic"]\nepsilons = [1, 2, 4, 8]\n'
        f'images = ["{photos}"]\n[[attacks]]\nkind = "ifgsm"\nsteps = 20\n'
        '[[attacks]]\nkind = "pgd"\nsteps = 10\n[clever]\nsamples = 4\n'
    )
    return path


def environment():
    # Ray looks up the machine's address, and takes it to heart where there is no network.
    return os.environ | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def figures(folder):
    return "\n".join(json.dumps(record.figures()) for record in Store(folder).read()).encode()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_figures_of_one_process(table, tmp_path):
    run(read_study(table), tmp_path / "one")
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", table, tmp_path / "ray"],
        capture_output=True, text=True, timeout=280, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "36 records, 1 node killed" in done.stdout
    assert figures(tmp_path / "ray") == figures(tmp_path / "one")
    # One writer, whatever the number of nodes.
    assert files_of(tmp_path / "ray", "records") == [tmp_path / "ray" / "records.jsonl"]
    views = Counter(line["record"] for line in read_lines(tmp_path / "ray" / "records.jsonl"))
    assert views == {"attacks": 32, "clever": 4}


@pytest.mark.slow
def test_the_command_line_starts_a_cluster_of_its_own(table, tmp_path):
    command = [sys.executable, "-m", "resolute", "study", table, "--out", tmp_path / "out", "--ray", "local"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment(), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on Ray" in done.stdout
    assert "Traceback" not in done.stderr
    assert "INFO" not in done.stderr, "Ray keeps its log to itself"
    assert len(Store(tmp_path / "out").read()) == 36


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_said(table, tmp_path):
    study = ("study", table, "--out", tmp_path, "--ray", "127.0.0.1:1")
    code, stderr = Typed(*study, environment=environment()).ended(200)
    assert code == 5, stderr[-3000:]
    assert "'127.0.0.1:1'" in " ".join(stderr.split())
