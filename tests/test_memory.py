import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from small import network, tiny
from torch import nn
from torch.nn import functional as F

from resolute.attacks import IFGSM
from resolute.attacks.gradient import PGD
from resolute.attacks.targeted import ReferenceShift, SavedOutput
from resolute.cli.app import parse_memory
from resolute.errors import ConfigError
from resolute.images import read_image, write_png
from resolute.models import Tiled, as_restorer
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, Subject, measure_all
from resolute.studies.fitting import Fit, fit, tried
from resolute.studies.windows import attack_in_windows

PEAK = """
import re, torch
from pathlib import Path
from resolute.attacks import IFGSM
from resolute.attacks.need import need_of
from resolute.models import load
from resolute.runtime import resident_bytes
torch.set_num_threads(1)
model, x = load({name!r}), torch.rand(1, 3, {side}, {side})
attack = IFGSM(epsilon=4 / 255, steps=2)
need = need_of(model, attack, x[..., :64, :64], model.scale)
before = resident_bytes()
Path("/proc/self/clear_refs").write_text("5")
for _ in range(2):
    attack(model, x)
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(need.bytes * x[0, 0].numel(), peak - before)
"""


def photo(height, width, seed=0):
    low = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(low, scale_factor=8, mode="bicubic")[..., :height, :width]
    return (smooth.clamp(0, 1) * 255).round() / 255


def cell_of(model, attack, low, truth=None):
    model.card = model.card or model.describe("small")
    return AttackCell.of(model, attack, "attack", Subject("photo", low, truth), 0)


class Own(nn.Module):
    """A network that cannot be taken apart at its features: it takes a shortcut around them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x):
        return F.pixel_shuffle(self.second(self.first(x).relu()), 2) + F.interpolate(x, scale_factor=2)


def own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return as_restorer(Own(), scale=2)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are read from Linux")
@pytest.mark.parametrize("name", ["edsr-xs", "edsr-s"])
def test_the_estimate_is_what_is_taken(name):
    done = subprocess.run([sys.executable, "-c", PEAK.format(name=name, side=256)], capture_output=True, text=True)
    estimated, taken = map(float, done.stdout.split())
    assert 0.7 < estimated / taken < 1.3


# A step of the sign of a gradient that is not zero at the clean image is the same in a window and in the whole.
ONE_STEP = IFGSM(epsilon=4 / 255, steps=1, start="zero", objective=ReferenceShift(SavedOutput()))


@pytest.mark.parametrize("truth", [None, photo(140, 190, seed=1)])
@pytest.mark.parametrize("make", [network, own])
def test_windows_find_and_measure_what_the_whole_does(make, truth, tmp_path):
    model, low = make(), photo(70, 95)
    cell = cell_of(model, ONE_STEP, low, truth)
    (whole,) = measure_all([cell], [Clean.of(model, cell.subject)])
    shares = []
    record, files = attack_in_windows(cell, Fit(0, 0, window=32, halo=16), tmp_path, True, shares.append)
    assert record.window == 32
    assert shares == sorted(shares)
    assert abs(shares[-1] - 1) < 1e-9
    assert torch.equal(read_image(files["attacked"]), whole.attacked)
    torch.testing.assert_close(read_image(files["sr-attacked"]), whole.output.clamp(0, 1), rtol=0, atol=0.51 / 255)
    ours, theirs = dataclasses.asdict(record), dataclasses.asdict(whole.record)
    for field in dataclasses.fields(AttackRecord):
        if field.name not in ("seconds", "window"):
            assert ours[field.name] == pytest.approx(theirs[field.name], rel=1e-4, abs=1e-6), field.name


def test_an_l2_budget_is_shared_out_between_windows(tmp_path):
    model, low = network(), photo(64, 64)
    cell = cell_of(model, PGD(epsilon=0.5, steps=3, norm="l2"), low)
    _, files = attack_in_windows(cell, Fit(0, 0, window=32, halo=16), tmp_path, False, lambda share: None)
    moved = (read_image(files["attacked"]) - low[0]).norm()
    assert 0 < moved <= 0.5 + 1e-5
    assert list(files) == ["attacked"]


def test_the_largest_tile_that_fits_is_taken_then_windows_then_an_error():
    model = network()
    cell = cell_of(model, IFGSM(epsilon=4 / 255, steps=2), torch.zeros(1, 3, 600, 900))
    need = tried(cell, model)
    need = dataclasses.replace(need, kept=1e5)
    rooms = [1e12, 1.5e10, 4e9, 2e9, 5e8]
    ways = [fit(cell, model, need, room, True) for room in rooms]
    assert [(way.tile, way.window) for way in ways[:1]] == [(0, 0)]
    assert all(way.memory <= room for way, room in zip(ways, rooms, strict=True))
    assert ways[1].tile > ways[2].tile > 0
    assert ways[4].window > 0
    with pytest.raises(ConfigError, match="--memory"):
        fit(cell, model, need, 1e6, True)


@pytest.mark.parametrize("height", [70, 33])
def test_networks_of_others_work_in_tiles(height):
    model, x = own(), photo(height, 95).requires_grad_()
    tiled = Tiled(model, tile=32)
    assert tiled.halos[0] == 3
    torch.testing.assert_close(tiled(x), model(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(tiled.features(x), model.features(x), rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad(one(x).square().mean(), x)[0] for one in (model, tiled)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-7)


@pytest.mark.parametrize("text", ["3", "much", "-1G", "0G", "1e3G", "100k"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--memory"):
        parse_memory(text)


def command(tmp_path, *options, side=400):
    write_png(tmp_path / "photo.png", photo(side, side)[0])
    model = tiny(tmp_path / "small.pt", "small")
    return subprocess.Popen(
        [sys.executable, "-m", "resolute", "attack", str(model), str(tmp_path / "photo.png"), "--device", "cpu",
         "--out", str(tmp_path / "out"), *options],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_a_cap_below_what_the_smallest_window_takes_is_refused(tmp_path):
    process = command(tmp_path, "--memory", "100M")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "--memory" in stderr
    assert "photo" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("seconds", [0.7, 2.5, 8])
def test_an_attack_ends_at_once_when_told_to(number, code, seconds, tmp_path):
    process = command(tmp_path, "--steps", "100000", side=1200)
    time.sleep(seconds)
    assert process.poll() is None
    process.send_signal(number)
    began = time.monotonic()
    process.wait(timeout=60)
    assert time.monotonic() - began < 2
    # Before the command has begun Python itself ends.
    assert process.returncode in (code, -number)
