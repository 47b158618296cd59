"""`resolute harden` as a person types it."""

import json
import resource
import shutil
import signal
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small import judge_by_few_steps, network
from test_cli import fails, run
from warm import Typed

from resolute.images import sample_image, write_png
from resolute.models.wrapped import as_restorer
from resolute.training import hardening

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
    judge_by_few_steps(monkeypatch)
    for name in ("astronaut", "chelsea", "coffee"):
        write_png(tmp_path / "photos" / f"{name}.png", sample_image(name)[:, 100:160, 150:210])
    torch.save({"params_ema": network().state_dict()}, tmp_path / "mine.pth")
    (tmp_path / "quick.toml").write_text(RECIPE.format(rate=1e-3))
    (tmp_path / "wild.toml").write_text("clean_loss = 0" + RECIPE.format(rate=0.0025))
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


def test_a_plan_says_what_it_costs_and_leaves_nothing_behind(place):
    code, _, stderr = run("harden", "mine.pth", "--data", "photos", "--recipe", "quick.toml", "--plan", "--out", "out")
    assert code == 0, stderr
    assert "minutes in all" in stderr
    # So that another plan is no other run.
    assert not [path for path in (place / "out").glob("*") if path.suffix != ".lock"]


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
    process = Typed(*command, "--minutes", 5)
    deadline = time.monotonic() + 120
    while not (place / "out" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    before = time.monotonic()
    process.send_signal(number)
    ended, stderr = process.ended(30)
    assert ended == code
    assert time.monotonic() - before < 5
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith(("terminated: ", "interrupted: "))
    assert not list((place / "out").glob(".*"))
    reached = torch.load(place / "out" / "checkpoint.pt", weights_only=True)["step"]
    assert reached > 0


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(place):
    command = ("harden", "mine.pth", "--data", "photos", "--recipe", "quick.toml", "--steps", 4, "--out", "out")
    code, stderr = Typed(*command, "--device", "cpu", limit=(resource.RLIMIT_FSIZE, (8000, 8000))).ended(120)
    assert code == 7, stderr
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


QUICK = ("--recipe", "quick.toml", "--steps", 2, "--device", "cpu")
CODE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.x, self.y = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 12, 3, padding=1)
        if tied:
            self.y.weight, self.y.bias = self.x.weight, self.x.bias
    def forward(self, x):
        y = self.b(self.y(self.x(self.a(x)).relu()).relu())
        return nn.functional.pixel_shuffle(y, 2) + nn.functional.interpolate(x, scale_factor=2)
"""


def net(tied=False):
    space = {}
    exec(CODE, space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return space["Net"](tied)


def code(folder, tied=False, weights="net.pth"):
    (folder / "net.py").write_text(CODE)
    torch.save({name: tensor.clone() for name, tensor in net(tied).state_dict().items()}, folder / weights)


def test_weights_of_an_object_load_into_the_plain_network(place):
    made = hardening.harden(as_restorer(net(), 2), "photos", "out", recipe="quick.toml", steps=2, device="cpu")
    net().load_state_dict(load_file(made.weights), strict=True)


def test_an_object_with_tied_weights_is_written_or_refused_before_training(place):
    hardening.harden(as_restorer(net(True), 2), "photos", "out", recipe="quick.toml", steps=2, device="cpu")


def test_tied_weights_stay_equal_in_the_file(place):
    code(place, tied=True)
    model = "net.py:Net#x2,tied=True,weights=net.pth"
    assert run("harden", model, "--data", "photos", *QUICK, "--out", "o")[0] in (0, 9)
    written = torch.load(place / "o" / "net-hardened.pth")
    assert torch.equal(written["x.weight"], written["y.weight"])


@pytest.mark.parametrize("out", ["o,1", "o#1"])
def test_folders_of_any_name(place, out):
    code(place)
    assert run("harden", "net.py:Net", "--weights", "net.pth", "--scale", 2, "--data", "photos", *QUICK, "--out", out)[
        0
    ] in (0, 9)


def test_a_folder_with_a_plus(place):
    assert run("harden", "mine.pth", "--scale", 2, "--data", "photos", *QUICK, "--out", "o+1")[0] in (0, 9)


def test_a_flat_photograph_held_out(place):
    for name in ("a", "b", "c"):
        Image.new("RGB", (60, 60), (128, 128, 128)).save(place / "photos" / f"{name}.png")
    assert run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")[0] in (0, 9)


def test_a_recipe_that_holds_nothing_out(place):
    (place / "quick.toml").write_text(RECIPE.format(rate=1e-3).replace("validation = 1", "validation = 0"))
    assert run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")[0] == 5
    assert not (place / "o").exists()


def test_pictures_are_those_of_the_figures(place):
    run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")
    before = (place / "o" / "report.html").read_text()
    write_png(place / "other" / "other.png", sample_image("coffee")[:, :64, :64])
    run("harden", "mine.pth", "--data", "photos", "--test", "other", *QUICK, "--out", "o")
    run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")
    pictures = [page.split("<h2>How it was made")[0] for page in (before, (place / "o" / "report.html").read_text())]
    assert pictures[0] == pictures[1]


def test_the_middle_of_each_image_is_judged(place):
    write_png(place / "other" / "other.png", sample_image("coffee")[:, :96, :80])
    run("harden", "mine.pth", "--data", "photos", "--test", "other", "--crop", 16, *QUICK, "--out", "o")
    made = json.loads((place / "o" / "harden.json").read_text())
    with Image.open(place / "o" / made["pictures"]["other.png"]["before"]["attacked"]) as attacked:
        assert attacked.size == (16, 16)
    assert run("harden", "mine.pth", "--data", "photos", "--test", "other", "--crop", 8, *QUICK, "--out", "o")[0] == 2


def test_two_photographs_of_one_name_keep_their_pictures(place):
    for folder, names in (("A", "123"), ("B", "1")):
        (place / folder).mkdir()
        for name, shot in zip(names, ("astronaut", "chelsea", "coffee"), strict=False):
            shutil.copy(place / "photos" / f"{shot}.png", place / folder / f"{name}.png")
    (place / "quick.toml").write_text(RECIPE.format(rate=1e-3).replace("validation = 1", "validation = 2"))
    run("harden", "mine.pth", "--data", "A", "--data", "B", *QUICK, "--out", "o")
    assert len(json.loads((place / "o" / "harden.json").read_text())["pictures"]) == 2


def test_what_is_judged_on_was_not_trained_on(place):
    fails(5, "harden", "mine.pth", "--data", "photos", "--test", "photos", *QUICK, "--out", "o")
    write_png(place / "photos" / "rocket.png", sample_image("rocket")[:, 100:200, 150:250])
    code, _, _ = run("harden", "mine.pth", "--data", "photos", "--test", "photos/coffee.png", *QUICK, "--out", "o")
    assert code in (0, 9)
    made = json.loads((place / "o" / "harden.json").read_text())
    assert [one["image"] for one in made["after"]["judged"]] == ["coffee.png"]


def test_a_photograph_named_twice_counts_once(place):
    command = ("harden", "mine.pth", "--data", "photos", "--data", "photos/coffee.png", *QUICK, "--out", "o")
    assert run(*command)[0] in (0, 9)
    made = json.loads((place / "o" / "harden.json").read_text())
    assert len(made["pictures"]) == 1


def test_photographs_that_changed_are_noticed(place):
    run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")
    write_png(place / "photos" / "coffee.png", sample_image("rocket")[:, 100:200, 150:250])
    assert "other photographs" in fails(5, "harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")


def test_code_without_its_weights_is_refused(place):
    code(place)
    stderr = fails(4, "harden", "net.py:Net", "--scale", 2, "--data", "photos", *QUICK, "--out", "o")
    assert "--weights" in stderr


def test_a_full_disk_while_the_weights_are_written(place, monkeypatch):
    # Half of a compiled module would be taken for a whole one ever after.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    whole = torch.load("mine.pth") | {"optimizer": torch.zeros(200_000)}
    torch.save(whole, "mine.pth")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")[0] == 7
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_photographs_and_models_of_names_that_are_no_text(place):
    (place / "photos" / "chelsea.png").rename(place / "photos" / "\udcff.png")
    (place / "photos" / "astronaut.png").rename(place / "photos" / "\udcfe.png")
    (place / "photos" / "coffee.png").rename(place / "photos" / "\udcfd.png")
    assert run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")[0] in (0, 9)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), 2.0])
def test_a_budget_out_of_range_is_a_config_error(place, epsilon):
    with pytest.raises(hardening.ConfigError):
        hardening.harden("mine.pth", "photos", "o", recipe="quick.toml", steps=2, epsilon=epsilon)


@pytest.mark.parametrize("key", ["optimizer", "parts", "recipe"])
def test_a_damaged_checkpoint_is_one_line(place, key):
    run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")
    content = torch.load("o/checkpoint.pt")
    content[key] = "{" if key == "recipe" else {}
    torch.save(content, "o/checkpoint.pt")
    assert run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")[0] in (4, 5)


def test_a_torn_log_is_no_traceback(place):
    run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")
    content = torch.load("o/checkpoint.pt") | {"step": 1}
    torch.save(content, "o/checkpoint.pt")
    (place / "o" / "log.jsonl").write_text('{"step": 0, "ps')
    assert run("harden", "mine.pth", "--data", "photos", *QUICK, "--out", "o")[0] in (0, 9)
