"""Checkpoints as training code writes them: nested, wrapped, averaged, with other networks beside the one."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from resolute.errors import CheckpointError, ModelWarning
from resolute.models import EDSR, load, load_scorer
from resolute.models.weights import weights_sha256

PTH, SAFE = "net.pth", "net.safetensors"


def weights(value=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = EDSR(scale=2, blocks=1, channels=6).state_dict()
    return state if value is None else {name: torch.full_like(tensor, value) for name, tensor in state.items()}


GOOD, BAD = weights(), weights(0.0)
JUDGE = {"features.0.weight": torch.ones(4, 3, 3, 3), "features.0.bias": torch.ones(4)}
OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2, 2)}}, "param_groups": [{"lr": 1e-4}]}


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def inside(infix, state):
    return {name.replace("body.", f"body.{infix}", 1): tensor for name, tensor in state.items()}


# What stands before all names, and around parts of a network.
ALONE = {
    **{
        prefix: under(prefix, GOOD)
        for prefix in (
            *("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "generator."),
            *("netG.", "params.", "params_ema.", "ema.", "my_sr_net.", "lit.model.generator.", "_forward_module."),
        )
    },
    "averaged": under("module.", GOOD) | {"n_averaged": torch.tensor(5)},
    "averaged and compiled": under("module._orig_mod.", GOOD) | {"n_averaged": torch.tensor(5)},
    "averaged inside": under("model.module.", GOOD) | {"model.n_averaged": torch.tensor(5)},
    "compiled part": inside("_orig_mod.", GOOD),
    "part on several devices": inside("module.", GOOD),
    "sharded": under("_fsdp_wrapped_module.", inside("_fsdp_wrapped_module.", GOOD)),
}

# Several networks in one flat mapping: which was taken, and which were left out.
SEVERAL = {
    "GAN": (under("generator.", GOOD) | under("discriminator.", JUDGE), "generator.*", ["discriminator.*"]),
    "GAN 2": (under("netD.", JUDGE) | under("netG.", GOOD), "netG.*", ["netD.*"]),
    "GAN 3": (under("module.D.", JUDGE) | under("module.G.", GOOD), "G.*", ["D.*"]),
    "loss": (under("loss_fn.vgg.", JUDGE) | under("upscaler.", GOOD), "", ["loss_fn.*"]),
    "teacher": (under("teacher.", BAD) | under("student.", GOOD), "student.*", ["teacher.*"]),
    "average": (under("model.", BAD) | under("model_ema.", GOOD), "model_ema.*", ["model.*"]),
    "average 2": (under("net.", BAD) | under("ema_model.module.", GOOD), "ema_model.*", ["net.*"]),
    "average 3": (under("online_model.", BAD) | under("ema_model.", GOOD), "ema_model.*", ["online_model.*"]),
    "average 4": (under("model._orig_mod.", BAD) | under("swa_model.module.", GOOD), "swa_model.*", ["model.*"]),
    "average beside bare names": (BAD | under("ema.", GOOD), "ema.*", ["head.*"]),
    "GAN and average": (
        under("generator.", BAD) | under("generator_ema.", GOOD) | under("discriminator.", JUDGE),
        "generator_ema.*",
        ["generator.*", "discriminator.*"],
    ),
}

# Nested mappings, with nothing to choose between, and with something.
NESTED = {
    **{
        key: ({key: GOOD, "epoch": 3, "optimizer": OPTIMIZER}, "", []) for key in ("net_g", "G", "checkpoint", "my_net")
    },
    "optimizer first": ({"optimizer": OPTIMIZER, "model": under("module.", GOOD)}, "", []),
    "twice": ({"model": {"state_dict": GOOD}, "optimizer": OPTIMIZER}, "", []),
    "three times": ({"checkpoint": {"model": {"state_dict": under("module.", GOOD)}}}, "", []),
    "list": ([GOOD, OPTIMIZER], "", []),
    "numbers beside the weights": ({**GOOD, "epoch": 3, "psnr": 31.0, "_extra_state": None}, "", []),
    "random state": ({"model": GOOD, "rng_state": torch.zeros(50, dtype=torch.uint8)}, "", []),
    "GAN": ({"disc": JUDGE, "gen": GOOD, "opt_d": OPTIMIZER}, "gen", ["disc"]),
    "GAN 2": ({"D_state_dict": JUDGE, "G_state_dict": GOOD}, "G_state_dict", ["D_state_dict"]),
    "Lightning": (
        {"state_dict": under("sr.", GOOD) | under("critic.", JUDGE), "optimizer_states": [OPTIMIZER]},
        "state_dict",
        ["critic.*"],
    ),
    **{
        f"{plain} and {averaged}": ({plain: BAD, averaged: wrap(GOOD)}, averaged, [plain])
        for plain, averaged in (
            *(("params", "params_ema"), ("params", "params-ema"), ("state_dict", "ema_state_dict"), ("model", "ema")),
            *(("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net_g", "net_g_ema"), ("model", "shadow")),
            *(("model", "emaModel"), ("current_model_state", "state_dict"), ("last", "best")),
        )
        for wrap in (dict, lambda state: under("module.", state))
    },
    "shadow": ({"model": BAD, "ema": {"decay": 0.9, "shadow": GOOD}}, "ema.shadow", ["model"]),
    "ema.model.state_dict": (
        {"model": {"state_dict": BAD}, "ema": {"model": {"state_dict": under("_orig_mod.", GOOD)}}},
        "ema.model.state_dict",
        ["model.state_dict"],
    ),
    "ema object": (
        {"model": BAD, "ema": under("online_model.", BAD) | under("ema_model.", GOOD) | {"step": torch.tensor(3)}},
        "ema.ema_model.*",
        ["online_model.*", "model"],
    ),
    "callback": (
        {"state_dict": under("model.", BAD), "callbacks": {"EMA": {"ema_state_dict": under("model.", GOOD)}}},
        "callbacks.EMA.ema_state_dict",
        ["state_dict"],
    ),
    "average without names": ({"model": GOOD, "ema": {"params": list(BAD.values())}}, "model", ["ema.params"]),
    "average without buffers": (
        {
            "model": under("module.", GOOD | {n: w + 1 for n, w in GOOD.items() if "mean" not in n}),
            "ema": {"shadow": {name: tensor for name, tensor in GOOD.items() if "mean" not in name}},
        },
        "ema.shadow, and what it lacks from model",
        [""],
    ),
    "average of counters": ({"model": GOOD, "ema": {"decay": torch.tensor(0.9)}}, "", []),
}


def write(content, path):
    if path.suffix == ".safetensors":
        save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def taken_from(path, left):
    """Load a file, and return what its card and the warning say was taken."""
    if left:
        with pytest.warns(ModelWarning, match="several sets") as caught:
            model = load(path)
        (said,) = [str(one.message) for one in caught if "several sets" in str(one.message)]
        assert path.name in said
        assert said.endswith(model.card.training["weights"])
        assert all(name in said.partition("left out")[2] for name in left)
    else:
        model = load(path)
        assert "weights" not in model.card.training
    assert model.card.sha256 == weights_sha256(GOOD)
    return model.card.training.get("weights", "")


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("file", [PTH, SAFE])
def test_what_all_names_share_and_wrappers_are_stripped(tmp_path, name, file):
    taken_from(write(ALONE[name], tmp_path / file), [])


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("file", [PTH, SAFE])
def test_of_several_networks_the_one_that_counts_is_taken_and_said(tmp_path, name, file):
    content, taken, left = SEVERAL[name]
    assert taken_from(write(content, tmp_path / file), left).startswith(taken)


@pytest.mark.parametrize("name", NESTED)
def test_of_nested_sets_the_averaged_is_taken_and_said(tmp_path, name):
    content, taken, left = NESTED[name]
    assert taken_from(write(content, tmp_path / PTH), left).startswith(taken)


@pytest.mark.filterwarnings("ignore:the code in")
def test_weights_of_code_and_metrics_are_found_alike(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))\n"
    )
    state = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1)).state_dict()
    ones = {name: torch.ones_like(tensor) for name, tensor in state.items()}
    torch.save({"net": ones, "ema": {"shadow": under("_orig_mod.", state)}}, tmp_path / PTH)
    with pytest.warns(ModelWarning, match=re.escape("net.pth holds several sets of weights: taken is ema.shadow")):
        model = load(f"{tmp_path}/net.py:Net#weights={tmp_path / PTH}")
    assert torch.equal(model.network[0].weight, state["0.weight"])
    metric = load_scorer("quality-s").state_dict()
    torch.save({"model": {name: 0 * tensor for name, tensor in metric.items()}, "model_ema": metric}, tmp_path / PTH)
    with pytest.warns(ModelWarning, match="taken is model_ema"):
        assert load_scorer(tmp_path / PTH).card.sha256 == weights_sha256(metric)


@pytest.mark.parametrize("file", [PTH, SAFE])
def test_an_unknown_layout_shows_its_first_names_and_shapes(tmp_path, file):
    write(under("module.", {"conv.weight": torch.ones(4, 3, 5, 5), "conv.bias": torch.ones(4)}), tmp_path / file)
    with pytest.raises(CheckpointError, match=r"module\.conv\.weight \(4, 3, 5, 5\).*FILE\.py:NAME"):
        load(tmp_path / file)


def test_the_set_with_the_unknown_layout_is_named(tmp_path):
    torch.save({"ema": {"shadow": {"a.b": torch.ones(1, 2)}}, "epoch": 2}, tmp_path / PTH)
    with pytest.raises(CheckpointError, match=r"1 keys in ema\.shadow; .*a\.b \(1, 2\)"):
        load(tmp_path / PTH)


def test_a_mapping_that_holds_itself_ends(tmp_path):
    content = {"model": GOOD}
    content["again"] = content
    taken_from(write(content, tmp_path / PTH), [])
