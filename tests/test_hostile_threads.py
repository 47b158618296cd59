"""Several threads on one model: each finds what it finds alone, and the model is as it was."""

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from odd import tried
from small import images
from torch import nn

from resolute.attacks import Job, attack_all
from resolute.attacks.registry import AttackTable
from resolute.attacks.universal import universal

THREADS = 4


class Normed(nn.Module):
    """A network that is in the middle of its training, one layer of it frozen."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU())
            self.last = nn.Conv2d(8, 12, 3, padding=1)
        self.first[1].running_mean.fill_(0.1)
        self.last.requires_grad_(False)
        self.train()
        self.last.eval()

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.last(self.first(x)), 2)


TABLES = (
    {"kind": "fgsm"}, {"kind": "ifgsm", "steps": 4}, {"kind": "mifgsm", "steps": 4}, {"kind": "apgd", "steps": 5},
    {"kind": "pgd", "steps": 4, "restarts": 2}, {"kind": "pgd", "steps": 4, "norm": "l2"}, {"kind": "noise",
    "draws": 5},
    {"kind": "fda", "steps": 4, "layers": ("all-relu",)}, {"kind": "square", "queries": 6},
    {"kind": "worst", "attacks": ({"kind": "pgd", "steps": 3}, {"kind": "apgd", "steps": 3})},
    {"kind": "partial", "region": (0, 0, 1, 0.5), "steps": 3}, {"kind": "warm_start", "source": "bicubic", "steps": 3},
)  # fmt: skip


def work(rng):
    """A search, of which a call with a model returns the images found."""
    table = dict(rng.choice(TABLES))
    attack = AttackTable(**table).build(rng.choice((4, 16)) / 255, rng.choice(("float32", "bfloat16", "mixed")))
    x, seed = images(2, 8, 9, seed=rng.randrange(9)), rng.randrange(9)
    return rng.choice(
        (
            lambda model: attack(model, x, seed=seed).images,
            lambda model: torch.cat(
                [one.images for one in attack_all(model, [Job(attack, one) for one in x.split(1)])]
            ),
            lambda model: universal(model, x, 4 / 255, steps=2),
        )
    )


def state_of(model):
    hooks = sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())
    flags = [one.training for one in model.modules()], [one.requires_grad for one in model.parameters()]
    return hooks, flags, [one.grad for one in model.parameters()], [sorted(vars(one)) for one in model.modules()]


@tried(4, 100)
def test_threads_find_what_each_finds_alone(rng):
    model = Normed()
    before, weights = state_of(model), copy.deepcopy(model.state_dict())
    works = [work(rng) for _ in range(THREADS)]
    alone = [search(model) for search in works]
    begin = Barrier(THREADS)

    def run(search):
        begin.wait()
        return [search(model) for _ in range(2)]

    with ThreadPoolExecutor(THREADS) as pool:
        for found, expected in zip(pool.map(run, works), alone, strict=True):
            assert all(torch.equal(one, expected) for one in found)
    assert state_of(model) == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert not torch.is_autocast_enabled("cpu")
