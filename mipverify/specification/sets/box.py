"""A box known exactly, as floats on its outside for proofs and on its inside for witnesses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import Exact, decimal_between, round_exact, show_exact
from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.sets.input_set import InputSet, Proposal


class EmptyBoxError(InputError):
    """No input lies between the bounds."""


def _default_name(index: int) -> str:
    return f"X_{index}"


class Pinned(NamedTuple):
    """A coordinate between whose exact bounds no float32 lies. An open bound is not allowed itself."""

    name: str
    lower: Exact
    upper: Exact
    lower_open: bool
    upper_open: bool

    @property
    def decimal(self) -> str:
        """A short decimal that the bounds allow."""
        return decimal_between(self.lower, self.upper, self.lower_open, self.upper_open)


@dataclass(frozen=True, eq=False, repr=False)
class Box(InputSet):
    """All inputs between two exact bounds, coordinate by coordinate, flat in row-major order.

    `lower`, `upper`: float64 (n,), the tightest floats that enclose the exact box: what is proven on them holds on it.
    `float32_lower`, `float32_upper`: float32 (n,), the float32 inputs that lie in the exact box are exactly those
    between them. Where no float32 lies between a coordinate's two bounds, both are the nearest float32; `stated` has
    these coordinates by index.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    float32_lower: NDArray[np.float32]
    float32_upper: NDArray[np.float32]
    stated: Mapping[int, Pinned] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for array in (self.lower, self.upper, self.float32_lower, self.float32_upper):
            array.setflags(write=False)

    @classmethod
    def from_exact(
        cls,
        lower: Sequence[Exact],
        upper: Sequence[Exact],
        *,
        lower_open: ArrayLike = False,
        upper_open: ArrayLike = False,
        name: Callable[[int], str] = _default_name,
    ) -> Box:
        """Round exact bounds to floats. A bound marked open does not belong to the box itself.

        Raises:
            EmptyBoxError: a lower bound exceeds its upper bound (or equals it, and one of them is open).
            InputError: a bound lies beyond every finite float32. Either message names the variable with `name(index)`.
        """
        box = cls.many(lower, upper, len(lower), lower_open=lower_open, upper_open=upper_open, name=name)[0]
        if isinstance(box, EmptyBoxError):
            raise box
        return box

    @classmethod
    def many(
        cls,
        lower: Sequence[Exact],
        upper: Sequence[Exact],
        size: int,
        *,
        lower_open: ArrayLike = False,
        upper_open: ArrayLike = False,
        name: Callable[[int], str] = _default_name,
    ) -> list[Box | EmptyBoxError]:
        """Boxes of `size` inputs each, one after the other in the bounds, or the error where one is empty.

        Raises:
            InputError: a bound lies beyond every finite float32.
        """
        low, high = round_exact(lower), round_exact(upper)
        shape = low.down64.shape
        open_low, open_high = np.broadcast_to(lower_open, shape), np.broadcast_to(upper_open, shape)
        empty: dict[int, EmptyBoxError] = {}
        # Only bounds whose float64 enclosures overlap can be in the wrong order; these few are compared exactly.
        for i in np.flatnonzero(low.up64 >= high.down64).tolist():
            if lower[i] > upper[i] or (lower[i] == upper[i] and (open_low[i] or open_high[i])):
                between = f"{show_exact(lower[i])} and {show_exact(upper[i])}"
                message = f"empty input set: no value of {name(i % size)} lies between its bounds {between}"
                empty.setdefault(i // size, EmptyBoxError(message))
        with np.errstate(over="ignore", under="ignore"):
            first = np.where(open_low & low.is_float32, np.nextafter(low.up32, np.float32(np.inf)), low.up32)
            last = np.where(open_high & high.is_float32, np.nextafter(high.down32, np.float32(-np.inf)), high.down32)
        pinned = first > last
        first, last = np.where(pinned, low.near32, first), np.where(pinned, low.near32, last)
        finite = np.isfinite(first) & np.isfinite(last) & np.isfinite(low.down64) & np.isfinite(high.up64)
        for i in np.flatnonzero(~finite).tolist():
            if i // size not in empty:
                between = f"{show_exact(lower[i])} and {show_exact(upper[i])}"
                raise InputError(f"input set: the bounds {between} of {name(i % size)} exceed every float32")
        sides = [side.reshape(-1, size) for side in (low.down64, high.up64, first, last)]
        stated: list[dict[int, Pinned]] = [{} for _ in range(len(sides[0]))]
        for i in np.flatnonzero(pinned).tolist():
            coordinate = Pinned(name(i % size), lower[i], upper[i], bool(open_low[i]), bool(open_high[i]))
            stated[i // size][i % size] = coordinate
        return [empty.get(k) or cls(*box) for k, box in enumerate(zip(*sides, stated, strict=True))]

    def spread(self, where: NDArray[np.intp]) -> Box:
        """The box whose coordinate i is coordinate where[i] (n,) of this one."""
        found = [(i, k) for i, k in enumerate(where.tolist()) if k in self.stated] if self.stated else []
        stated = {i: self.stated[k]._replace(name=_default_name(i)) for i, k in found}
        lower, upper = self.lower[where], self.upper[where]
        return Box(lower, upper, self.float32_lower[where], self.float32_upper[where], stated)

    @classmethod
    def joined(cls, boxes: Sequence[Box]) -> Box:
        """The box whose inputs are those of several boxes, one after the other."""
        begins = np.cumsum([0, *(box.size for box in boxes)])[:-1].tolist()
        stated = {begin + i: one for box, begin in zip(boxes, begins, strict=True) for i, one in box.stated.items()}
        return cls(
            np.concatenate([box.lower for box in boxes]),
            np.concatenate([box.upper for box in boxes]),
            np.concatenate([box.float32_lower for box in boxes]),
            np.concatenate([box.float32_upper for box in boxes]),
            stated,
        )

    def taken(self, some: slice) -> Box:
        """The box of some inputs that follow one another."""
        begin, end, _ = some.indices(self.size)
        stated = {i - begin: pinned for i, pinned in self.stated.items() if begin <= i < end}
        sides = (self.lower[some], self.upper[some], self.float32_lower[some], self.float32_upper[some])
        return Box(*sides, stated)

    @classmethod
    def from_floats(cls, lower: ArrayLike, upper: ArrayLike) -> Box:
        """Box between two arrays of floats of any equal shape, every float taken as exactly the number it is."""
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (lower, upper))
        if low.shape != high.shape:
            raise InputError(f"input set: {low.size} lower bounds, {high.size} upper bounds")
        for i in np.flatnonzero(~(np.isfinite(low) & np.isfinite(high))).tolist():
            raise InputError(f"input set: X_{i}: bounds {low[i]} and {high[i]} are not finite")
        return cls.from_exact([Fraction(v) for v in low.tolist()], [Fraction(v) for v in high.tolist()])

    @property
    def box(self) -> Box:
        """The set itself."""
        return self

    @property
    def is_box(self) -> bool:
        return True

    @property
    def size(self) -> int:
        """Number of inputs n."""
        return self.lower.size

    @property
    def center(self) -> NDArray[np.float64]:
        """Middle of the box, float64 (n,)."""
        return 0.5 * self.lower + 0.5 * self.upper

    @property
    def radius(self) -> NDArray[np.float64]:
        """Half the width of every coordinate, float64 (n,)."""
        return 0.5 * self.upper - 0.5 * self.lower

    @property
    def enclosure(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Floats (n,) between which all of the box and all of its float32 inputs lie.

        Where no float32 lies between two bounds, the nearest one stands for them and may lie outside.
        """
        return np.minimum(self.lower, self.float32_lower), np.maximum(self.upper, self.float32_upper)

    def contains(self, x: ArrayLike) -> bool:
        return bool(self.contains_float32(np.asarray(x).reshape(-1)))

    def contains_float32(self, x: ArrayLike) -> NDArray[np.bool_]:
        """Whether inputs (..., n) lie in the box, decided exactly for float32; other values are no float32: False."""
        x = np.asarray(x)
        with np.errstate(over="ignore", under="ignore"):
            same = x.astype(np.float32) == x
        return (same & (self.float32_lower <= x) & (x <= self.float32_upper)).all(axis=-1)

    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        """The inputs (..., n), any float type, moved to the nearest float32 inside; NaN becomes the lower bound."""
        with np.errstate(over="ignore", under="ignore"):
            near = np.asarray(points).astype(np.float32)
        near = np.where(np.isnan(near), self.float32_lower, near)
        return np.clip(near, self.float32_lower, self.float32_upper)

    def propose(self, rows: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Proposal:
        return Proposal(np.where(rows > 0, lower, upper))

    def linear_system(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> LinearSystem:
        return LinearSystem.empty(self.size)

    def part(self, box: Box) -> Box:
        return box

    def split(self, coordinate: int) -> tuple[Box, Box]:
        """Two boxes that share a float32 in the middle of a coordinate. Raises ValueError where there is none."""
        first, last = self.float32_lower[coordinate], self.float32_upper[coordinate]
        middle = np.float32(0.5 * float(first) + 0.5 * float(last))
        if not (first < middle < last and self.lower[coordinate] < middle < self.upper[coordinate]):
            raise ValueError(f"coordinate {coordinate} has no float32 between {first} and {last} to split it at")
        found = []
        for sides in (("lower", "float32_lower"), ("upper", "float32_upper")):
            arrays = {name: getattr(self, name) for name in ("lower", "upper", "float32_lower", "float32_upper")}
            for name in sides:
                arrays[name] = arrays[name].copy()
                arrays[name][coordinate] = middle
            found.append(Box(**arrays, stated=self.stated))
        return found[1], found[0]

    def key(self) -> bytes:
        """Equal for two boxes exactly when all their floats are."""
        return b"".join(a.tobytes() for a in (self.lower, self.upper, self.float32_lower, self.float32_upper))

    def __repr__(self) -> str:
        widest = float((self.upper - self.lower).max(initial=0.0))
        return f"Box({self.size} inputs, widths up to {widest:.6g})"

    __str__ = __repr__
