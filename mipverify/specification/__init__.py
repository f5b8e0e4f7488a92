"""Questions about a network: input sets, output conditions, property files and data sets."""

from __future__ import annotations

from mipverify.specification.conditions import Condition, Row
from mipverify.specification.dataset import Dataset, load_dataset
from mipverify.specification.robustness import robustness
from mipverify.specification.sets import Box, EmptyBoxError
from mipverify.specification.specification import Case, Specification
from mipverify.specification.vnnlib import load_vnnlib

__all__ = [
    "Box",
    "Case",
    "Condition",
    "Dataset",
    "EmptyBoxError",
    "Row",
    "Specification",
    "load_dataset",
    "load_vnnlib",
    "robustness",
]
