"""Resolute measures, hardens and certifies image models against adversarial perturbations.

``load`` a super-resolution model or ``load_scorer`` a quality metric; attack it; ``harden`` it; ``certify`` a score;
``run`` a study and ``write_report``. A name is imported when it is first used, PyTorch with it.

Images are RGB float in [0, 1], ``(batch, 3, height, width)``, everywhere.

Example:
    >>> import resolute
    >>> model = resolute.load("edsr-s")
    >>> x = resolute.sample_image("coffee")[None, :, :32, :32]
    >>> attacked = resolute.IFGSM(epsilon=4 / 255, steps=5)(model, x)
    >>> sr_psnr = resolute.psnr_rgb(model(x), model(attacked.images))
"""

import lazy_loader

__version__ = "0.1.0"

# The names are in __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
