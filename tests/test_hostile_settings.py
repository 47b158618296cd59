"""TOML files, options and code of others: one line that names the file, and nothing written elsewhere."""

import time
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import torch
from odd import NAMES, damaged, forged, one_line, toml_of, tried
from test_cli import run

from resolute import ConfigError, load, read_recipe
from resolute.errors import CheckpointError
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


OF_KINDS = {
    "faithful": {"models": ["bicubic"], "images": ["a.png"], "truths": ["b.png"], "calibration": "made.json"},
    "compare-models": {"models": ["bicubic"], "level": 4, "steps": 1, "metric": "quality-m"},
    "twin": {"models": ["edsr-xs", "edsr-xs+as=float16"], "tolerance": 1, "level": 8},
    "survival": {"models": ["bicubic"], "corruptions": ["jpeg"], "severities": [1, 5]},
    "certified-restoration": {"models": ["bicubic"], "sigmas": [0.05], "epsilons": [0.01], "regions": ["0,0,2,2"]},
    "audit": {"images": ["a.png"], "references": ["b.png"], "defence": "blur-3", "calibration": "made.json"},
    "certification": {"images": ["a.png"], "metric": "quality-s", "samples": 30, "attacks": [{"epsilon": 0.01}]},
    "check": {"models": ["bicubic"], "suite": {"steps": 2, "restarts": 2}},
}


@tried(40, 400)
def test_forged_toml_of_kinds_without_a_file_here_is_read_or_refused_in_one_line(rng, tmp_path):
    kind = rng.choice(sorted(OF_KINDS))
    path = tmp_path / "mine.toml"
    content = toml_of({"kind": kind, **OF_KINDS[kind]}).encode()
    read_study(_written(path, content))
    tree = forged(rng, {"kind": kind, **OF_KINDS[kind]})
    try:
        read_study(_written(path, damaged(rng, content) if rng.random() < 0.3 else _bytes(tree)))
    except ConfigError as error:
        one_line(error, path.name)


def _written(path, content):
    path.write_bytes(content)
    return path


def _bytes(tree):
    return toml_of(tree).encode(errors="surrogatepass")


def test_a_value_of_very_many_lines_keeps_nobody_waiting(tmp_path):
    path = _written(
        tmp_path / "mine.toml",
        b'kind = "survival"\nmodels = ["bicubic"]\nimages = [\n' + b'"a",\n' * 30_000 + b"]\nevery = 0\n",
    )
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"mine\.toml.*every"):
        read_study(path)
    assert time.process_time() - began < 20


MODELS = ("edsr-xs", "bicubic", "gone.pth", "mine.py:Net", "", "..", "x" * 300, "\0")
BEHIND = ("", "#x4", "#x0", "#x4,x4", "#range=1e-320", "#range=:", "#res_scale={[]:1}", "#res_scale=1e999", "#layer=")
BEHIND += (f"#res_scale=1{'0' * 400}", f"#sha256={'0' * 64}", "#sha256=0", f"#{'[' * 999}", "#a={[]:1}", "#,", "##")
AROUND = (
    "",
    "+",
    "+denoise=",
    "+denoise=gone.pth",
    "+denoise=..",
    "+denoise=edsr-xs",
    "+confine=nan",
    "+confine=1e999",
)
AROUND += (
    "+confine=0",
    "+as=",
    "+as=int4",
    "+mix=",
    "+blur=1e9",
    "+round8=1",
    "+ensemble",
    "+\udcff=1",
    "+blur=0" * 900,
)


@tried(40, 400)
def test_odd_addresses_are_loaded_or_refused_in_one_line(rng):
    address = "".join(rng.choice(parts) for parts in (MODELS, BEHIND, AROUND, AROUND))
    code, _, stderr = run("models", address)
    assert code in (0, 4, 5), stderr
    assert len(stderr) < 2000


def test_the_sha256_of_a_built_in_model_counts_too():
    with pytest.raises(CheckpointError, match="sha256"):
        load(f"edsr-xs#sha256={'0' * 64}")


@pytest.mark.parametrize(
    "options",
    [
        ("twin", "edsr-xs", "float16", "--level", "300"),
        ("twin", "edsr-xs", "float16", "--level", "inf"),
        ("survive", "bicubic", "--crop", "1" + "0" * 30, "--corruption", "jpeg", "--images", "photos"),
        ("faithful", "bicubic", "photos", "--calibration", "x" * 300),
        ("compare-models", "x" * 300, "bicubic"),
        ("certify-restoration", "photos", "--model", "bicubic", "--sigma", "nan"),
    ],
    ids=lambda words: words[0],
)
def test_options_that_no_study_takes_are_one_line_and_leave_nothing(options, photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    before = files_in(photos.parent)
    code, _, stderr = run(*options)
    assert code == 5, stderr
    assert "error: " in stderr
    assert len(stderr) < 500
    assert not [name for name in files_in(photos.parent) - before if name.endswith(("json", "jsonl"))]


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
