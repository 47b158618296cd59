"""TOML files, options and code of others: one line that names the file, and nothing written elsewhere."""

import tomllib
from importlib import resources
from pathlib import Path

import pytest
import torch
from odd import NAMES, damaged, forged, one_line, toml_of, tried
from test_cli import run

from resolute import ConfigError, read_recipe
from resolute.images import sample_image, write_png
from resolute.studies.kinds import read_study

ROOT = Path(str(resources.files("resolute")))
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
RECIPES = sorted((ROOT / "training" / "recipes").glob("*.toml"))


@tried(20, 300)
@pytest.mark.parametrize(("read", "files"), [(read_study, STUDIES), (read_recipe, RECIPES)], ids=["study", "recipe"])
def test_forged_toml_is_read_or_refused_in_one_line(rng, read, files, tmp_path):
    source = rng.choice(files)
    path = tmp_path / source.name
    content = source.read_bytes()
    tree = forged(rng, tomllib.loads(content.decode()))
    path.write_bytes(damaged(rng, content) if rng.random() < 0.3 else toml_of(tree).encode(errors="surrogatepass"))
    try:
        read(path)
    except ConfigError as error:
        one_line(error, path.name)


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


STUDY = {
    "name": "small", "models": ["bicubic"], "epsilons": [4], "images": ["photos"],
    "attacks": [{"kind": "ifgsm", "label": "one", "steps": 1}],
}  # fmt: skip


@tried(3, 60)
def test_names_in_a_study_lead_nowhere(rng, tmp_path, monkeypatch):
    work = tmp_path / "deep" / "work"
    monkeypatch.chdir(write_png(work / "photos" / "a.png", sample_image("coffee")[:, :32, :32]) or work)
    study = STUDY | {"name": rng.choice(NAMES)} if rng.random() < 0.5 else dict(STUDY)
    label = rng.choice(NAMES)
    Path("study.toml").write_bytes(
        toml_of(study | {"attacks": [{"kind": "ifgsm", "label": label, "steps": 1}]}).encode(errors="surrogatepass")
    )
    before = files_in(tmp_path)
    code, _, stderr = run("study", "study.toml")
    assert code in (0, 5), stderr
    assert all(name.startswith("deep/work/runs") for name in files_in(tmp_path) - before)


OPTIONS = {
    "--epsilon": ("0", "-1", "nan", "inf", "1e308", "4/0", "", "x", "1e-320", "255/255", "4/255/2"),
    "--steps": ("0", "-1", "2.5", "nan", "99999999999999999999", ""),
    "--restarts": ("0", "-3", "1e3"),
    "--attack": ("", "..", "mine.py:", "mine.py:X", "worst", "pgd", "x" * 300, "/etc/passwd:x"),
    "--objective": ("", "reference", "x", "gone.py:X"),
    "--option": (
        "steps",
        "=1",
        "steps=",
        "norm=l3",
        "region=1,2",
        "region=nan,0,1,1",
        "queries=-1",
        "kind=pgd",
        "self=1",
    ),
    "--layer": ("", "*", "[", "body.*", "\0"),
    "--precision": ("fp8", "", "float64"),
    "--scale": ("0", "-1", "99", "2.5"),
    "--range": ("0", "-1", "nan", "x"),
    "--device": ("cuda:9", "tpu", "", "meta"),
    "--memory": ("0", "-1", "nan", "1 GB", "1e99"),
    "--seed": ("-1", "99999999999999999999", "1.5"),
    "--weights": ("gone.pth", ".", ""),
    "--argument": ("x", "=", "x=nan"),
    "--out": ("a.png", "/proc/x", "\udcff", "x" * 300),
}


@pytest.mark.filterwarnings("ignore")
@tried(8, 300)
def test_odd_options_are_done_or_refused_in_one_line(rng, photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    given = {name: rng.choice(OPTIONS[name]) for name in rng.sample(sorted(OPTIONS), rng.choice((1, 1, 2)))}
    command = ["attack", rng.choice(("bicubic", "edsr-xs")), "photos", "--steps", "1"]
    code, _, stderr = run(*command, *(part for pair in given.items() for part in pair))
    assert code in range(9), stderr
    assert "Traceback" not in stderr


NETWORK = """
import sys
import torch
from torch import nn

{first}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(3, 48, 3, padding=1)
        {made}

    def forward(self, x):
        up = nn.functional.pixel_shuffle(self.last(x), 4)
        {line}
        return up
"""
FIRST = ("import nothing_of_that_name", "1 / 0", "sys.exit(3)", "raise KeyError", "Net = 7", "(", "\0", "exit()")
MADE = (
    "raise ValueError('a\\nb')",
    "self.x = x",
    "sys.exit(0)",
    "self.last.weight.data.fill_(float('nan'))",
    "self.half()",
)
LINES = (
    "raise ValueError('one\\ntwo')", "return (up, None)", "return [up]", "return {'sr': up}", "return up.detach()",
    "x.mul_(0.5)", "x.zero_()", "return up[..., :-1]", "return up[:, :2]", "return up[0]", "return up.double()",
    "return up.half()", "return up.bfloat16()", "return up.detach().numpy()", "return up * float('nan')",
    "return up * 3e38", "return up * 0", "return None", "return x", "return 7", "sys.exit(3)", "return self.forward(x)",
    "raise MemoryError", "raise StopIteration", "self.last.weight.data.mul_(1.01)", "self.train()",
    "return torch.empty(up.shape, device='meta')", "return up.repeat(2, 1, 1, 1)", "return up.to(torch.uint8)",
    "return up > 0", "return up.to_sparse()", "return up.to(torch.complex64)",
    "return up if x.mean() > 0.4 else up[..., :-4]",
    "return up + torch.rand_like(up)", "raise Exception(b'\\xff')", "torch.set_grad_enabled(False)",
    "return up.expand(1, *up.shape)", "raise OSError(28, 'No space left')", "return torch.round(up * 255) / 255",
    "raise RuntimeError('out of memory')", "del self.last", "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'no')",
    "return up.clone().requires_grad_(False)", "up.register_hook(lambda g: g * float('nan'))",
    "class Odd(Exception):\n            def __str__(self): raise ValueError\n        raise Odd",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@tried(6, 150)
def test_networks_that_misbehave_are_measured_or_refused_in_one_line(rng, photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    parts = {"first": "", "made": "", "line": ""}
    name = rng.choice(("first", "made", "line", "line", "line"))
    parts[name] = rng.choice({"first": FIRST, "made": MADE, "line": LINES}[name])
    Path("mine.py").write_text(NETWORK.format(**parts))
    before = files_in(photos.parent)
    command = rng.choice((("attack", "--steps", "2"), ("attack", "--attack", "fda", "--steps", "2")))
    code, _, stderr = run(command[0], "mine.py:Net", "photos", *command[1:], "--scale", "4", "--out", "runs/out")
    assert code in range(9), stderr
    assert "Traceback" not in stderr
    assert torch.is_grad_enabled()
    assert all(name.startswith("runs") for name in files_in(photos.parent) - before)
