"""Perturbations of one input: a family of input sets that grows with its radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number
from mipverify.specification.normalization import Normalization
from mipverify.specification.norms import BallNorm, Linf, Norm, norm_named
from mipverify.specification.sets import Ball, BallInBox, Box, Constrained, InputSet
from mipverify.specification.sets.ball import ExactBall, rounding
from mipverify.specification.sets.constrained import linear_rows, rows_hold

_Kind: TypeAlias = tuple[Fraction, Fraction, Fraction | None, Fraction | None]


@dataclass(frozen=True, eq=False)
class Perturbation:
    """All x in a domain with ||(x - center) / scale|| <= radius and `matrix @ x <= offset`, for every radius.

    center, scale: float64 (n,), taken as exactly the numbers they are unless `exact` holds the numbers that they are
    nearest to; a scale of 0 fixes its coordinate. lower, upper: exact limits of the domain (n,), None for none. matrix,
    offset: (m, n), (m,).
    """

    center: NDArray[np.float64]
    scale: NDArray[np.float64]
    lower: tuple[Fraction | None, ...]
    upper: tuple[Fraction | None, ...]
    norm: Norm = field(default_factory=Linf)
    matrix: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None
    exact: tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None = None

    @classmethod
    def around(
        cls,
        center: ArrayLike,
        *,
        norm: str = "linf",
        scale: ArrayLike | None = None,
        domain: tuple[object, object] | None = (0, 1),
        constraints: Sequence[tuple[ArrayLike, object]] = (),
        mean: object = 0,
        std: object = 1,
    ) -> Perturbation:
        """Perturbations of an input of any shape.

        scale: radius of each feature in units of the common one, of the input's shape; 1 by default, 0 fixes a feature.
        domain: limits that hold for all features, or one array (or list of decimals) of each side, read exactly.
        constraints: pairs (coefficients, limit): coefficients . x <= limit.
        mean, std: the perturbations are those of z = (x - mean) / std, at the distances and in the domain of x.

        Raises:
            InputError: a norm that does not exist, sizes that differ, a center outside of its domain or constraints.
        """
        measure = norm_named(norm)
        flat = np.asarray(center, np.float64).reshape(-1)
        for i in np.flatnonzero(~np.isfinite(flat)).tolist():
            raise InputError(f"input {i} is {flat[i]}")
        sizes = np.ones(len(flat)) if scale is None else np.asarray(scale, np.float64).reshape(-1)
        if len(sizes) != len(flat) or not (np.isfinite(sizes) & (sizes >= 0)).all():
            raise InputError(f"scale must hold {len(flat)} finite numbers that are not negative")
        lower, upper = (_limits(side, len(flat)) for side in (domain or (None, None)))
        for i, (low, value, high) in enumerate(zip(lower, flat.tolist(), upper, strict=True)):
            if (low is not None and value < low) or (high is not None and value > high):
                raise InputError(f"input {i} is {value}, outside of its domain")
        normalization = Normalization.of(mean, std, np.shape(center))
        if normalization is not None:
            if len(constraints):
                raise InputError("constraints cannot be combined with a mean or std: state all for the network's input")
            return cls._normalized(flat, sizes, lower, upper, measure, normalization)
        matrix, offset = linear_rows(constraints, len(flat)) if len(constraints) else (None, None)
        if matrix is not None and offset is not None and not rows_hold(matrix, offset, flat):
            raise InputError("the unperturbed input does not meet the input constraints")
        return cls(flat, sizes, lower, upper, measure, matrix, offset)

    @classmethod
    def _normalized(
        cls,
        center: NDArray[np.float64],
        scale: NDArray[np.float64],
        lower: tuple[Fraction | None, ...],
        upper: tuple[Fraction | None, ...],
        norm: Norm,
        normalization: Normalization,
    ) -> Perturbation:
        pairs = [normalization.pairs[k] for k in normalization.which]
        moved = [
            tuple(None if v is None else (Fraction(v) - mean) / std for v, (mean, std) in zip(side, pairs, strict=True))
            for side in (center.tolist(), lower, upper)
        ]
        sizes = tuple(Fraction(v) / std for v, (_, std) in zip(scale.tolist(), pairs, strict=True))
        middle = tuple(v for v in moved[0] if v is not None)
        around, scales = (np.array([float(v) for v in side]) for side in (middle, sizes))
        return cls(around, scales, moved[1], moved[2], norm, exact=(middle, sizes))

    @property
    def size(self) -> int:
        """Number of inputs n."""
        return len(self.center)

    @cached_property
    def _kinds(self) -> tuple[list[_Kind], NDArray[np.intp]]:
        """Center, scale and limits of the coordinates that differ in any of them, and which of these each one (n,) is.

        Images repeat few values: exact arithmetic is done once for each.
        """
        kinds: dict[_Kind, int] = {}
        fraction = lru_cache(maxsize=None)(Fraction)
        centers, scales = self.exact or (map(fraction, self.center.tolist()), map(fraction, self.scale.tolist()))
        given = zip(centers, scales, self.lower, self.upper, strict=True)
        where = [kinds.setdefault(kind, len(kinds)) for kind in given]
        return list(kinds), np.array(where, np.intp)

    def within(self, radius: object) -> InputSet:
        """The inputs that a radius allows."""
        exact = exact_number(radius, "eps")
        if exact < 0:
            raise InputError(f"eps must not be negative: {radius}")
        kinds, where = self._kinds
        lower = [_inner(c - exact * s, low, max) for c, s, low, _ in kinds]
        upper = [_inner(c + exact * s, high, min) for c, s, _, high in kinds]
        few = Box.from_exact(lower, upper, name="the input value number {}".format)
        inputs: InputSet = few.spread(where)
        if isinstance(self.norm, BallNorm):
            inputs = BallInBox(self._ball(self.norm, exact), inputs.box)
        if self.matrix is None or self.offset is None:
            return inputs
        return Constrained(inputs, self.matrix, self.offset)

    def _ball(self, norm: BallNorm, radius: Fraction) -> Ball:
        if self.exact is None:
            return Ball(norm, self.center, radius, self.scale)
        return ExactBall(*self.exact, radius).enclosing(norm)

    def distance(self, x: ArrayLike) -> float:
        """An upper bound, tight to rounding, of the distance of a float32 input (n,) from the center."""
        near = float(self.norm.scaled_length(np.asarray(x, np.float64).reshape(-1) - self.center, self.scale))
        return near * (1 + 1e-13) if self.exact is None else near + self._rounding * (near + 1)

    @cached_property
    def _rounding(self) -> float:
        return 2 * float(rounding(self.center, self.scale)) + 1e-13

    @cached_property
    def limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The domain as floats (n,), infinite where there is no limit; for searching."""
        lower = np.array([-np.inf if v is None else float(v) for v in self.lower])
        return lower, np.array([np.inf if v is None else float(v) for v in self.upper])

    @property
    def reach(self) -> float:
        """A radius within which the whole domain lies; infinite where there are no limits."""
        low, high = self.limits
        far = np.where(self.scale > 0, np.maximum(self.center - low, high - self.center), 0.0)
        return float(self.norm.scaled_length(far, np.where(self.scale > 0, self.scale, 1.0))) * (1 + 1e-12)


def _inner(value: Fraction, limit: Fraction | None, choose: object) -> Fraction:
    return value if limit is None else choose(value, limit)  # type: ignore[operator]


def _limits(side: object, size: int) -> tuple[Fraction | None, ...]:
    if side is None:
        return (None,) * size
    if isinstance(side, list | tuple | np.ndarray):
        values = np.asarray(side, object).reshape(-1).tolist()
        if len(values) != size:
            raise InputError(f"domain: {len(values)} limits for {size} inputs")
        return tuple(exact_number(value, "domain limit") for value in values)
    return (exact_number(side, "domain limit"),) * size
