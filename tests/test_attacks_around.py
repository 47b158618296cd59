import copy
import dataclasses
import json
import pickle

import pydantic
import pytest
import torch
from small import Stepped, images, network
from torch import nn

from resolute.attacks.adaptive import Bits, read_density
from resolute.attacks.apgd import APGD
from resolute.attacks.ball import Rectangle
from resolute.attacks.gradient import FDA, IFGSM, PGD
from resolute.attacks.names import ATTACKS
from resolute.attacks.objective import FeatureDisruption, FeatureShift, OutputShift
from resolute.attacks.partial import Partial
from resolute.attacks.registry import AttackTable
from resolute.attacks.square import Square
from resolute.attacks.targeted import Picture, ReferenceShift, SavedOutput, TargetDistance, Truth
from resolute.attacks.transfer import Source, Transfer, WarmStart, WorstOf
from resolute.defences.entropy import ChannelDensity
from resolute.errors import CheckpointError, ConfigError, ModelWarning
from resolute.images import sample_image, write_png
from resolute.models import load

EPSILON = 8 / 255


def twin(model, seed=3, change=0.02):
    """A model a little different from another, as an undefended twin is."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(change * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator))
    return other


# Transfer and warm starts.


def test_a_transferred_attack_is_the_one_found_on_the_source():
    source, model, x = network(1), network(0), images(2)
    inside = PGD(epsilon=EPSILON, steps=8)
    found = Transfer(epsilon=EPSILON, attack=inside, source=Source(source))(model, x, seed=4)
    expected = inside(source, x, seed=4)
    assert torch.equal(found.images, expected.images)
    torch.testing.assert_close(found.objective, OutputShift().bind(model, x)(expected.images).detach())


def test_transfer_is_weaker_than_white_box_and_the_nearer_the_source_the_stronger():
    model, x = network(), images(4, 8, 8)
    inside = PGD(epsilon=EPSILON, steps=20)
    far, near = (
        Transfer(epsilon=EPSILON, attack=inside, source=Source(source))(model, x).objective
        for source in (network(7), twin(model, change=0.5))
    )
    white_box = inside(model, x).objective
    assert (white_box > far).all()
    assert white_box.mean() > near.mean() > far.mean()


def test_transfer_breaks_a_model_that_hides_its_gradients():
    undefended, x = network(), images(2, 8, 8)
    hidden = Stepped(undefended)
    inside = PGD(epsilon=EPSILON, steps=20)
    with pytest.warns(ModelWarning, match="zero"):
        white_box = inside(hidden, x).objective
    transferred = Transfer(epsilon=EPSILON, attack=inside, source=Source(undefended))(hidden, x).objective
    assert (transferred > 1.5 * white_box).all()


def test_a_warm_start_begins_where_the_source_led():
    model, x = network(), images(2)
    source = Source(twin(model))
    inside = PGD(epsilon=EPSILON, steps=1, relative_step=1e-6)
    scout = PGD(epsilon=EPSILON, steps=20)
    found = WarmStart(epsilon=EPSILON, attack=inside, source=source, scout=scout)(model, x)
    start = scout(source.model, x).unrounded
    torch.testing.assert_close(found.unrounded, start, rtol=0, atol=1e-5)
    assert found.gradients == 21
    longer = WarmStart(epsilon=EPSILON, attack=PGD(epsilon=EPSILON, steps=10), source=source, scout=scout)(model, x)
    assert (longer.objective_unrounded >= OutputShift().bind(model, x)(start)).all()


def test_a_warm_start_gets_through_flat_ground():
    """A synthetic defence: the output does not move until the input has moved far.

    From the usual start nothing is seen, so attacks move farther away until they see something.
    """

    class Flat(nn.Module):
        def __init__(self, model, x):
            super().__init__()
            self.model, self.register = model, x

        def forward(self, x):
            shift = x - self.register
            far = torch.relu(shift.abs() - 3 / 255) * shift.sign()
            return self.model(self.register + far)

    undefended, x = network(), images(2) * 0.8 + 0.1
    flat = Flat(undefended, x)
    inside = IFGSM(epsilon=EPSILON, steps=20)
    assert (inside(flat, x).objective_unrounded > 0).all()
    assert (WarmStart(epsilon=EPSILON, attack=inside, source=Source(undefended))(flat, x).objective > 0).all()


def test_further_restarts_start_as_the_attack_says():
    model, x = network(), images(1)
    once = WarmStart(epsilon=EPSILON, attack=PGD(epsilon=EPSILON, steps=4), source=Source(network(5)))
    twice = dataclasses.replace(once, attack=PGD(epsilon=EPSILON, steps=4, restarts=4), scout=once.attack)
    assert twice(model, x).objective_unrounded >= once(model, x).objective_unrounded
    assert twice(model, x).gradients == 20


def test_sources_are_told_apart_by_their_weights():
    assert Source(network(1)) == Source(network(1))
    assert Source(network(1)) != Source(network(2))
    assert repr(Source(load("edsr-s"))).startswith("Source('edsr-s', sha256=")
    assert hash(Source(network(1))) == hash(Source(network(1)))


# The worst of several.


def test_the_worst_of_several_is_the_worst_for_every_image():
    model, x = network(), images(6, 8, 8)
    attacks = (
        PGD(epsilon=EPSILON, steps=12, relative_step=0.3),
        PGD(epsilon=EPSILON, steps=12, relative_step=0.31),
        FDA(epsilon=EPSILON, steps=5),
        Square(epsilon=EPSILON, queries=10),
    )
    found = WorstOf(epsilon=EPSILON, attacks=attacks)(model, x, seed=2)
    bound = OutputShift().bind(model, x)
    each = torch.stack([bound(attack(model, x, seed=2).images) for attack in attacks]).detach()
    torch.testing.assert_close(found.objective, each.amax(dim=0))
    assert found.gradients == 39


def test_each_image_gets_the_attack_that_suits_it():
    """A bright image has room below and a dark one above; one attack only darkens, the other only brightens."""

    @dataclasses.dataclass(frozen=True)
    class Brightness:
        sign: int

        def bind(self, model, clean):
            return lambda x: self.sign * x.flatten(1).mean(dim=1)

    x = torch.cat([torch.full((1, 3, 4, 4), 253 / 255), torch.full((1, 3, 4, 4), 2 / 255)])
    attacks = tuple(IFGSM(epsilon=EPSILON, steps=4, start="zero", objective=Brightness(sign)) for sign in (1, -1))
    found = WorstOf(epsilon=EPSILON, attacks=attacks)(nn.Identity(), x)
    shift = ((found.images - x) * 255).flatten(1)
    torch.testing.assert_close(shift, torch.tensor([[-8.0], [8.0]]).expand_as(shift), rtol=0, atol=1e-3)


def test_the_verdict_of_an_ensemble_in_bfloat16_is_float32():
    model, x = network(channels=16), images(2, 12, 12)
    attacks = (PGD(epsilon=EPSILON, steps=5), IFGSM(epsilon=EPSILON, steps=5))
    exact = WorstOf(epsilon=EPSILON, attacks=attacks)(model, x)
    outer = WorstOf(epsilon=EPSILON, attacks=attacks, precision="bfloat16")(model, x)
    assert torch.equal(outer.unrounded, exact.unrounded)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attacks[0](model, x).objective, attacks[0](model, x).objective.float())
        assert torch.equal(attacks[0](model, x).unrounded, PGD(epsilon=EPSILON, steps=5)(model, x).unrounded)


def test_ensembles_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="no attacks"):
        WorstOf(epsilon=EPSILON, attacks=())
    with pytest.raises(ValueError, match=r"WorstOf .*epsilon=.* PGD "):
        WorstOf(epsilon=EPSILON, attacks=(PGD(epsilon=0.5),))
    with pytest.raises(ValueError, match="different balls"):
        WorstOf(epsilon=EPSILON, attacks=(PGD(epsilon=EPSILON), PGD(epsilon=EPSILON, norm="l2")))
    with pytest.raises(ValueError, match=r"Transfer .*epsilon"):
        Transfer(epsilon=EPSILON, attack=PGD(epsilon=0.5), source=Source(network()))


# The density as an objective.


def test_bits_are_those_of_the_density_and_can_be_raised():
    model, x = network(), images(2, 8, 8)
    density = ChannelDensity(channels=6, init_scale=1.0)
    objective = Bits(density)
    expected = density.bits(model.features(x)).mean(dim=(1, 2, 3)).detach()
    torch.testing.assert_close(objective.bind(model, x)(x), expected)
    found = PGD(epsilon=EPSILON, steps=20, objective=objective)(model, x)
    assert (found.objective > expected + 0.01).all()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in density.parameters())
    head = Bits(density, layer="head").bind(model, x)(x)
    assert not torch.allclose(head, expected)


def test_a_density_comes_back_from_its_file(tmp_path):
    path = tmp_path / "run.density.pt"
    density = ChannelDensity(channels=5, widths=(3, 4), seed=7)
    torch.save(density.state_dict(), path)
    again = read_density(path)
    phi = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.bits(phi), density.bits(phi))
    assert Bits(again) == Bits(density)
    assert Bits(again) != Bits(ChannelDensity(channels=5))
    assert hash(Bits(again)) == hash(Bits(density))


def test_files_that_hold_no_density_are_refused(tmp_path):
    path = tmp_path / "x.density.pt"
    with pytest.raises(CheckpointError, match=r"NAME\.density\.pt"):
        read_density(path)
    for content in ({"a": torch.zeros(2)}, [1], {"matrices.0": torch.zeros(3)}, network().state_dict()):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="no density"):
            read_density(path)
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        read_density(path)


# By name.


@pytest.fixture
def files(tmp_path):
    write_png(tmp_path / "target.png", sample_image("coffee")[:, :20, :30])
    torch.save(ChannelDensity(channels=6).state_dict(), tmp_path / "net.density.pt")
    return tmp_path


def test_every_kind_can_be_built_and_run():
    model, x = network(), images(1)
    short = {
        "noise": {"draws": 2}, "square": {"queries": 2}, "fgsm": {},
        "transfer": {"source": "bicubic", "steps": 2}, "warm_start": {"source": "bicubic", "steps": 2},
    }  # fmt: skip
    for kind in ATTACKS:
        attack = AttackTable(kind=kind, **short.get(kind, {"steps": 2})).build(EPSILON, "float32")
        assert type(attack) is ATTACKS[kind]
        assert attack(model, x).images.shape == x.shape


@pytest.mark.parametrize("kind", ATTACKS)
def test_every_field_of_an_attack_is_an_option_of_that_name(kind):
    """In Python, in a table as TOML holds it and as words on the command line, with one outcome."""
    written = {
        "objective": "output", "start": "uniform", "norm": "l2", "shape": "signs", "source": "bicubic",
        "region": (0.0, 0.0, 0.5, 1.0), "attack": "pgd", "scout": "ifgsm", "attacks": ("pgd", "apgd"),
    }  # fmt: skip
    for field in dataclasses.fields(ATTACKS[kind]):
        if field.name in ("epsilon", "precision"):
            continue
        value = written.get(field.name, 0.5 if isinstance(field.default, float) else 3)
        needed = {"source": "bicubic"} if kind in ("transfer", "warm_start") and field.name != "source" else {}
        table = AttackTable(kind, **needed, **{field.name: value})
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        assert AttackTable.typed([f"{field.name}={text}"], kind, **needed) == table
        listed = list(value) if isinstance(value, tuple) else value
        assert pydantic.TypeAdapter(AttackTable).validate_python({"kind": kind, **needed, field.name: listed}) == table
        built = table.build(EPSILON)
        if isinstance(value, int | float) or field.name in ("start", "norm", "shape"):
            assert getattr(built, field.name) == value


def test_options_of_the_objective_are_options_of_the_attack():
    for table in (
        AttackTable("fda", mask="attacked", layers=("head", "body")),
        AttackTable.typed(["mask=attacked", "layers=head,body"], "fda"),
        AttackTable("fda", objective="feature_disruption", mask="attacked", layers="head,body"),
    ):
        assert table.build(EPSILON) == FDA(epsilon=EPSILON, objective=FeatureDisruption(("head", "body"), "attacked"))
    assert AttackTable("square", share=0.5).build(EPSILON) == Square(epsilon=EPSILON, share=0.5)


def test_tables_set_what_they_name(files):
    built = AttackTable(kind="apgd", norm="l2", steps=7, restarts=2, start="tiny").build(0.5)
    assert built == APGD(epsilon=0.5, norm="l2", steps=7, restarts=2, start="tiny")
    target = AttackTable(kind="pgd", target=str(files / "target.png")).build(EPSILON).objective
    assert target == TargetDistance(Picture.read(files / "target.png"))
    bits = AttackTable(kind="pgd", density=str(files / "net.density.pt"), layer="head").build(EPSILON)
    assert bits.objective == Bits(ChannelDensity(channels=6), layer="head")
    references = [AttackTable(kind="ifgsm", reference=name).build(EPSILON).objective for name in ("self_u8", "hr")]
    assert references == [ReferenceShift(SavedOutput()), ReferenceShift(Truth())]


def test_what_opens_files_is_known(files):
    picture = str(files / "target.png")
    opening = [
        AttackTable("pgd", target=picture),
        AttackTable("transfer", source="bicubic"),
        AttackTable("worst", attacks=({"kind": "pgd", "density": "edsr-xs-entropy"},)),
    ]
    assert all(table.opens for table in opening)
    plain = (AttackTable("pgd"), AttackTable("worst"), AttackTable("partial"), AttackTable("ifgsm", reference="hr"))
    assert not any(table.opens for table in plain)


def test_tables_of_attacks_around_others(files):
    e = EPSILON
    partial = AttackTable(kind="partial", region=[0, 0, 0.5, 1], steps=3).build(e)
    assert partial == Partial(epsilon=e, attack=IFGSM(epsilon=e, steps=3), region=Rectangle(0, 0, 0.5, 1))
    source = Source(load("edsr-s"))
    transfer = AttackTable(kind="transfer", source="edsr-s", attack={"kind": "fda", "steps": 3})
    assert transfer.build(e) == Transfer(epsilon=e, source=source, attack=FDA(epsilon=e, steps=3))
    warm = {"kind": "warm_start", "source": "edsr-s", "scout": {"kind": "fda"}, "attack": {"kind": "apgd", "steps": 5}}
    assert pydantic.TypeAdapter(AttackTable).validate_python(warm).build(e) == WarmStart(
        epsilon=e, source=source, scout=FDA(epsilon=e), attack=APGD(epsilon=e, steps=5)
    )
    worst = AttackTable(kind="worst", steps=4).build(e, "bfloat16")
    assert [type(attack) for attack in worst.attacks] == [PGD, APGD, FDA]
    assert all(attack.steps == 4 and attack.precision == "bfloat16" for attack in worst.attacks)
    deep = AttackTable(
        kind="worst",
        attacks=[
            {"kind": "pgd", "objective": "feature_shift", "layers": ["head"]},
            {"kind": "fda", "layers": ["head", "body"]},
        ],
    ).build(e)
    assert [attack.objective for attack in deep.attacks] == [
        FeatureShift(("head",)),
        FeatureDisruption(("head", "body")),
    ]


def test_an_objective_given_to_an_attack_around_others_is_climbed_inside_and_a_verdict_where_it_is_of_the_output():
    truth, features = ReferenceShift(Truth()), FeatureShift(("head",))
    worst = AttackTable("worst", reference="hr").build(EPSILON)
    assert [worst.objective, *(attack.objective for attack in worst.attacks)] == [truth] * 4
    transfer = AttackTable("transfer", source="bicubic", objective="feature_shift", layers=("head",)).build(EPSILON)
    assert (transfer.objective, transfer.attack.objective) == (OutputShift(), features)
    warm = AttackTable("warm_start", source="bicubic", reference="hr").build(EPSILON)
    assert warm.attack.objective == truth
    partial = AttackTable("partial", objective="feature_shift", layers=("head",)).build(EPSILON)
    assert partial.objective == features
    judged = AttackTable("worst", attacks=("pgd",), reference="hr").build(EPSILON)
    assert (judged.objective, judged.attacks[0].objective) == (truth, OutputShift())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "apgd", "relative_step": 0.1}, "relative_step: apgd has no such option"),
        ({"kind": "square", "querys": 3}, "querys: .*did you mean queries"),
        ({"kind": "pgd", "source": "edsr-s"}, "source: pgd has no such option"),
        ({"kind": "pgd", "mask": "clean"}, "mask: .*feature_disruption"),
        ({"kind": "worst", "region": (0, 0, 1, 1)}, "region: worst has no such option"),
        ({"kind": "partial", "source": "edsr-s"}, "source: partial has no such option"),
        ({"kind": "partial", "attacks": ["pgd"]}, "attacks: .*did you mean attack"),
        ({"kind": "transfer"}, "transfer needs a source: the name or the file of a model"),
        ({"kind": "warm_start"}, "warm_start needs a source"),
        ({"kind": "pgd", "objective": "target"}, "pgd needs a target: .*image file"),
        ({"kind": "universal"}, "one for many images.*use resolute.attacks.universal"),
        ({"kind": "pgd", "target": "a.png", "density": "edsr-xs-entropy"}, "choose between target and density"),
        ({"kind": "pgd", "reference": "hrr"}, "reference: .*did you mean hr"),
        ({"kind": "partial", "attack": {"kind": "noise"}}, "attack: .*climbs by gradients"),
        ({"kind": "worst", "steps": 3, "attacks": [{"kind": "pgd"}]}, "steps: .*attack inside"),
        ({"kind": "worst", "attacks": [{"kind": "pgd"}, {"kind": "fda", "steps": 0}]}, r"^attacks\.1\.steps: "),
        ({"kind": "worst", "attacks": 3}, "attacks: "),
        ({"kind": "worst", "attacks": [{"steps": 3}]}, r"attacks\.0\.kind: "),
        ({"kind": "worst", "attacks": [3]}, r"attacks\.0: "),
        ({"kind": "ifgsm", "start": "zero"}, "ifgsm: the gradient of OutputShift is exactly zero"),
        ({"kind": "partial", "region": (0.5, 0, 0.5, 1)}, "a rectangle is top < bottom"),
        ({"kind": "partial", "region": (0.5, 0)}, "region: "),
        ({"kind": "pgd", "reference": "hr", "layers": ["a"]}, "layers: .*feature_shift"),
    ],
)
def test_tables_say_what_a_kind_lacks(options, message):
    with pytest.raises(ConfigError, match=message):
        AttackTable(**options).build(EPSILON)


def test_options_can_be_typed_as_words():
    table = AttackTable.typed(["queries=40"], kind="square")
    assert table == AttackTable(kind="square", queries=40)
    assert AttackTable.typed([], "pgd", steps=None, layers=()) == AttackTable("pgd")
    assert AttackTable.typed(["label=PGD-9"], "pgd", steps=9).name == "PGD-9"
    for word, message in (
        ("queries", "NAME=VALUE"), ("=3", "NAME=VALUE"), ("steps=few", "^steps: "), ("a=1", "^a: "),
        ("restarts=2", "^restarts: .*twice"), ("kind=fda", "^kind: .*twice"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            AttackTable.typed([word], kind="pgd", restarts=3)


def test_a_table_goes_through_pickle_and_json():
    table = AttackTable("worst", label="w", attacks=("pgd", {"kind": "fda", "layers": ["head"]}))
    assert pickle.loads(pickle.dumps(table)) == table
    written = json.loads(json.dumps(dataclasses.asdict(table)))
    assert written["options"]["attacks"][1] == {
        "kind": "fda", "label": "", "epsilons": [], "options": {"layers": ["head"]},
    }  # fmt: skip
    assert pydantic.TypeAdapter(AttackTable).validate_python(written) == table


def test_the_repr_of_a_composite_names_everything_in_it():
    e = EPSILON
    attack = WorstOf(
        epsilon=e, attacks=(Transfer(epsilon=e, attack=PGD(epsilon=e), source=Source(network(1))), FDA(epsilon=e))
    )
    other = dataclasses.replace(attack, attacks=(attack.attacks[0], FDA(epsilon=e, steps=7)))
    third = dataclasses.replace(attack.attacks[0], source=Source(network(2)))
    assert len({repr(attack), repr(other), repr(dataclasses.replace(attack, attacks=(third,)))}) == 3
    assert "tensor" not in repr(attack)
