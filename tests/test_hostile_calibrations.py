"""Calibrations that anyone may have written: usable, or one line that names the file."""

import dataclasses
import json
import math
import os

import pytest
import torch
from odd import damaged, forged, one_line, text_of, tried

from resolute.certificates.gap import Calibration, Screening
from resolute.certificates.trust import THRESHOLDS, Trust
from resolute.errors import ConfigError

CURVE = tuple(min(1.0, place / 50) for place in range(len(THRESHOLDS)))
GAPS = Calibration(
    metric="score", fingerprint="f", screening=Screening(), smallest=16, gaps={"made up": tuple(map(float, range(99)))}
)
TRUST = Trust(model="model", fingerprint="f", photographs="made up", bound=16, losses=(CURVE,) * 12)


def used_gaps(path):
    made = Calibration.read(path)
    assert not any(math.isnan(gap) for own in made.gaps.values() for gap in own)
    assert 0 < made.p_value(made.threshold(0.02)) <= 1
    return made


def used_trust(path):
    made = Trust.read(path)
    assert made.threshold(0.1) <= THRESHOLDS[-1]
    assert made.mask(torch.rand(3, 8, 8), 2, 0.1).shape == (8, 8)
    assert 0 < made.bound < 255
    return made


@tried(60, 1500)
@pytest.mark.parametrize(("made", "used"), [(GAPS, used_gaps), (TRUST, used_trust)], ids=["gaps", "trust"])
def test_forged_calibrations_are_used_or_refused_in_one_line(rng, made, used, tmp_path):
    path = tmp_path / "made.json"
    made.write(path)
    content = path.read_bytes()
    path.write_bytes(damaged(rng, content) if rng.random() < 0.3 else text_of(forged(rng, json.loads(content))))
    try:
        used(path).write(path)
    except ConfigError as error:
        if "rate of" not in str(error):  # it is one, of too few photographs
            one_line(error, path.name)
    else:
        used(path)


@pytest.mark.parametrize("read", [Calibration.read, Trust.read])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"gaps":' * 100_000, b"[]", b"null", b"\xff", b"9" * 5000])
def test_what_is_no_calibration_is_refused(read, content, tmp_path):
    path = tmp_path / "made.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"made\.json"):
        read(path)


@pytest.mark.parametrize("read", [Calibration.read, Trust.read])
def test_nobody_waits_for_a_pipe_or_reads_a_device(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        with pytest.raises(ConfigError, match="no regular file"):
            read(path)


@pytest.mark.parametrize("gap", [math.nan, -math.inf])
def test_gaps_that_are_none_flag_nobody_and_hide_nobody(gap, tmp_path):
    path = tmp_path / "made.json"
    path.write_text(json.dumps(dataclasses.asdict(GAPS) | {"gaps": [gap] * 99}))
    with pytest.raises(ConfigError, match=r"made\.json"):
        Calibration.read(path)
