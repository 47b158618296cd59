"""One batch of images, budgets and restarts finds what each attack finds alone, whatever the memory allows."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small import images as small_images
from small import network
from torch import nn

from resolute.attacks import APGD, FDA, IFGSM, L2, MIFGSM, PGD, Job, Linf, Partial, RandomNoise, Rectangle, attack_all
from resolute.attacks import batch as module
from resolute.attacks.batch import Stacked, footprint
from resolute.attacks.targeted import Given, ReferenceShift
from resolute.models import load

LEVELS = (1, 4, 16)


def images(count: int, side: int = 16) -> list[torch.Tensor]:
    drawn = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return list((drawn * 255).round().div(255).split(1))


@pytest.fixture
def model() -> nn.Module:
    return load("edsr-xs")


@pytest.mark.parametrize(
    "attack",
    [
        IFGSM(epsilon=1, steps=3),
        PGD(epsilon=1, steps=3, restarts=2),
        PGD(epsilon=1, steps=3, norm="l2"),
        MIFGSM(epsilon=1, steps=3),
        APGD(epsilon=1, steps=6, restarts=2),
        FDA(epsilon=1, steps=3),
    ],
    ids=repr,
)
def test_a_batch_of_budgets_images_and_restarts_finds_what_each_finds_alone(attack):
    model = network().double()
    attacks = [dataclasses.replace(attack, epsilon=level / 255) for level in LEVELS]
    jobs = [Job(attack, image, seed=3) for image in small_images(2).double().split(1) for attack in attacks]
    one = footprint(model, attack.ascent(), jobs[0].image)
    for memory in (5 * one, 2**40):
        for job, found in zip(jobs, attack_all(model, jobs, memory=memory), strict=True):
            alone = job.attack(model, job.image, seed=3)
            assert found.gradients == alone.gradients
            torch.testing.assert_close(found.unrounded, alone.unrounded, rtol=0, atol=1e-9)
            torch.testing.assert_close(found.images, alone.images, rtol=0, atol=1e-9)
            torch.testing.assert_close(found.objective, alone.objective)


def test_an_objective_with_a_picture_of_its_own_climbs_in_a_batch():
    model, image = network(), small_images(1)
    given = ReferenceShift(Given(torch.zeros(1, 3, 14, 12)))
    jobs = [Job(PGD(epsilon=level / 255, steps=2, restarts=2, objective=given), image) for level in LEVELS]
    for job, found in zip(jobs, attack_all(model, jobs, memory=2**40), strict=True):
        torch.testing.assert_close(found.objective, job.attack(model, image).objective, rtol=1e-4, atol=0)


def test_the_verdict_and_the_reference_stay_float32():
    model, image = network(), small_images(1)
    attack = PGD(epsilon=4 / 255, steps=2, precision="bfloat16")
    (found,) = attack_all(model, [Job(attack, image)], memory=2**40)
    assert found.objective.dtype == torch.float32
    torch.testing.assert_close(found.objective, attack.objective.bind(model, image)(found.images), rtol=1e-4, atol=0)


def sizes_of(model, jobs, monkeypatch, memory):
    """Attack, and return the sizes of the batches whose gradients were taken."""
    seen = []
    ascend = module.ascend

    def watched(plan, clean, *rest):
        seen.append(len(clean))
        return ascend(plan, clean, *rest)

    monkeypatch.setattr(module, "ascend", watched)
    attack_all(model, jobs, memory=memory)
    return seen


def test_batches_are_as_large_as_the_memory_holds(model, monkeypatch):
    jobs = [Job(PGD(epsilon=level / 255, steps=1, restarts=2), image) for image in images(2) for level in LEVELS]
    one = footprint(model, jobs[0].attack.ascent(), jobs[0].image)
    assert sizes_of(model, jobs, monkeypatch, 2**40) == [12]
    monkeypatch.undo()
    assert sizes_of(model, jobs, monkeypatch, 5 * one) == [5, 5, 2]
    monkeypatch.undo()
    assert sizes_of(model, jobs, monkeypatch, 1) == [1] * 12
    monkeypatch.undo()
    assert sizes_of(model, jobs, monkeypatch, None) == [12]
    monkeypatch.setattr(module, "PIXELS", 6 * jobs[0].image[0, 0].numel())
    assert sizes_of(model, jobs, monkeypatch, None) == [6, 6]


def test_the_footprint_is_what_a_forward_pass_keeps(model):
    (image,) = images(1)
    plan = PGD(epsilon=4 / 255).ascent()
    one = footprint(model, plan, image)
    # 32 channels of 16 x 16 floats for every convolution, and more behind the upsampler.
    assert one > 8 * 32 * 16 * 16 * 4
    assert footprint(model, plan, image.repeat(3, 1, 1, 1)) == 3 * one


def test_only_what_climbs_alike_shares_a_batch(model, monkeypatch):
    small, large = images(1)[0], images(1, 24)[0]
    e = 4 / 255
    jobs = [
        Job(PGD(epsilon=e, steps=2), small),
        Job(PGD(epsilon=e, steps=2), large),
        Job(PGD(epsilon=e, steps=3), small),
        Job(APGD(epsilon=e, steps=2), small),
        Job(FDA(epsilon=e, steps=2), small),
        Job(RandomNoise(epsilon=e, draws=2), small),
        Job(Partial(attack=PGD(epsilon=2 * e, steps=2), region=Rectangle(), epsilon=2 * e), small),
        Job(PGD(epsilon=2 * e, steps=2, norm="l2"), small),
    ]
    assert sorted(sizes_of(model, jobs, monkeypatch, 2**40)) == [1, 1, 1, 1, 1, 2]


class Narrow(nn.Module):
    """A model that has memory for so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.inner, self.room, self.batches = load("edsr-xs"), room, []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.inner(x)


def test_a_batch_that_does_not_fit_is_halved():
    jobs = [Job(PGD(epsilon=level / 255, steps=1), image) for image in images(2) for level in LEVELS]
    model = Narrow(room=2)
    found = attack_all(model, jobs, memory=2**40)
    assert max(model.batches) == 6
    for job, one in zip(jobs, found, strict=True):
        torch.testing.assert_close(one.objective, job.attack(model.inner, job.image).objective, rtol=1e-3, atol=1e-8)


def test_an_image_that_does_not_fit_alone_is_said_so():
    class Full(Narrow):
        def forward(self, x):
            if x.requires_grad:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
            return self.inner(x)

    with pytest.raises(MemoryError, match=r"16 x 16 .*tiles"):
        attack_all(Full(0), [Job(PGD(epsilon=4 / 255, steps=1), images(1)[0])])


def test_other_errors_are_not_taken_for_a_lack_of_memory(model):
    class Broken(Narrow):
        def forward(self, x):
            if x.requires_grad:
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
            return self.inner(x)

    with pytest.raises(RuntimeError, match="mat1"):
        attack_all(Broken(0), [Job(PGD(epsilon=4 / 255, steps=1), images(1)[0])])


def test_progress_ends_at_one_and_never_falls(model):
    told = []
    jobs = [Job(PGD(epsilon=level / 255, steps=3, restarts=2), images(1)[0]) for level in LEVELS]
    jobs.append(Job(RandomNoise(epsilon=4 / 255, draws=4), images(1)[0]))
    attack_all(model, jobs, memory=2**40, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert len(told) > 4


def test_the_model_comes_back_as_it_was(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learning = [parameter.requires_grad for parameter in model.parameters()]
    assert any(learning)
    attack_all(model, [Job(PGD(epsilon=4 / 255, steps=2), images(1)[0])] * 2, memory=2**40)
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == learning
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_each_image_keeps_to_its_own_ball():
    clean = torch.full((3, 3, 4, 4), 0.5)
    stacked = Stacked((Linf(1 / 255), Linf(4 / 255), L2(0.1)))
    far = stacked.project(clean + 1, clean)
    torch.testing.assert_close(stacked.norm(far - clean), torch.tensor([1 / 255, 4 / 255, 0.1]))
    stepped = stacked.ascend(clean, torch.ones_like(clean), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(stacked.norm(stepped - clean), torch.tensor([0.1, 0.2, 0.3]))
    assert (stacked.norm(stacked.round(far, clean) - clean) <= torch.tensor([1 / 255, 4 / 255, 0.1]) + 1e-6).all()
    drawn = stacked.random(clean, torch.Generator().manual_seed(0), 0.05)
    assert (stacked.norm(drawn - clean) <= 0.0501).all()
    assert stacked.epsilon == 0.1


def test_attacks_without_gradients_share_batches_where_they_draw_the_same(model):
    attacks = [RandomNoise(epsilon=level / 255, draws=3) for level in (2, 4)]
    jobs = [Job(attack, image) for attack in attacks for image in images(3)]
    seen = []
    handle = model.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    found = attack_all(model, jobs)
    handle.remove()
    assert set(seen) == {3}
    for job, one in zip(jobs, found, strict=True):
        torch.testing.assert_close(one.images, job.attack(model, job.image).images)


def test_the_search_in_two_precisions_ends_in_float32(model, monkeypatch):
    monkeypatch.setattr("resolute.attacks.ascent.has_bfloat16", lambda device: True)
    jobs = [Job(APGD(epsilon=4 / 255, steps=10, precision="mixed"), image) for image in images(2)]
    kinds = []
    layer = next(module for module in model.modules() if isinstance(module, nn.Conv2d) and module.in_channels != 3)
    handle = layer.register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    found = attack_all(model, jobs)
    handle.remove()
    assert kinds.count(torch.bfloat16) >= 8
    assert kinds[-3:] == [torch.float32] * 3
    for job, one in zip(jobs, found, strict=True):
        exact = dataclasses.replace(job.attack, precision="float32")(model, job.image)
        assert one.objective.item() == pytest.approx(exact.objective.item(), rel=0.25)
        alone = job.attack(model, job.image)
        assert alone.objective.item() == pytest.approx(one.objective.item(), rel=0.25)


def test_a_device_without_bfloat16_searches_in_float32(model, monkeypatch):
    monkeypatch.setattr("resolute.attacks.ascent.has_bfloat16", lambda device: False)
    [image] = images(1)
    mixed, exact = (PGD(epsilon=4 / 255, steps=5, precision=word)(model, image) for word in ("mixed", "float32"))
    assert torch.equal(mixed.unrounded, exact.unrounded)
