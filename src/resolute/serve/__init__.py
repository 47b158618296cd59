"""A local page to try Resolute by hand; it needs the extra ``[demo]``, which is imported only when it is started."""

from resolute.serve.asking import Asked, faithful_steps
from resolute.serve.hardening import Hardened, harden_steps
from resolute.serve.jobs import Trial, attack_steps, certify_steps, read_upload
from resolute.serve.stream import Step

__all__ = [
    "Asked",
    "Hardened",
    "Step",
    "Trial",
    "attack_steps",
    "certify_steps",
    "faithful_steps",
    "harden_steps",
    "read_upload",
]
