"""The engine: runs the cells of any study, here, in processes or on a cluster, and keeps the records."""

from resolute.engine.queue import Machine
from resolute.engine.running import run
from resolute.engine.store import Store

__all__ = ["Machine", "Store", "run"]
