"""Training under torchrun: two processes on a CPU end where one does."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from warm import Typed

from resolute import train
from resolute.images import sample_image, write_png
from resolute.training.recipe import read_recipe

RECIPE = """
name = "tiny"
validate_every = 4
[model]
blocks = 1
channels = 6
upsampler = "direct"
scale = 2
[data]
patch = 12
batch = {batch}
validation = 1
[optimizer]
steps = 8
rate = 2e-3
"""
DEFENCE = "[defence]\nweight = 0.1\n"
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "resolute")


@pytest.fixture
def photos(tmp_path):
    for name in ("astronaut", "coffee", "rocket"):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 60:160, 60:180])
    return tmp_path / "photos"


def as_torchrun(tmp_path, *typed):
    """Type a command in two processes that find in their environment what torchrun leaves there.

    Return their exit codes and what they said together.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "small", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    places = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    commands = [Typed(*typed, stdout=tmp_path / f"said-{place['RANK']}", environment=place) for place in places]
    codes, errors = zip(*(command.ended(200) for command in commands), strict=True)
    return codes, "".join((tmp_path / f"said-{rank}").read_text() for rank in range(2)), "".join(errors)


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_end_within_tolerance_of_one(tmp_path, photos):
    (tmp_path / "tiny.toml").write_text(RECIPE.format(batch=4) + DEFENCE)
    done = subprocess.run(
        [sys.executable, "-m", *TORCHRUN, "train", tmp_path / "tiny.toml", "--data", photos, "--out", tmp_path / "two",
         "--device", "cpu"],
        capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("weights and model card") == 1, "one of the processes speaks"
    train(read_recipe(tmp_path / "tiny.toml"), [photos], tmp_path / "one", device="cpu")
    one, two = (load_file(tmp_path / name / "tiny.safetensors") for name in ("one", "two"))
    # The noise of the regulariser is another one in each process, so that only its effect is the same.
    for key in one:
        torch.testing.assert_close(one[key], two[key], atol=2e-2, rtol=1e-3)
    for first, second in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert second["psnr_y"] == pytest.approx(first["psnr_y"], abs=0.2)
        assert second["l1"] == pytest.approx(first["l1"], rel=5e-2), "of the whole batch"


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path, photos):
    (tmp_path / "tiny.toml").write_text(RECIPE.format(batch=3))
    codes, _, errors = as_torchrun(
        tmp_path, "train", tmp_path / "tiny.toml", "--data", photos, "--out", tmp_path / "out", "--device", "cpu"
    )
    assert codes == (5, 5)
    assert "batch of 3 " in " ".join(errors.split())
    assert not (tmp_path / "out").exists()


HARDEN = """
base = "harden"
name = "two"
methods = ["adversarial", "entropy"]
[data]
patch = 12
batch = {batch}
validation = 1
[optimizer]
steps = 6
[adversarial]
steps = 2
share = 0.5
"""


@pytest.mark.slow
def test_a_hardening_trains_on_two_processes_and_judges_on_one(tmp_path, photos):
    (tmp_path / "two.toml").write_text(HARDEN.format(batch=4))
    options = ["--steps", "6", "--crop", "16", "--tested", "1", "--test", photos / "rocket.png", "--device", "cpu"]
    places = ["--data", photos, "--recipe", tmp_path / "two.toml", "--out", tmp_path / "out"]
    codes, said, errors = as_torchrun(tmp_path, "harden", "edsr-xs", *options, *places)
    assert set(codes) <= {0, 9}, errors[-3000:]
    assert said.count("Against the original") == 1, "one of the processes speaks"
    assert (tmp_path / "out" / "harden.json").is_file()
    assert log(tmp_path / "out")[-1]["step"] == 6
