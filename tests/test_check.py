import dataclasses
import re
from pathlib import Path

import pytest
import torch

from resolute import Bicubic, ConfigError, ImageError, load, load_defended, run
from resolute.defences import Defended, EightBit, RandomResizing
from resolute.engine import Store
from resolute.engine.running import plan_of
from resolute.images import sample_image, write_png
from resolute.models import EDSR
from resolute.report.page import write_markdown
from resolute.studies.check import SAMPLES, SIDE, Check, CheckRecord, by_model, evidence_of
from resolute.studies.check_suite import CheckSuite
from resolute.studies.flags import RULES, UNMOVED, Evidence, sr_psnr

PAGE = Path(__file__).parents[1] / "docs" / "flags.md"
QUICK = CheckSuite(steps=12, restarts=2, draws=20, queries=60)
MASKING = {
    "zero-gradients",
    "finite-differences-disagree",
    "noise-stronger-than-gradient",
    "transfer-stronger-than-white-box",
    "black-box-stronger",
    "single-step-stronger",
    "larger-budget-not-stronger",
    "large-budget-does-not-reach-noise",
    "non-deterministic",
}


def photos(side=12):
    return torch.stack([sample_image(name)[:, 100 : 100 + side, 200 : 200 + side] for name in ("coffee", "astronaut")])


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return EDSR(scale=2, blocks=1, channels=8).eval()


def raised(model, **options):
    return {flag.name for flag in QUICK.run(model, photos(), **options) if flag.raised}


class Wrong(Defended):
    """A model inside a test's idea of a defence."""

    def __init__(self, inner, forward):
        super().__init__(inner, "wrong", {"forward": forward.__name__})
        self.change = forward

    def features(self, x):
        return self.inner.features(x)

    def forward(self, x):
        return self.change(self.inner, x)

    def surrogate(self):
        return self


class Scrambled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        rows, columns = gradient.shape[-2:]
        place = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(rows))
        return gradient.flatten(-2)[..., place].view(gradient.shape)


def scrambled(inner, x):
    return inner(Scrambled.apply(x))


def jumpy(inner, x):
    return inner(x + 0.05 * torch.rand_like(x))


def detached(inner, x):
    return inner(x.detach())


def infinite(inner, x):
    return inner(x) + (x - x.detach()).abs().sqrt().sum()


def stretched(inner, x):
    return (inner(x) - 0.5) * 6 + 0.5


# What it must not say


def test_a_plain_network_raises_no_flag_of_masking():
    assert not raised(network()) & MASKING


def test_the_built_in_model_raises_no_flag_of_masking():
    assert not raised(load("edsr-xs")) & MASKING


def test_harmless_defences_raise_no_flag_of_masking():
    assert not raised(load_defended("edsr-xs+mix=0.7")) & MASKING


# What it must see


def test_rounding_inside_is_seen_through():
    assert raised(EightBit(network())) >= {
        "zero-gradients",
        "noise-stronger-than-gradient",
        "transfer-stronger-than-white-box",
        "black-box-stronger",
        "larger-budget-not-stronger",
        "large-budget-does-not-reach-noise",
    }


@pytest.mark.parametrize("forward", [detached, infinite])
def test_a_gradient_that_is_missing_or_not_finite_is_seen(forward):
    assert raised(Wrong(network(), forward)) >= {"zero-gradients", "noise-stronger-than-gradient", "black-box-stronger"}


def test_a_gradient_that_points_nowhere_is_seen():
    found = raised(Wrong(load("edsr-xs"), scrambled))
    assert found >= {"finite-differences-disagree", "transfer-stronger-than-white-box"}
    assert "zero-gradients" not in found


def test_randomness_is_seen_in_a_model_and_in_a_wrapper():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert "non-deterministic" in raised(Wrong(network(), jumpy))
    assert "non-deterministic" in raised(RandomResizing(network(), 1.5))


def test_an_output_beyond_the_range_is_seen():
    assert "output-saturates" in raised(Wrong(Bicubic(2), stretched))
    assert "output-saturates" not in raised(Bicubic(2))


def test_a_short_attack_is_seen():
    flags = dataclasses.replace(QUICK, steps=2).run(load("edsr-xs"), photos())
    assert "loss-has-not-plateaued" in {flag.name for flag in flags if flag.raised}


def test_a_twin_is_transferred_from():
    plain = {flag.name: flag for flag in QUICK.run(network(), photos())}
    assert plain["transfer-stronger-than-white-box"].figure is None
    assert "--twin" in plain["transfer-stronger-than-white-box"].words
    with_twin = {flag.name: flag for flag in QUICK.run(network(), photos(), twin=network())}
    assert with_twin["transfer-stronger-than-white-box"].figure == pytest.approx(0, abs=3)
    assert "the twin" in with_twin["transfer-stronger-than-white-box"].words


# How it says it


def evidence(**changed):
    """Return what a healthy model gives, but for what is changed."""
    runs = {"half": 35, "climb": 29, "double": 23, "twice": 28.95, "whole": 5, "single": 32, "noise": 34, "square": 33}
    base = {
        "steps": 10,
        "runs": {name: torch.tensor([float(value)] * 2) for name, value in runs.items()},
        "unrounded": torch.tensor([28.9, 28.9]),
        "restarts": [torch.tensor([29.2, 29.0]), torch.tensor([29.0, 29.3])],
        "transfers": {"the twin": torch.tensor([30.0, 31.0])},
        "random_images": torch.tensor([7.0, 7.0]),
        "flat": 0.0,
        "error": 3.0,
        "jump": 0.0,
        "saturated": 0.0,
    }
    changed_runs = {name: torch.tensor([value] * 2) for name, value in changed.items() if name in runs}
    rest = {name: value for name, value in changed.items() if name not in runs}
    return Evidence(**{**base, "runs": {**base["runs"], **changed_runs}, **rest})


def test_healthy_evidence_raises_nothing_and_names_every_flag_once():
    flags = evidence().flags()
    assert [flag.name for flag in flags] == list(RULES)
    assert not any(flag.raised for flag in flags)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("zero-gradients", {"flat": 2.0}),
        ("finite-differences-disagree", {"error": 30.0}),
        ("noise-stronger-than-gradient", {"noise": 28.0}),
        ("transfer-stronger-than-white-box", {"transfers": {"it": torch.tensor([28.5, 28.5])}}),
        ("black-box-stronger", {"square": 28.5}),
        ("single-step-stronger", {"single": 28.85}),
        ("larger-budget-not-stronger", {"half": 29.05}),
        ("larger-budget-not-stronger", {"double": 30.0}),
        ("large-budget-does-not-reach-noise", {"whole": 7.2}),
        ("non-deterministic", {"jump": 0.2}),
        ("restarts-matter", {"restarts": [torch.tensor([31.0, 29.0]), torch.tensor([29.0, 29.0])]}),
        ("loss-has-not-plateaued", {"twice": 28.8}),
        ("rounding-sensitive", {"unrounded": torch.tensor([28.0, 28.0])}),
        ("output-saturates", {"saturated": 6.0}),
    ],
)
def test_each_flag_has_evidence_that_raises_it_and_it_alone(name, changed):
    flags = evidence(**changed).flags()
    assert [flag.name for flag in flags if flag.raised] == [name]
    assert flags[0].name == name


def test_the_worst_case_is_taken_image_by_image():
    found = evidence(restarts=[torch.tensor([20.0, 40.0]), torch.tensor([40.0, 40.0])])
    torch.testing.assert_close(found.best, torch.tensor([20.0, 28.95]))


def test_what_does_not_move_is_a_number_and_reads_as_no_change():
    still = torch.tensor([UNMOVED, UNMOVED])
    words = evidence(climb=UNMOVED, twice=UNMOVED, restarts=[still, still]).flags()
    assert any("no change" in flag.words for flag in words)
    assert sr_psnr(photos(), photos()).tolist() == [UNMOVED, UNMOVED]


def test_equal_checks_give_equal_flags_and_leave_the_model_alone():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    small = dataclasses.replace(QUICK, steps=4, draws=4, queries=4)
    calls = []
    first = small.run(model, photos(), progress=lambda *call: calls.append(call))
    assert first == small.run(model, photos())
    assert first != dataclasses.replace(small, seed=1).run(model, photos())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert trainable == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == (calls[-1][1], calls[-1][1], "done")


@pytest.mark.parametrize("changed", [{"epsilon": 0.0}, {"epsilon": 0.6}, {"steps": 1}, {"restarts": 1}, {"queries": 0}])
def test_a_check_that_cannot_be_is_refused(changed):
    with pytest.raises(ConfigError):
        CheckSuite(**changed)


def test_a_model_without_finite_output_is_refused():
    with pytest.raises(ConfigError, match="not finite"):
        QUICK.run(Wrong(network(), lambda inner, x: inner(x) * torch.inf), photos())


# The study


SMALL = CheckSuite(steps=4, restarts=2, draws=4, queries=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("coffee", "astronaut"):
        write_png(folder / f"{name}.png", sample_image(name)[:, 100:116, 200:212])
    return folder


def plan(files, tiny_model, **changes):
    given = {"models": (f"{tiny_model}+round8",), "images": (str(files),), "suite": SMALL}
    return Check(**given | changes)


def test_a_record_holds_what_the_suite_saw_and_gives_its_flags(files, tiny_model, tmp_path):
    records = run(plan(files, tiny_model), tmp_path)
    assert [record.image for record in records] == ["astronaut", "coffee"]
    assert all(isinstance(record, CheckRecord) for record in records)
    assert {(record.model, record.width, record.height) for record in records} == {("tiny+round8", 12, 16)}
    model = load_defended(f"{tiny_model}+round8")
    for record, name in zip(records, ("astronaut", "coffee"), strict=True):
        x = (sample_image(name)[None, :, 100:116, 200:212] * 255).round() / 255
        for ours, theirs in zip(evidence_of([record]).flags(), SMALL.run(model, x), strict=True):
            assert (ours.name, ours.raised, ours.words) == (theirs.name, theirs.raised, theirs.words)
            assert ours.figure == pytest.approx(theirs.figure, abs=1e-4)
    assert Store(tmp_path).read() == records


def test_what_records_say_together(files, tiny_model, tmp_path):
    one, two = run(plan(files, tiny_model), tmp_path)
    both = [dataclasses.replace(one, flat=10.0, jump=1.0), dataclasses.replace(two, flat=20.0, jump=3.0)]
    found = evidence_of(both)
    assert (found.flat, found.jump) == (15.0, 3.0)
    assert found.runs["climb"].tolist() == pytest.approx([one.runs["climb"], two.runs["climb"]])
    assert [value.tolist() for value in found.restarts] == [
        pytest.approx(pair) for pair in zip(one.restarts, two.restarts, strict=True)
    ]


def test_sentences_and_tables_name_models_flags_and_remedies(files, tiny_model, tmp_path):
    study = plan(files, tiny_model, models=(f"{tiny_model}+round8", str(tiny_model)))
    records = run(study, tmp_path)
    assert [(name, len(own)) for name, own in by_model(records).items()] == [("tiny+round8", 2), ("tiny", 2)]
    results = study.results(records)
    assert [sentence.split(":")[0] for sentence in results.sentences] == ["tiny+round8", "tiny"]
    assert "zero-gradients" in results.sentences[0]
    assert RULES["zero-gradients"].why in results.sentences[0]
    assert "zero-gradients" not in results.sentences[1]
    assert [table.title.split(":")[0] for table in results.tables] == ["tiny+round8", "tiny"]
    text = write_markdown([tmp_path], tmp_path / "check.md").read_text()
    names = re.findall(r"^\| \**([a-z0-9-]{6,}?)\** \|", text, re.MULTILINE)
    assert sorted(names) == sorted([*RULES, *RULES])
    assert names[0] == "zero-gradients"
    assert RULES["zero-gradients"].remedy in text


def test_checks_add_up_in_one_folder(files, tiny_model, tmp_path):
    run(plan(files, tiny_model), tmp_path)
    run(plan(files, tiny_model, models=(str(tiny_model),)), tmp_path)
    assert len(Store(tmp_path).read()) == 4
    text = write_markdown([tmp_path], tmp_path / "check.md").read_text()
    assert "tiny+round8" in text


def test_another_suite_or_twin_is_another_cell(files, tiny_model):
    def keys(**changes):
        return {cell.key for cell in plan(files, tiny_model, **changes).cells()}

    found = [keys(), keys(suite=dataclasses.replace(SMALL, seed=1)), keys(twin="bicubic")]
    assert len(set.union(*found)) == 6
    assert keys() == found[0]


def test_samples_are_there_by_default_and_small_images_refused(tiny_model, tmp_path):
    cells = Check(models=(str(tiny_model),)).cells()
    assert [cell.name for cell in cells] == list(SAMPLES)
    assert {tuple(cell.low.shape) for cell in cells} == {(1, 3, SIDE, SIDE)}
    write_png(tmp_path / "dot.png", torch.rand(3, 20, 4))
    with pytest.raises(ImageError, match="dot is too small: 4 x 20 pixels"):
        plan_of(Check(models=(str(tiny_model),), images=(str(tmp_path / "dot.png"),)))


# The page about the flags


def sections():
    parts = re.split(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_code_and_page_name_the_same_flags():
    assert sections().keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_each_paragraph_says_when_why_and_what_to_do_with_the_limit_of_the_code(name):
    text = " ".join(sections()[name].split())
    rule = RULES[name]
    assert all(word in text for word in ("**Raised if**", "**Why:**", "**What to do:**"))
    condition = text.split("**Why:**")[0]
    assert f"{rule.limit:g} {rule.unit}" in condition
    assert re.search(r"less than|below" if rule.below else r"more than|below that|above that", condition)


def test_the_steps_of_the_quick_check_are_those_that_the_page_names():
    assert f"takes {CheckSuite().quickly().steps} steps" in " ".join(PAGE.read_text(encoding="utf-8").split())
