"""Budgets, types, shapes, layouts, contexts and models at their edges: the right figures, or one line."""

import contextlib
import warnings

import pytest
import torch
from odd import one_line, tried
from small import network
from torch import nn

from resolute.attacks.registry import AttackTable

EPSILONS = (1 / 255, 4 / 255, 1.0, 0.0039, 1e-3, 0.5, 1e-9, 0, -1, float("nan"), float("inf"), 1.5, 1e308)
TABLES = (
    {"kind": "fgsm"}, {"kind": "ifgsm", "steps": 2}, {"kind": "pgd", "steps": 2}, {"kind": "pgd", "steps": 2,
    "norm": "l2"},
    {"kind": "apgd", "steps": 3}, {"kind": "square", "queries": 3}, {"kind": "noise", "draws": 2},
    {"kind": "fda", "steps": 2, "layers": ("all-relu",)}, {"kind": "mifgsm", "steps": 1}, {"kind": "pgd", "steps": 0},
    {"kind": "worst", "steps": 2},
)  # fmt: skip
DTYPES = (torch.float32,) * 4 + (torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool, torch.complex64)
SHAPES = (
    (1, 3, 8, 8), (2, 3, 8, 9), (3, 3, 16, 5), (1, 3, 1, 1), (0, 3, 8, 8), (1, 3, 0, 8),
    (3, 8, 8),
    (1, 1, 3, 8, 8), (8, 8), (),
)  # fmt: skip
FILLS = ("random",) * 4 + ("black", "white", "nan", "inf", "beyond", "below", "tiny")


class Model(nn.Module):
    def __init__(self, word):
        super().__init__()
        self.word = word
        self.inside = network()

    def forward(self, x):
        y = self.inside(x)
        return {
            "constant": lambda: y * 0 + 0.5, "NaN": lambda: y * float("nan"), "exploding": lambda: y * 3e38 * 3e38,
            "rounded": lambda: torch.round(y * 255) / 255, "detached": lambda: y.detach(), "infinite": lambda: y / 0,
            "changing": lambda: y if x.mean() < 0.5 else y[..., 1:], "tuple": lambda: (y, y),
            "flat": lambda: y.flatten(1),
            "half": lambda: self.inside(x).half(),
            "sometimes NaN": lambda: torch.where(x.mean() > 0.5, y, y * float("nan")),
            "large": lambda: y * 1e30, "sqrt": lambda: (y - y).abs().sqrt(), "none": lambda: None,
            "zero": lambda: y * 0,
        }[self.word]()  # fmt: skip


WORDS = (
    "constant", "NaN", "exploding", "rounded", "detached", "infinite", "changing", "tuple", "flat", "half",
    "sometimes NaN",
    "large", "sqrt", "none", "zero",
)  # fmt: skip
CONTEXTS = (
    contextlib.nullcontext, torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16),
    lambda: torch.set_grad_enabled(False), torch.random.fork_rng,
)  # fmt: skip


def picture(rng):
    shape, fill = rng.choice(SHAPES[: rng.choice((3, 12))]), rng.choice(FILLS)
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(rng.randrange(99))).mul(255).round().div(255)
    x = {
        "random": drawn, "black": drawn * 0, "white": drawn * 0 + 1, "nan": drawn * float("nan"), "inf": drawn / 0,
        "beyond": drawn * 255, "below": drawn - 0.5, "tiny": drawn * 1e-30,
    }[fill].to(rng.choice(DTYPES))  # fmt: skip
    layouts = [lambda t: t, lambda t: t.clone().requires_grad_(t.is_floating_point())]
    if x.dim() == 4:
        layouts += [lambda t: t.to(memory_format=torch.channels_last), lambda t: t.mT, lambda t: t.flip(-1)[..., ::1]]
    return rng.choice(layouts)(x)


@pytest.mark.usefixtures("unchecked_shapes")
@tried(25, 500)
def test_an_attack_is_right_or_refused_in_one_line(rng):
    model = network() if rng.random() < 0.5 else Model(rng.choice(WORDS))
    if rng.random() < 0.2:
        model = model.to(rng.choice((torch.float16, torch.bfloat16, torch.float64)))
    model.train(rng.random() < 0.3)
    epsilon, table, x = rng.choice(EPSILONS[: rng.choice((2, 13))]), dict(rng.choice(TABLES)), picture(rng)
    flags, kept = [one.training for one in model.modules()], x.detach().clone()
    state = torch.get_rng_state()
    with rng.choice(CONTEXTS)(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            attack = AttackTable(**table).build(epsilon, rng.choice(("float32", "float32", "bfloat16", "mixed")))
            found = attack(model, x)
        except (ValueError, FloatingPointError) as error:
            one_line(error, "")
        else:
            assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
            assert torch.allclose((found.images * 255).round() / 255, found.images) or table.get("norm") == "l2"
            if table.get("norm") != "l2":
                assert float((found.images.double() - kept.double()).abs().max()) <= epsilon + 0.5 / 255
            assert not found.objective.isnan().any()
    assert [one.training for one in model.modules()] == flags
    assert torch.equal(x.detach().nan_to_num(), kept.nan_to_num())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in model.parameters())
