"""What the papers leave open and a study must say with its figures, as it was in this run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from resolute.attacks.ascent import Attack, GradientAttack, Straight
from resolute.defences.wrappers import Defended
from resolute.models.base import Restorer
from resolute.studies.summary import attack_title

_STARTS = {
    "zero": "starts at the clean image",
    "tiny": "starts within 1e-3/255 of the clean image",
    "uniform": "starts at a random point of the ball",
}

_DEFENCES = (
    "attacked by one who knows of them: gradients pass straight through rounding (BPDA), randomness is averaged over "
    "draws of the attacker's own (EOT); judged as deployed"
)


def conventions(
    attacks: Sequence[tuple[str, Attack]],
    models: Sequence[Restorer],
    high_resolution: bool,
    clever: str = "",
    given: tuple[int, int] = (0, 0),
) -> dict[str, str]:
    """Return, for each open question, what holds in the study that runs these attacks on these models.

    Args:
        attacks: labels and attacks, at any budget; the first of each label counts.
        models: as loaded.
        high_resolution: the images are the ground truth and were shrunk first.
        clever: how the index was taken; empty where it was not.
        given: of how many images the low-resolution form was given with the ground truth, and how many there are.

    Example:
        >>> from resolute.attacks import IFGSM
        >>> conventions([("ifgsm", IFGSM(epsilon=4 / 255))], [], True)["I-FGSM"]
        'climbs OutputShift(); 50 steps of ε/50; starts within 1e-3/255 of the clean image; the best iterate counts'
    """
    found: dict[str, str] = {}
    for label, attack in attacks:
        found.setdefault(attack_title(label), _attack(attack))
    layers = ", ".join(f"{model.card.name}: {model.feature_layer}" for model in models if model.card is not None)
    scales = sorted({model.scale for model in models})
    border = " and ".join(map(str, scales)) or "scale"
    return found | {
        "reference of eq. 14": "the model's own clean output, unless the attack says otherwise",
        "feature layer Φ": layers,
        "attacked images": "each pixel on the nearest of the 256 levels in the ball; all figures are of that image",
        "low-resolution images": _low_resolution(high_resolution, *given),
        "LR-PSNR, SR-PSNR": "RGB, outputs clamped to [0, 1], not rounded, no border shaved; per image, then the mean",
        "clean and attacked PSNR, SSIM": f"luma Y (BT.601) in 8 bits, {border} pixels of the border shaved",
        "equal images": "counted, and left out of means",
        **({"defences around a model": _DEFENCES} if any(isinstance(model, Defended) for model in models) else {}),
        **({"CLEVER (eq. 15)": clever} if clever else {}),
    }


def _low_resolution(high_resolution: bool, given: int, images: int) -> str:
    made = (
        "MATLAB's bicubic in 8 bits, border mirrored, of images cut to multiples of the scale"
        if high_resolution
        else "as given; there is no ground truth"
    )
    if not given:
        return made
    pairs = f"as given with the ground truth, of {given} of {images} images"
    return f"{pairs}; of the others {made}" if given < images else pairs


def _attack(attack: Attack) -> str:
    if not isinstance(attack, GradientAttack):
        return re.sub(r"\bepsilon=[^,)]*", "epsilon=…", repr(attack))
    plan = attack.ascent()
    share = attack.epsilon / plan.step_size
    size = f"ε/{share:g}" if share >= 1 else f"{1 / share:g} ε"
    parts = [f"climbs {plan.objective!r}", f"{plan.steps} step{'s' if plan.steps > 1 else ''} of {size}"]
    if plan.rule != Straight():
        parts.append(f"each after {plan.rule!r}")
    parts += [_STARTS[plan.start], "the best iterate counts"]
    if plan.restarts > 1:
        parts.append(f"the best of {plan.restarts} runs")
    return "; ".join(parts)
