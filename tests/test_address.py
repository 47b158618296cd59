"""Addresses of models, as people type them."""

import json
import re
from pathlib import Path

import pytest
import torch
from small import images, network
from typer.testing import CliRunner

from resolute import load, load_defended
from resolute.cli import app
from resolute.cli.app import addressed
from resolute.defences.loading import undefended
from resolute.errors import CheckpointError, ConfigError
from resolute.models import CARN
from resolute.models.address import Address, complete, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("edsr-s", Address(target="edsr-s")),
        ("carn.pth#x4", Address(target="carn.pth", scale=4)),
        ("net.onnx#range=1:255,bgr", Address(target="net.onnx", range=(1.0, 255.0), bgr=True)),
        ("edsr.pt#res_scale=0.1", Address(target="edsr.pt", res_scale=0.1)),
        ("a#b/net.pt#x2", Address(target="a#b/net.pt", scale=2)),
        ("net.py:Net", Address(target="net.py", name="Net")),
        (
            "nets/net.py:Net#x4,range=255,weights=w.pth,layer=tail.0,nf=48,act=prelu,wide=true,arch=[3,1,2],res_scale=0.1",
            Address(
                target="nets/net.py",
                name="Net",
                scale=4,
                range=(255.0, 255.0),
                weights="w.pth",
                layer="tail.0",
                arguments=(("nf", 48), ("act", "prelu"), ("wide", True), ("arch", [3, 1, 2]), ("res_scale", 0.1)),
            ),
        ),
        ("net.py:Net#scale=4", Address(target="net.py", name="Net", arguments=(("scale", 4),))),
        (f"hf-hub:a/b/c.pth@v1#sha256={'A' * 64}", Address(target="hf-hub:a/b/c.pth@v1", sha256="a" * 64)),
    ],
)
def test_an_address_is_read_and_written_in_one_form(text, address):
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("net.pth#range=loud", "a range is 255, or 1:255"),
        ("net.pth#range=0", "a range is"),
        ("net.pth#range=1:2:3", "a range is"),
        ("net.pth#4", "'4' in 'net.pth#4' is no option of a file; as in FILE#x4,range=255"),
        ("net.pth#nf=48", "no option of a file"),
        ("net.pth#weights=other.pth", "no option of a file"),
        ("net.py:Net#48", "no option of code; as in FILE.py:NAME#x4"),
        ("net.pth#x4,x2", "says scale twice"),
        ("net.py:Net#nf=1,nf=2", "says nf twice"),
        ("net.pth#sha256=abc", "64 hexadecimal digits"),
        ("net.pth#res_scale=big", "res_scale is a number"),
    ],
)
def test_what_is_no_option_is_refused(text, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        parse_address(text)


@pytest.mark.parametrize(
    "behind", ["x0," + "[" * 1900, "+blur=0" * 900, "range=" + "9e" * 900, "range=1," * 900 + "range=1"]
)
def test_what_is_too_long_for_a_line_is_refused_in_one(behind):
    with pytest.raises(ConfigError) as refused:
        parse_address(f"edsr.pt#{behind}")
    assert len(str(refused.value)) < 400


def test_a_file_of_the_whole_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("net.pt#x4", "net+mix=0.5.pt"):
        torch.save(network().state_dict(), name)
        assert load_defended(name).scale == 2


def test_the_command_line_says_the_same():
    assert addressed("net.py:Net#nf=48", 4, "w.pth", "255", ["act=prelu"]) == (
        "net.py:Net#x4,range=255,weights=w.pth,nf=48,act=prelu"
    )
    assert parse_address(addressed("net.py:Net", arguments=["act='a,b'"])).arguments == (("act", "a,b"),)
    assert addressed("carn.pth+mix=0.5+round8", scale=4) == "carn.pth#x4+mix=0.5+round8"
    with pytest.raises(ConfigError, match="scale"):
        addressed("carn.pth#x2", scale=4)
    for options in ({"arguments": ["nf=48"]}, {"weights": "w.pth"}):
        with pytest.raises(ConfigError, match="for code"):
            addressed("carn.pth", **options)
    with pytest.raises(ConfigError, match=r"--argument .*NAME=VALUE"):
        addressed("net.py:Net", arguments=["48"])


def test_defences_stand_behind_everything_else():
    assert undefended("net.py:Net#x4,weights=a+b.pth+blur=0.8") == ("net.py:Net#x4,weights=a+b.pth", ["blur=0.8"])
    assert undefended("edsr-s") == ("edsr-s", [])
    with pytest.raises(ConfigError, match=r"'mxi=0\.5'"):
        load_defended("edsr-xs+mxi=0.5")


def test_options_of_a_weights_file_are_heard(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(network().state_dict(), path)
    x = images()
    plain = load(path)
    unit = load(f"{path}#range=1")
    # The network inside is given [0, 1] in place of [0, 255].
    torch.testing.assert_close(unit(x), 255 * plain(x / 255))
    torch.testing.assert_close(load(f"{path}#range=255")(x), plain(x))
    torch.testing.assert_close(load(f"{path}#bgr")(x), plain(x.flip(1)).flip(1))
    halved = load(f"{path}#res_scale=0.5")
    assert halved.body[0].res_scale == 0.5
    found = [plain, unit, load(f"{path}#bgr"), halved]
    assert len({model.card.sha256 for model in found}) == 4
    torch.testing.assert_close(unit.reconstruct(unit.features(x)), unit(x))
    with pytest.raises(CheckpointError, match="sha256"):
        load(f"{path}#sha256={'0' * 64}")
    with pytest.raises(ConfigError, match="scale"):
        load(f"{path}#x4", scale=2)
    with pytest.raises(CheckpointError, match="by 2, not by 4"):
        load(f"{path}#x4")


def test_complete_leaves_what_is_said(tmp_path):
    address = parse_address("net.py:Net#x4,nf=48")
    assert complete(address) == address
    assert complete(address, scale=4, arguments=["nf=50"]).arguments == (("nf", 50),)


# As it is typed.

CODE = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, nf=4):
        super().__init__(
            nn.Conv2d(3, nf, 3, padding=1), nn.Conv2d(nf, 12, 3, padding=1), nn.PixelShuffle(2)
        )
"""


def typed(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.filterwarnings("ignore:the code in")
def test_a_network_by_its_code_on_the_command_line(tmp_path, photos):
    code = tmp_path / "net.py"
    code.write_text(CODE)
    model = load(f"{code}:Net#nf=5")
    torch.save(model.network.state_dict(), tmp_path / "mine.pth")
    options = ["--weights", tmp_path / "mine.pth", "--range", "255", "--argument", "nf=5"]
    status, said = typed("models", f"{code}:Net", *options, "--scale", "2")
    assert status == 0
    assert "mine" in said
    assert "range [255.0, 255.0]" in said
    out = tmp_path / "out"
    assert typed("attack", f"{code}:Net", photos / "coffee.png", *options, "--steps", "1", "--out", out)[0] == 0
    (row,) = json.loads((out / "figures.json").read_text())
    assert row["model"] == "mine"
    status, said = typed("models", f"{code}:Net", *options, "--scale", "4")
    assert (status, "by 2, not by 4" in said) == (4, True)
    status, said = typed("models", "edsr-xs", "--argument", "nf=5")
    assert (status, "--argument" in said) == (5, True)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("carn.pth#x4", "new.pth#x4"),
        (f"net.pth#sha256={64 * 'a'}", "new.pth"),
        ("net.py:Net#x4,weights=old.pth,blocks=5", "net.py:Net#x4,weights=new.pth,blocks=5"),
        ("net.py:Net#x4", "net.py:Net#x4,weights=new.pth"),
    ],
)
def test_the_same_network_with_other_weights(address, expected):
    assert str(parse_address(address).holding(Path("new.pth"))) == expected


def test_options_of_a_study_are_about_one_model(tmp_path):
    status, said = typed("study", "demo", "--model", "edsr-xs", "--model", "edsr-s", "--range", "255", "--plan")
    assert (status, "one --model" in said) == (5, True)


def test_one_scale_of_several_on_the_command_line(tmp_path):
    states = {scale: CARN(scale=scale, channels=4).state_dict() for scale in (2, 4)}
    state = {n.replace(".up.", f".up{s}."): t for s, one in states.items() for n, t in one.items()}
    torch.save(state, tmp_path / "carn.pth")
    status, said = typed("models", tmp_path / "carn.pth")
    assert (status, "--scale 4" in said, "#x4" in said) == (4, True, True)
    for words in ([tmp_path / "carn.pth", "--scale", "2"], [f"{tmp_path / 'carn.pth'}#x2+mix=0.5"]):
        status, said = typed("models", *words)
        assert (status, bool(re.search(r"scale\W+2", said))) == (0, True)
