"""No other machine is asked for anything but what a name asks for, and with --offline not for that either."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from warm import Typed

import resolute
from resolute.attacks.registry import AttackTable
from resolute.engine.cluster import run_on_ray
from resolute.engine.queue import Queue
from resolute.engine.running import plan_of
from resolute.errors import CheckpointError, ConfigError
from resolute.offline import _refuse

SOURCE = Path(resolute.__file__).parent

WATCHED = """
import importlib, sys, warnings
from pathlib import Path

def watch(event, arguments):
    # Sockets of this machine are files.
    if event == "socket.connect" and isinstance(arguments[1], str | bytes):
        return
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        sys.exit(f"asked the network: {event} {arguments}")

sys.addaudithook(watch)
source, folder, photo = Path(sys.argv[1]), *sys.argv[2:]
for file in sorted(source.rglob("*.py")):
    if file.name != "__main__.py" and "serve" not in file.parts:
        importlib.import_module(".".join(file.relative_to(source.parent).with_suffix("").parts).removesuffix(".__init__"))

from typer.testing import CliRunner
from resolute.cli import app

for words in (
    ["attack", "edsr-xs", photo, "--steps", "1", "--out", folder + "/attack"],
    ["certify", photo, "--metric", "quality-s", "--samples", "30", "--fit", "64", "--out", folder + "/certify"],
    ["study", folder + "/study.toml", "--workers", "2", "--out", folder + "/study"],
    ["query", "SELECT count(*) FROM attacks", "--runs", folder + "/study"],
    ["models"],
):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (words, done.output, done.exception)
"""


def test_imports_and_commands_ask_no_other_machine(photos, tmp_path):
    (tmp_path / "watched.py").write_text(f"if __name__ == '__main__':\n{textwrap.indent(WATCHED, '    ')}")
    (tmp_path / "study.toml").write_text(
        f'name = "one"\nmodels = ["bicubic"]\nepsilons = [4]\nimages = ["{photos}"]\n[[attacks]]\nkind = "fgsm"\n'
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "watched.py", SOURCE, tmp_path, photos / "coffee.png"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_with_offline_even_code_of_ones_own_reaches_nobody(photos, tmp_path):
    (tmp_path / "net.py").write_text(
        "import urllib.request\ndef net():\n    return urllib.request.urlopen('http://192.0.2.1/weights').read()\n"
    )
    attack = ("--offline", "attack", f"{tmp_path}/net.py:net#x2", photos / "coffee.png")
    code, stderr = Typed(*attack, "--out", tmp_path / "out").ended(120)
    assert code in (4, 5), stderr
    assert "192.0.2.1" in stderr
    assert "--offline" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("name", ["hf-hub:someone/sr/nets/tiny.safetensors", "openmodeldb:4x-UltraSharp"])
def test_with_offline_names_of_hubs_are_refused(name, tmp_path, monkeypatch):
    for variable, value in (("RESOLUTE_OFFLINE", "1"), ("XDG_CACHE_HOME", str(tmp_path))):
        monkeypatch.setenv(variable, value)
    with pytest.raises(CheckpointError, match="--offline"):
        resolute.load(name)


def test_with_offline_a_cluster_elsewhere_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray, the extra [ray]")
    monkeypatch.setenv("RESOLUTE_OFFLINE", "1")
    study = resolute.Grid(name="one", models=("bicubic",), attacks=(AttackTable(kind="fgsm"),), crop=32)
    with pytest.raises(ConfigError, match="--ray local"):
        run_on_ray(Queue(plan_of(study), tmp_path, 1), resolute.Machine(ray="10.0.0.1:6379"))


@pytest.mark.parametrize(
    ("event", "arguments", "refused"),
    [
        ("socket.connect", (None, ("192.0.2.1", 80)), True),
        ("socket.connect", (None, ("127.0.0.1", 80)), False),
        ("socket.connect", (None, ("::1", 80, 0, 0)), False),
        ("socket.connect", (None, "/run/socket"), False),
        ("socket.sendto", (None, ("8.8.8.8", 53)), True),
        ("socket.sendmsg", (None, None), False),
        ("socket.getaddrinfo", ("hub.example", 443, 0, 0, 0), True),
        ("socket.getaddrinfo", (b"localhost", 1, 0, 0, 0), False),
        ("socket.getaddrinfo", (None, 1, 0, 0, 0), False),
        ("open", ("192.0.2.1", "r", 0), False),
    ],
)
def test_what_is_this_machine(event, arguments, refused):
    if refused:
        with pytest.raises(ConfigError, match="--offline"):
            _refuse(event, arguments)
    else:
        _refuse(event, arguments)
