"""What benchmarks claim without a clock."""

import importlib.util
import sys
from pathlib import Path

import pytest
from small import images, network

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def attack_flops(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("attack_flops", FOLDER / "attack_flops.py")
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for the names in annotations.
    monkeypatch.setitem(sys.modules, "attack_flops", module)
    spec.loader.exec_module(module)
    return module


def test_an_attack_step_costs_two_forward_passes_and_a_plain_one_three(attack_flops):
    model, x = network().requires_grad_(True), images()
    assert attack_flops.step_in_forwards(model, x) == 2
    assert attack_flops.plain_step_in_forwards(model, x) == pytest.approx(3)
    # Mean shifts that stay frozen are sums, and cost nothing.
    model.sub_mean.requires_grad_(False)
    model.add_mean.requires_grad_(False)
    assert attack_flops.plain_step_in_forwards(model, x) == pytest.approx(3)


def test_the_whole_attack_costs_a_reference_a_last_look_and_two_verdicts_more(attack_flops):
    model, x = network(), images()
    forward = attack_flops.operations(lambda: model(x))
    assert attack_flops.attack_operations(model, x, 3) == (2 * 3 + 4) * forward
