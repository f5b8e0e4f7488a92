"""Norms as objects, one file each: whoever depends on a norm asks the object."""

from __future__ import annotations

from mipverify.errors import InputError
from mipverify.specification.norms.l1 import L1
from mipverify.specification.norms.l2 import L2
from mipverify.specification.norms.linf import Linf
from mipverify.specification.norms.norm import BallNorm, Norm

__all__ = ["L1", "L2", "NORMS", "BallNorm", "Linf", "Norm", "norm_named"]

NORMS: tuple[Norm, ...] = (Linf(), L1(), L2())  # as users are told of them


def norm_named(name: str) -> Norm:
    """The norm that users call so. Raises InputError where there is none."""
    for norm in NORMS:
        if norm.name == name:
            return norm
    raise InputError(f"norm {name!r} is not one of {', '.join(norm.name for norm in NORMS)}")
