"""Searches for evidence, from interval arithmetic to optimized CROWN, from which `mipverify.proof` concludes."""

from mipverify.presolve.ascent import Search
from mipverify.presolve.crown import crown
from mipverify.presolve.fast_lin import fast_lin
from mipverify.presolve.layers import tighten_by_layer
from mipverify.presolve.optimized import Optimum, optimize_rows, optimized_crown

from mipverify.proof.interval import interval

__all__ = [
    "Optimum",
    "Search",
    "crown",
    "fast_lin",
    "interval",
    "optimize_rows",
    "optimized_crown",
    "tighten_by_layer",
]
