"""`resolute harden` as a person types it."""

import dataclasses
import os
import resource
import signal
import time

import pytest
import torch
from small import network
from test_cli import fails, run, start

from resolute.images import sample_image, write_png
from resolute.training import judge

# Shown as the command line shows them; a random network is said not to upscale.
pytestmark = pytest.mark.filterwarnings("always::resolute.errors.ModelWarning")

RECIPE = """
base = "harden"
name = "quick"
checkpoint_every = 2

[data]
patch = 12
batch = 4
validation = 1

[optimizer]
rate = {rate}

[adversarial]
steps = 2
relative_step = 0.7
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with photographs, weights, and a recipe that takes no time."""
    whole = judge.suite
    monkeypatch.setattr(
        "resolute.training.judging.suite",
        lambda epsilon, *_: {
            name: dataclasses.replace(one, steps=2, restarts=1) for name, one in whole(epsilon).items()
        },
    )
    for name in ("astronaut", "chelsea", "coffee"):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 100:200, 150:250])
    torch.save({"params_ema": network().state_dict()}, tmp_path / "mine.pth")
    (tmp_path / "quick.toml").write_text(RECIPE.format(rate=1e-3))
    (tmp_path / "wild.toml").write_text(RECIPE.format(rate=0.3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkpoint_is_hardened(place):
    code, stdout, stderr = run(
        "harden", "mine.pth", "--data", "photos", "--recipe", "quick.toml", "--steps", 6, "--out", "out"
    )
    assert code in (0, 9), stderr
    assert "mine, hardened" in stdout
    assert "mine-hardened.pth" in stdout
    assert "validation" in stderr
    for name in ("mine-hardened.pth", "mine-hardened.md", "harden.json", "report.html", "log.jsonl"):
        assert (place / "out" / name).is_file()
    assert "clean PSNR" in (place / "out" / "report.html").read_text()
    # The weights go back to where they came from.
    code, stdout, _ = run("models", "out/mine-hardened.pth")
    assert code == 0
    assert "EDSR" in stdout


def test_a_network_in_a_file_of_code_is_hardened(place):
    (place / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self, channels=4):\n        super().__init__()\n"
        "        self.head, self.tail = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 12, 3, padding=1)\n\n"
        "    def forward(self, x):\n"
        "        return nn.functional.pixel_shuffle(self.tail(self.head(x).relu()), 2)\n"
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = {"head.weight": torch.randn(6, 3, 3, 3), "head.bias": torch.zeros(6)}
        state |= {"tail.weight": torch.randn(12, 6, 3, 3) / 20, "tail.bias": torch.full((12,), 90.0)}
    torch.save(state, place / "net.pth")
    code, _, stderr = run(
        "harden", "net.py:Net", "--weights", "net.pth", "--scale", 2, "--range", 255, "--argument", "channels=6",
        "--data", "photos", "--recipe", "quick.toml", "--steps", 4, "--out", "out",
    )  # fmt: skip
    assert code in (0, 9), stderr
    written = torch.load(place / "out" / "net-hardened.pth", weights_only=True)
    assert list(written) == list(state)
    assert any(not torch.equal(written[name], state[name]) for name in state)


def test_a_result_no_better_than_the_start_exits_with_9(place):
    code, stdout, _ = run(
        "harden", "edsr-xs", "--data", "photos", "--recipe", "wild.toml", "--steps", 3, "--out", "out"
    )
    assert code == 9
    assert stdout.startswith("Hardening did not help")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (4, ("nothing.pth", "--data", "photos")),
        (5, ("mine.pth", "--data", "photos", "--budget", "0")),
        (5, ("mine.pth", "--data", "photos", "--budget", "0.5/255")),
        (5, ("mine.pth", "--data", "photos", "--minutes", "1", "--steps", "2")),
        (5, ("mine.pth", "--data", "photos", "--recipe", "edsr-s")),
        (5, ("mine.pth", "--data", "photos", "--scale", "4")),
        (5, ("bicubic", "--data", "photos")),
        (5, ("mine.pth", "--data", "photos/coffee.png")),
        (3, ("mine.pth", "--data", "nowhere")),
    ],
)
def test_bad_input_is_one_line(place, code, arguments):
    wrong = 4 if "--scale" in arguments else code
    stderr = fails(wrong, "harden", *arguments, "--out", "out")
    assert len(stderr) < 400
    assert not (place / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_soon_and_the_same_command_goes_on(place, number, code):
    command = ("harden", "mine.pth", "--data", "photos", "--recipe", "quick.toml", "--out", "out", "--device", "cpu")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = start(*command, "--minutes", 5, env=environment)
    deadline = time.monotonic() + 120
    while not (place / "out" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    before = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert time.monotonic() - before < 10
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith(("terminated: ", "interrupted: "))
    assert not list((place / "out").glob(".*"))
    reached = torch.load(place / "out" / "checkpoint.pt", weights_only=True)["step"]
    assert reached > 0


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(place):
    command = ("harden", "mine.pth", "--data", "photos", "--recipe", "quick.toml", "--steps", 4, "--out", "out")

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = start(*command, "--device", "cpu", preexec_fn=no_room)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 7, stderr
    assert "Traceback" not in stderr
    assert not list((place / "out").glob(".*"))
    assert not (place / "out" / "checkpoint.pt").exists()


def test_the_page_is_written_again(place):
    run("harden", "mine.pth", "--data", "photos", "--recipe", "quick.toml", "--steps", 2, "--out", "out")
    before = (place / "out" / "report.html").read_text()
    code, _, stderr = run("report", "out")
    assert code == 0, stderr
    assert (place / "out" / "report.html").read_text() == before
    fails(5, "report", "out", "out")
