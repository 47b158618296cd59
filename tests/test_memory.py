import dataclasses
import signal
import sys
import time

import pytest
import torch
from small import network, tiny
from torch import nn
from torch.nn import functional as F
from warm import Typed

from resolute.attacks import IFGSM
from resolute.attacks.gradient import PGD
from resolute.attacks.registry import AttackTable
from resolute.attacks.targeted import Given, ReferenceShift, SavedOutput, TargetDistance
from resolute.attacks.transfer import WorstOf
from resolute.cli.app import parse_memory
from resolute.engine.queue import Machine
from resolute.engine.running import run
from resolute.errors import ConfigError, ImageNote
from resolute.images import write_png
from resolute.models import SplitRestorer, as_restorer
from resolute.runtime import occupied_bytes
from resolute.studies.attacked import AttackCell, AttackRecord, Clean, Subject, measure_all
from resolute.studies.grid import Grid
from resolute.studies.results import Missing
from resolute.studies.tiles import Fit, attack_in_tiles, fit

# A step of the sign of a gradient that is not zero at the clean image is the same in a tile and in the whole.
ONE_STEP = IFGSM(epsilon=4 / 255, steps=1, start="zero", objective=ReferenceShift(SavedOutput()))


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


class Overflowing(SplitRestorer):
    """A network that is infinite where its input is bright."""

    feature_layer = "image"

    def __init__(self):
        super().__init__(scale=2)
        self.image = nn.Identity()

    def arguments(self):
        return {"class": "Overflowing"}

    def features(self, x):
        return self.image(x)

    def reconstruct(self, phi):
        return F.interpolate(torch.where(phi > 0.9, phi / 0, phi), scale_factor=2)


def own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return as_restorer(Own(), scale=2)


def whole_of(cell):
    (found,) = measure_all([cell], [Clean.of(cell.model, cell.subject)])
    return found


def tiles_of(cell, tile=32, halo=16, **options):
    return attack_in_tiles(cell, cell.model, Fit(tile=tile, halo=halo), options.pop("progress", print), **options)


def moved(answer, low):
    return answer.pictures["attacked"] - low[0]


@pytest.mark.parametrize("truth", [None, photo(140, 190, seed=1)])
@pytest.mark.parametrize("make", [network, own])
def test_tiles_find_and_measure_what_the_whole_does(make, truth):
    model, low, shares = make(), photo(70, 95), []
    cell = cell_of(model, ONE_STEP, low, truth)
    whole = whole_of(cell)
    answer = tiles_of(cell, progress=shares.append, outputs=True)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert torch.equal(answer.pictures["attacked"], whole.attacked)
    torch.testing.assert_close(answer.pictures["sr-attacked"], whole.output.clamp(0, 1), rtol=0, atol=1e-5)
    ours, theirs = dataclasses.asdict(answer.record), dataclasses.asdict(whole.record)
    assert (ours.pop("tile"), theirs.pop("tile")) == (32, 0)
    for field in dataclasses.fields(AttackRecord):
        name = field.name
        if name in ours and name != "seconds":
            value, near = theirs[name], 2e-3 if "ssim" in name else 1e-6  # seams count twice
            expected = pytest.approx(value, rel=1e-4, abs=near) if isinstance(value, float) else value
            assert ours[name] == expected, name


def test_many_steps_in_tiles_are_about_as_strong():
    cell = cell_of(network(), IFGSM(epsilon=4 / 255, steps=5), photo(96, 96))
    whole, tiles = whole_of(cell).record, tiles_of(cell).record
    assert tiles.linf == whole.linf == 4
    assert abs(tiles.sr_psnr - whole.sr_psnr) < 0.5
    assert tiles.signs_sr_psnr == pytest.approx(whole.signs_sr_psnr, rel=1e-4)


L2 = PGD(epsilon=0.5, steps=3, norm="l2")


@pytest.mark.parametrize("attack", [L2, WorstOf(epsilon=0.5, attacks=(L2, L2))])
def test_an_l2_budget_is_shared_out_between_tiles(attack):
    low = photo(64, 64)
    cell = cell_of(network(), attack, low)
    answer = tiles_of(cell)
    assert 0 < moved(answer, low).norm() <= 0.5 + 1e-5
    assert list(answer.pictures) == ["attacked"]


def test_infinite_outputs_are_broken_in_tiles_too():
    cell = cell_of(Overflowing(), PGD(epsilon=4 / 255, steps=1), torch.full((1, 3, 70, 40), 229 / 255))
    whole, tiles = whole_of(cell).record, tiles_of(cell).record
    assert whole.broken
    assert (tiles.broken, tiles.sr_psnr, tiles.sr_ssim) == (whole.broken, whole.sr_psnr, whole.sr_ssim)


def test_what_does_not_fit_is_cut_and_what_does_is_not():
    model = network()
    cell = cell_of(model, IFGSM(epsilon=4 / 255, steps=2), torch.zeros(1, 3, 400, 600))
    rooms = [1e11, 2.5e8, 1e8, 4e7]
    ways = [fit(cell, model, room) for room in rooms]
    assert (ways[0].tile, ways[0].words) == (0, "")
    assert 512 >= ways[1].tile > ways[2].tile > ways[3].tile >= 64
    assert [way.outputs for way in ways] == [True, True, True, False]
    assert all("photo" in way.words for way in ways[1:])
    with pytest.raises(ConfigError, match="--memory"):
        fit(cell, model, 1e6)


def test_an_attack_on_a_whole_picture_is_not_cut():
    model = network()
    attack = IFGSM(epsilon=4 / 255, steps=2, objective=TargetDistance(Given(torch.zeros(1, 3, 1, 1))))
    cell = cell_of(model, attack, torch.zeros(1, 3, 400, 600))
    assert fit(cell, model, 1e11).tile == 0
    with pytest.raises(ConfigError, match="--memory"):
        fit(cell, model, 1e8)


@pytest.mark.parametrize("text", ["3", "much", "-1G", "0G", "1e3G", "100k"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="--memory"):
        parse_memory(text)


def test_workers_share_the_cap():
    assert Machine(memory=3 * 10**9, workers=3).memory_each == 10**9
    assert Machine().memory_each > 0


def test_a_study_cuts_what_exceeds_its_cap_and_says_so(tmp_path):
    write_png(tmp_path / "photo.png", photo(200, 300)[0])
    study = Grid(
        name="capped", models=(str(tiny(tmp_path / "small.safetensors", "small")),), epsilons=(4,), outputs=True,
        attacks=(AttackTable("ifgsm", steps=2),), images=(str(tmp_path / "photo.png"),), high_resolution=False,
    )  # fmt: skip
    with pytest.warns(ImageNote, match="tiles"):
        records = run(study, tmp_path / "out", Machine(memory=occupied_bytes() + 150_000_000))
    (record,) = records
    assert record.tile > 0
    assert len(record.files) == 3
    assert "tiles" in " ".join(study.results(records).sentences)
    (missing,) = study.cases(records, tmp_path / "out")
    assert isinstance(missing, Missing)
    with pytest.raises(ConfigError, match="--memory"):
        run(study, tmp_path / "other", Machine(memory=occupied_bytes() // 2))


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_attack_ends_at_once_when_told_to(number, code, tmp_path):
    write_png(tmp_path / "photo.png", photo(900, 900)[0])
    words = ["attack", tiny(tmp_path / "small.safetensors", "small"), tmp_path / "photo.png", "--steps", "100000"]
    process = Typed(*words, "--device", "cpu", "--out", tmp_path / "out")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "study.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(number)
    assert process.ended(60)[0] == code
    assert time.monotonic() - began < 2
    assert not list((tmp_path / "out").rglob(".*.png"))
