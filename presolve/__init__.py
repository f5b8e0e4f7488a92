"""Bounds of every value in a network, from interval arithmetic to optimized CROWN; each method is sound by itself."""

from mipverify.presolve.ascent import Search
from mipverify.presolve.crown import condition_rows, crown
from mipverify.presolve.fast_lin import fast_lin
from mipverify.presolve.layers import tighten_by_layer
from mipverify.presolve.optimized import Optimum, optimize_rows, optimized_crown

from mipverify.proof.backward import Relaxed, minimizer, minimum_over_box, pass_back, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval
from mipverify.proof.parts import row_chunks
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import InputRows, Rows, unit_rows
from mipverify.proof.separable import lowest
from mipverify.proof.signs import nonnegative

__all__ = [
    "Bounds",
    "InputRows",
    "Optimum",
    "Relaxed",
    "Rows",
    "Search",
    "condition_rows",
    "crown",
    "fast_lin",
    "interval",
    "lowest",
    "minimizer",
    "minimum_over_box",
    "nonnegative",
    "optimize_rows",
    "optimized_crown",
    "pass_back",
    "reduce",
    "row_chunks",
    "row_minimum",
    "tighten_by_layer",
    "unit_rows",
]
