"""A local page to try Resolute by hand; it needs the extra ``[demo]``, which is imported only when it is started."""

from resolute.serve.jobs import Trial, attack_steps, certify_steps, read_upload

__all__ = ["Trial", "attack_steps", "certify_steps", "read_upload"]
