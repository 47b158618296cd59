"""Make docs/zoo.md: load every architecture of spandrel as a user would, attack it with the whole suite, say what came.

    python docs/make_zoo.py             # with the arguments that spandrel's classes have by default: some ten minutes
    python docs/make_zoo.py --small     # the same in a minute, with fewer blocks, and nothing written

It needs spandrel, the extra [zoo].

The weights are random, as spandrel's classes draw them: what is shown is that gradients and sizes are right, and not
how robust anyone's model is.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from resolute import APGD, FDA, FGSM, IFGSM, PGD, Restorer, Square, load
from resolute.errors import CheckpointError
from resolute.models.vision import import_library
from resolute.models.weights import weights_sha256

PAGE = Path(__file__).with_name("zoo.md")
EPSILON = 4 / 255
SUITE = {
    "fgsm": FGSM(epsilon=EPSILON),
    "ifgsm": IFGSM(epsilon=EPSILON, steps=2),
    "fda": FDA(epsilon=EPSILON, steps=2),
    "pgd": PGD(epsilon=EPSILON, steps=2, relative_step=0.5),
    "apgd": APGD(epsilon=EPSILON, steps=2),
    "square": Square(epsilon=EPSILON, queries=2),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of spandrel: its class, arguments without a usable default, a smaller form, or why it is not tried."""

    architecture: str
    name: str = ""
    needed: dict[str, object] = dataclasses.field(default_factory=dict)
    smaller: dict[str, object] = dataclasses.field(default_factory=dict)
    untried: str = ""

    @property
    def title(self) -> str:
        return self.name or self.architecture

    def build(self, small: bool) -> nn.Module:
        import_library("spandrel")
        module = importlib.import_module(f"spandrel.architectures.{self.architecture}")
        return getattr(module, self.title)(**self.needed, **(self.smaller if small else {}))


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of a network: empty reason where it passes."""

    network: str
    scale: str
    layer: str
    reason: str


CASES = (
    Case("Compact", smaller={"num_feat": 8, "num_conv": 2}),
    Case("SwiftSRGAN", smaller={"num_channels": 8, "num_blocks": 2}),
    Case("HAT", needed={"upscale": 2, "window_size": 8}, smaller={"depths": (1, 1), "num_heads": (2, 2)}),
    Case("GRL", smaller={"embed_dim": 12, "depths": [2], "num_heads_window": [2], "num_heads_stripe": [2]}),
    Case("Swin2SR", needed={"window_size": 8}, smaller={"embed_dim": 12, "depths": [2], "num_heads": [2]}),
    Case("SwinIR", needed={"window_size": 8}, smaller={"embed_dim": 12, "depths": [2], "num_heads": [2]}),
    Case(
        "GFPGAN", untried="it takes 512 x 512 pixels at least, too many for this table; it loads, and was not attacked"
    ),
    Case("RestoreFormer"),
    Case("LaMa"),
    Case("OmniSR", smaller={"num_feat": 16}),
    Case("SCUNet", smaller={"config": [1] * 7}),
    Case("FBCNN", smaller={"nb": 1}),
    Case("Uformer", smaller={"embed_dim": 8, "depths": [1] * 9, "num_heads": [1] * 9}),
    Case("RGT", smaller={"embed_dim": 24, "depth": [2], "num_heads": [2]}),
    Case("DAT", smaller={"embed_dim": 24, "depth": [2], "num_heads": [2]}),
    Case("CRAFT", smaller={"embed_dim": 12, "depths": [1], "num_heads": [6]}),
    Case(
        "KBNet", "KBNet_s", smaller={"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1] * 4, "dec_blk_nums": [1] * 4}
    ),
    Case("KBNet", "KBNet_l", smaller={"num_blocks": [1] * 4, "num_refinement_blocks": 1}),
    Case("DITN", smaller={"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1}),
    Case("MMRealSR", needed={"num_in_ch": 3, "num_out_ch": 3}, smaller={"num_feat": 16, "num_block": 1}),
    Case("SPAN", needed={"num_in_ch": 3, "num_out_ch": 3}, smaller={"feature_channels": 8}),
    Case("RealCUGAN", "UpCunet2x"),
    Case("RealCUGAN", "UpCunet2x_fast"),
    Case("RealCUGAN", "UpCunet3x"),
    Case("RealCUGAN", "UpCunet4x"),
    Case("SAFMN", needed={"dim": 36}, smaller={"n_blocks": 2}),
    Case("SAFMNBCIE", needed={"dim": 36}, smaller={"n_blocks": 1, "num_layers": 1}),
    Case("DCTLSA"),
    Case("FFTformer", smaller={"dim": 8, "num_blocks": [1] * 3, "num_refinement_blocks": 1}),
    Case("NAFNet", needed={"enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    Case(
        "ATD",
        needed={"upscale": 2, "upsampler": "pixelshuffle"},
        smaller={"embed_dim": 12, "depths": (2,), "num_heads": (2,)},
    ),
    Case("MixDehazeNet"),
    Case("DRUNet", needed={"in_nc": 4, "out_nc": 3}, smaller={"nc": [8, 8, 16, 16], "nb": 2}),
    Case("DnCNN", smaller={"nc": 8, "nb": 4}),
    Case(
        "IPT",
        untried="115 million weights on 48 x 48 pixels are too slow for this table; it loads, and was not attacked",
    ),
    Case(
        "DRCT",
        needed={"upscale": 2, "upsampler": "pixelshuffle"},
        smaller={"embed_dim": 12, "depths": (1,), "num_heads": (2,), "gc": 4},
    ),
    Case("ESRGAN", smaller={"num_filters": 8, "num_blocks": 1}),
    Case("PLKSR", "PLKSR", smaller={"dim": 16, "n_blocks": 2}),
    Case("PLKSR", "RealPLKSR", smaller={"dim": 16, "n_blocks": 2}),
    Case("RetinexFormer", smaller={"n_feat": 8, "stage": 1}),
    Case("HVICIDNet"),
    Case("SeemoRe", smaller={"embedding_dim": 16, "num_layers": 2}),
    Case("MoSR", smaller={"dim": 16, "n_block": 2}),
    Case("MoESR", smaller={"dim": 16, "n_blocks": 1, "n_block": 1}),
    Case("RCAN", smaller={"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}),
    Case("FDAT", smaller={"embed_dim": 24, "num_groups": 1, "depth_per_group": 1, "num_heads": 2}),
    Case(
        "AuraSR",
        needed={
            "dim": 8,
            "image_size": 64,
            "input_image_size": 16,
            "style_network": {"dim_in": 8, "dim_out": 8, "depth": 1},
        },
    ),
)


def loaded(case: Case, folder: Path, small: bool) -> Restorer:
    """Save a network's weights to a file, and load the file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = case.build(small)
    path = folder / f"{case.title}.safetensors"
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}, path)
    return load(path)


def attacked(model: Restorer, images: int = 1) -> None:
    """Run the suite on small images.

    Raises:
        AssertionError: an attack finds nothing, leaves the ball, or changes the model.
    """
    x = torch.randint(0, 256, (images, 3, 9, 7), generator=torch.Generator().manual_seed(0)) / 255
    before = weights_sha256(model.state_dict())
    modes = [module.training for module in model.modules()]
    for name, attack in SUITE.items():
        found = attack(model, x)
        assert float((found.images - x).abs().max()) <= EPSILON + 1e-6, f"{name} leaves the ball"
        assert found.images.min() >= 0, f"{name} leaves the range of images"
        assert found.images.max() <= 1, f"{name} leaves the range of images"
        assert found.objective.shape == (images,), f"{name} has no objective for each image"
        if name == "fda":
            # Two steps of a random network may lead nowhere; they may not lead down.
            clean = attack.aim()[0].bind(model, x)(x).detach()
            assert (found.objective_unrounded >= clean - 1e-4).all(), f"{name} lowers its objective"
        else:
            assert (found.objective > 0).all(), f"{name} finds nothing"
    assert weights_sha256(model.state_dict()) == before, "an attack changed the weights"
    assert [module.training for module in model.modules()] == modes, "an attack changed the mode"


def row(case: Case, small: bool, folder: Path) -> Row:
    """Load and attack a network, and say what came of it."""
    if case.untried:
        return Row(case.title, "", "", case.untried)
    try:
        model = loaded(case, folder, small)
        attacked(model)
    except CheckpointError as error:
        # The reason; what to do about it is for who wrote the network.
        _, refused, reason = str(error).rpartition("attacked: ")
        reason = reason.partition("; ")[0] if refused else reason
        return Row(case.title, "", "", reason.removeprefix(f"{case.title}.safetensors "))
    except AssertionError as error:
        return Row(case.title, "", "", str(error))
    return Row(case.title, f"x{model.scale}", model.feature_layer.removeprefix("network."), "")


PREFACE = """\
# Networks of spandrel

With `pip install 'resolute[zoo]'`, `load("x.pth")` and every command that takes a model read the weights of any
architecture that [spandrel](https://github.com/chaiNNer-org/spandrel) knows. Resolute's own layouts are tried first.
`hf-hub:OWNER/REPOSITORY/FILE` and `openmodeldb:NAME` fetch a file; `@REVISION` and `#sha256=HEX` behind the former
pin it. Files are cached, checked against their sha256 and read as tensors alone: one that could run code is refused.
With `HF_HUB_OFFLINE=1` only the cache is used.

Checkpoints load as training code writes them, these and those of Resolute's own layouts: nested, behind `module.`,
`_orig_mod.` or any other common prefix, with an optimizer or a discriminator beside them. Of averaged and other weights
the averaged are taken, and a line says so. Damage that the checksums of a checkpoint tell is told; files of PyTorch
before 1.6 have none, nor have those of safetensors without a card of Resolute.

Images are padded by reflection to the sizes that a network takes, and its output is cropped. Networks for gray images
get the three channels one by one. Φ is the output of the last convolution before the maps grow larger than those of
the first, the one that makes the sub-pixels of a pixel shuffle not counted; in networks that do not upscale, of the
last convolution with more than three channels. `--layer` names another.

`python docs/make_zoo.py` made this page, from networks with random weights and the arguments that their classes have
by default. Each was saved, loaded with `resolute.load`, and attacked with FGSM, I-FGSM, FDA, PGD and APGD of two steps
and Square of two queries. To pass, all of these have to raise their objective (FDA: not to lower it), stay in the ball
and leave the weights as they were.
"""


def page(rows: list[Row]) -> str:
    """Return docs/zoo.md."""
    passed, others = [row for row in rows if not row.reason], [row for row in rows if row.reason]
    table = [f"| {row.network} | {row.scale} | `{row.layer}` |" for row in passed]
    reasons = [f"| {row.network} | {row.reason} |" for row in others]
    return "\n".join([
        PREFACE,
        f"{len(passed)} of {len(rows)} pass:",
        "",
        "| network | scale | Φ |",
        "|---|---|---|",
        *table,
        "",
        "The others:",
        "",
        "| network | why not |",
        "|---|---|",
        *reasons,
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="try these alone, and write nothing")
    parser.add_argument("--small", action="store_true", help="fewer blocks and channels, and write nothing")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if not arguments.names or case.title in arguments.names:
                start = time.process_time()
                rows.append(row(case, arguments.small, Path(folder)))
                print(*dataclasses.astuple(rows[-1]), f"{time.process_time() - start:.1f} s", flush=True)
    if not (arguments.names or arguments.small):
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
