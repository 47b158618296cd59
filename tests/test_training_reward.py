"""A denoiser trained with a metric's score as part of its loss: bare, under noise, and behind a denoiser."""

import dataclasses
import json

import pytest
import torch
from test_training_denoise import PLAIN, photos, same, weights, write_judge  # noqa: F401, a fixture

from resolute import ConfigError, as_scorer, load, read_recipe, train
from resolute.certificates import DenoisedScorer, ExpectedScore
from resolute.errors import CheckpointError
from resolute.models import QualityNet
from resolute.models.base import Card
from resolute.models.denoisers import UNet
from resolute.models.weights import save_model
from resolute.training.denoise import DenoiseTask
from resolute.training.denoise_recipe import DenoiseLossTable, RewardTable
from resolute.training.loop import task_of
from resolute.training.reward import Reward

BARE = dataclasses.replace(PLAIN, metric="judge", reward=RewardTable(weight=0.5))
NOISY = dataclasses.replace(BARE, reward=RewardTable(weight=0.5, sigma=0.12, draws=3))
BEHIND = dataclasses.replace(BARE, reward=RewardTable(weight=0.5, sigma=0.12, draws=2, denoiser="before"))
ALL = pytest.mark.parametrize("recipe", [BARE, NOISY, BEHIND], ids=["bare", "noise", "denoiser"])


def write_before(runs, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = UNet((4, 4))
        torch.nn.init.normal_(net.last.weight, std=0.1)
    path = runs / "before" / "before.safetensors"
    save_model(net, path, Card(name="before", architecture=net.arguments(), scale=1))
    return path


@pytest.fixture
def runs(tmp_path):
    write_judge(tmp_path)
    write_before(tmp_path)
    return tmp_path


def test_the_loss_is_the_error_and_the_missing_share_of_the_score(photos, runs):  # noqa: F811
    task = task_of(BEHIND, [photos], runs / "run")
    clean, opinions, noise, draws = task.batch(3, 0, 1)
    assert draws.shape == (4, 2, 3, 36, 36)
    total, figures = task.loss(task.parts, (clean, opinions, noise, draws), 3, 0)
    with torch.no_grad():
        noisy = (clean + 0.12 * noise).clamp(0, 1)
        restored = task.model(noisy).clamp(0, 1)
        before = load(runs / "before" / "before.safetensors", scale=1)
        shares = [task.metric(before((restored + 0.12 * draws[:, i]).clamp(0, 1)).clamp(0, 1)) / 100 for i in range(2)]
        score = torch.stack(shares).mean()
        error = (restored - clean).square().mean()
    assert figures["rewarded"] == pytest.approx(score.item(), rel=1e-5)
    assert total.item() == pytest.approx((error + 0.5 * (1 - score)).item(), rel=1e-5)


@ALL
def test_the_gradient_reaches_the_restorer_alone(recipe, photos, runs):  # noqa: F811
    task = task_of(recipe, [photos], runs / "run")
    plain = task_of(PLAIN, [photos], runs / "run")
    state = {name: tensor.clone() for name, tensor in task.reward.scorer.state_dict().items()}
    for each in (task, plain):
        total, _ = each.loss(each.parts, each.batch(0, 0, 1), 0, 0)
        total.backward()
    assert not torch.allclose(task.model.last.weight.grad, plain.model.last.weight.grad, rtol=0.01)
    assert all(parameter.grad is None for parameter in task.reward.scorer.parameters())
    assert same(state, task.reward.scorer.state_dict())
    parts = {id(parameter) for parameter in task.parts.parameters()}
    assert parts.isdisjoint(id(parameter) for parameter in task.reward.scorer.parameters())


def test_what_is_rewarded_stands_behind_what_the_recipe_says(runs):
    metric = QualityNet(widths=(4, 6), hidden=4)
    assert Reward(BARE.reward, metric).scorer is metric
    noisy = Reward(NOISY.reward, metric).scorer
    assert isinstance(noisy, ExpectedScore)
    assert (noisy.scorer, noisy.sigma, noisy.draws) == (metric, 0.12, 3)
    behind = Reward(BEHIND.reward, metric, runs / "before" / "before.safetensors").scorer
    assert isinstance(behind, ExpectedScore)
    assert isinstance(behind.scorer, DenoisedScorer)


def test_a_metric_that_wants_less_is_rewarded_for_less():
    darkness = as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="darkness", low=0.0, high=1.0, lower_better=True)
    reward = Reward(RewardTable(weight=1.0), darkness)
    image = torch.full((1, 3, 16, 16), 0.25, requires_grad=True)
    missed = reward.loss(image)
    assert missed.item() == pytest.approx(0.25)
    missed.backward()
    assert (image.grad > 0).all()


def test_draws_are_fresh_at_every_step_depend_on_the_seed_and_are_shared_by_ranks(photos, runs):  # noqa: F811
    task = task_of(NOISY, [photos], runs / "run")
    whole = task.batch(3, 0, 1)[3]
    assert torch.equal(whole, task.batch(3, 0, 1)[3])
    assert not torch.equal(whole, task.batch(4, 0, 1)[3])
    other = task_of(dataclasses.replace(NOISY, seed=1), [photos], runs / "run")
    assert not torch.equal(whole, other.batch(3, 0, 1)[3])
    assert not torch.equal(whole[0], whole[1])
    shares = [task.batch(3, rank, 2)[3] for rank in range(2)]
    assert torch.equal(whole, torch.stack(shares, dim=1).flatten(0, 1))
    assert len(task_of(BARE, [photos], runs / "run").batch(0, 0, 1)) == 3


@ALL
@pytest.mark.parametrize("moment", [3, 5])
def test_an_interrupted_run_ends_with_the_weights_of_an_unbroken_one(recipe, moment, photos, runs):  # noqa: F811
    def interrupt(step, _figures):
        if step == moment:
            raise KeyboardInterrupt

    recipe = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, steps=7))
    train(recipe, [photos], runs / "unbroken", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, [photos], runs / "run", device="cpu", on_step=interrupt)
    train(recipe, [photos], runs / "run", device="cpu")
    assert same(weights(runs / "run"), weights(runs / "unbroken"))
    assert (runs / "run" / "log.jsonl").read_text() == (runs / "unbroken" / "log.jsonl").read_text()


def test_the_card_says_what_was_rewarded_and_how_long_a_step_took(photos, runs):  # noqa: F811
    recipe = dataclasses.replace(BEHIND, reward=dataclasses.replace(BEHIND.reward, denoiser=str(write_before(runs))))
    train(recipe, [photos], runs / "run", device="cpu")
    card = load(runs / "run" / "tiny.safetensors").card
    before = load(runs / "before" / "before.safetensors").card
    assert card.training["recipe"]["reward"] == {"weight": 0.5, "sigma": 0.12, "draws": 2, "denoiser": "before"}
    assert card.training["reward_denoiser"] == {"name": "before", "sha256": before.sha256}
    assert card.training["seconds_per_step"] > 0
    page = (runs / "run" / "tiny.md").read_text()
    assert (
        "1 x MSE + 0.5 x (1 - score as a share of the range, mean of 2 draws of noise of 0.12 through before)" in page
    )
    assert str(runs) not in page + json.dumps(dataclasses.asdict(card))


def test_the_reward_raises_the_score(photos, runs):  # noqa: F811
    rewarded = dataclasses.replace(BARE, optimizer=dataclasses.replace(BARE.optimizer, steps=30, rate=1e-2))
    seen = []
    train(
        rewarded, [photos], runs / "run", device="cpu", on_step=lambda _step, figures: seen.append(figures["rewarded"])
    )
    assert sum(seen[-5:]) > sum(seen[:5])


def test_the_reward_waits_its_steps_and_joins_the_other_terms(photos, runs):  # noqa: F811
    recipe = dataclasses.replace(BARE, loss=DenoiseLossTable(target=1.0, after=2))
    task = task_of(recipe, [photos], runs / "run")
    assert set(task.loss(task.parts, task.batch(1, 0, 1), 1, 0)[1]) == {"psnr"}
    assert set(task.loss(task.parts, task.batch(2, 0, 1), 2, 0)[1]) == {"psnr", "target", "rank", "rewarded"}


def test_a_run_does_not_go_on_with_another_denoiser_before_its_metric(photos, runs):  # noqa: F811
    train(BEHIND, [photos], runs / "run", device="cpu")
    write_before(runs, seed=1)
    with pytest.raises(ConfigError, match=r"denoiser .*--out"):
        train(BEHIND, [photos], runs / "run", device="cpu")


def test_a_checkpoint_outlives_keys_that_come_to_recipes(photos, runs):  # noqa: F811
    train(PLAIN, [photos], runs / "run", device="cpu")
    path = runs / "run" / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    recipe = json.loads(content["recipe"])
    del recipe["reward"], content["seconds"]
    torch.save({**content, "recipe": json.dumps(recipe)}, path)
    assert train(PLAIN, [photos], runs / "run", device="cpu").figures
    recipe["sigma"] = 0.5
    torch.save({**content, "recipe": json.dumps(recipe)}, path)
    with pytest.raises(ConfigError, match="recipe"):
        train(PLAIN, [photos], runs / "run", device="cpu")


def test_mistakes_are_named(photos):  # noqa: F811
    with pytest.raises(ConfigError, match=r"reward.*`metric`"):
        DenoiseTask(dataclasses.replace(BARE, metric=""), [photos])
    with pytest.raises(ConfigError, match=r"reward\.denoiser .*reward\.sigma"):
        Reward(RewardTable(weight=1.0, denoiser="before"), QualityNet(widths=(4, 6), hidden=4))
    with pytest.raises(CheckpointError, match="'nowhere'"):
        Reward(dataclasses.replace(BEHIND.reward, denoiser="nowhere"), QualityNet(widths=(4, 6), hidden=4))
    boundless = as_scorer(lambda x: x.mean(dim=(1, 2, 3)), name="boundless")
    with pytest.raises(ConfigError, match="no range"):
        Reward(RewardTable(weight=1.0), boundless)


@pytest.mark.parametrize(
    "name", ["restorer-mse", "restorer-mse-2", "restorer-reward", "restorer-reward-ms", "restorer-reward-dms-iqa"]
)
def test_built_in_restorers_train_a_few_steps(name, photos, runs):  # noqa: F811
    built_in = read_recipe(name)
    judge, before = runs / "judge" / "judge.safetensors", runs / "before" / "before.safetensors"
    recipe = dataclasses.replace(
        built_in,
        start="",
        metric=str(judge) if built_in.metric else "",
        reward=dataclasses.replace(built_in.reward, denoiser=str(before) if built_in.reward.denoiser else ""),
        data=dataclasses.replace(built_in.data, crop=36, batch=2, validation=1),
        optimizer=dataclasses.replace(built_in.optimizer, steps=2),
    )
    trained = train(recipe, [photos], runs / name, device="cpu")
    assert trained.weights.name == f"{name}.safetensors"
    assert trained.figures["psnr_rgb"] > 0
