"""Questions about a network: input sets, output conditions, property files and data sets."""

from __future__ import annotations

from mipverify.specification.conditions import Condition, Row
from mipverify.specification.robustness import robustness
from mipverify.specification.sets import Box, EmptyBoxError
from mipverify.specification.specification import Case, Specification
from mipverify.specification.vnnlib import load_vnnlib

__all__ = [
    "Box",
    "Case",
    "Condition",
    "EmptyBoxError",
    "Row",
    "Specification",
    "load_vnnlib",
    "robustness",
]
