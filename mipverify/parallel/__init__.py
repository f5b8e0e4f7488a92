"""Several processes for one piece of work: who lends a hand, and how child processes are started.

Rooms that could use more than one core take `Hands`; nothing in them changes with how many there are.
"""

from mipverify.parallel.crew import Crew
from mipverify.parallel.hands import ALONE, Hands, cores, dealt

__all__ = ["ALONE", "Crew", "Hands", "cores", "dealt"]
