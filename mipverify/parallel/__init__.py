"""Several processes for one piece of work: who lends a hand, and how child processes are started.

Rooms that could use more than one core take `Executor`; nothing in them changes with how many there are.
"""

from mipverify.parallel.executor import SERIAL, Executor, cores, partition
from mipverify.parallel.process_pool import ProcessPool

__all__ = ["SERIAL", "Executor", "ProcessPool", "cores", "partition"]
