"""What a pipeline does to an input before the network sees it: z = (x - mean) / std, known exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import exact_number, shorten


@dataclass(frozen=True, eq=False)
class Normalization:
    """The network takes z_i = (x_i - mean_i) / std_i, coordinate by coordinate, in exact numbers.

    pairs: the distinct (mean, std). which: for each flat coordinate (n,) the pair that belongs to it.
    """

    pairs: tuple[tuple[Fraction, Fraction], ...]
    which: NDArray[np.intp]

    @classmethod
    def of(cls, mean: object, std: object, shape: tuple[int, ...]) -> Normalization | None:
        """For inputs of `shape`; None where nothing is done (mean 0, std 1).

        mean, std: a number, one number for each channel, or an array that broadcasts to `shape`. Numbers are read as
        exactly as `eps`: "0.1307" and the float 0.1307 mean that decimal, "1/3" a third.

        Raises:
            InputError: no number, a std that is not positive, or sizes that leave open which entry is meant.
        """
        means, stds = (_spread(value, what, shape) for value, what in ((mean, "mean"), (std, "std")))
        pairs: dict[tuple[Fraction, Fraction], int] = {}
        which = np.array([pairs.setdefault(pair, len(pairs)) for pair in zip(means, stds, strict=True)], np.intp)
        for _, scale in pairs:
            if scale <= 0:
                raise InputError(f"std must be positive, not {scale}")
        return None if list(pairs) == [(Fraction(0), Fraction(1))] else cls(tuple(pairs), which)

    @property
    def size(self) -> int:
        """Number of coordinates n."""
        return len(self.which)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """The means as floats (n,); for showing."""
        return np.array([float(mean) for mean, _ in self.pairs])[self.which]

    @cached_property
    def std(self) -> NDArray[np.float64]:
        """The standard deviations as floats (n,); for showing."""
        return np.array([float(std) for _, std in self.pairs])[self.which]

    def undone(self, z: NDArray[np.floating]) -> NDArray[np.float64]:
        """The inputs x (..., n) of network inputs z, up to rounding; for showing."""
        return np.asarray(z, np.float64) * self.std + self.mean


def numbers(value: object, what: str) -> list[Fraction]:
    """A number, or a sequence or array of them, exactly and flat. Raises InputError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [exact_number(value, what)]
    known: dict[object, Fraction] = {}
    found = []
    for entry in np.asarray(value, object).reshape(-1).tolist():
        if entry not in known:
            known[entry] = exact_number(entry, what)
        found.append(known[entry])
    if not found:
        raise InputError(f"{what} holds no number")
    return found


def channel_axis(count: int, shape: tuple[int, ...]) -> int | None:
    """The axis of `shape` that holds `count` channels: the first or the last of three, or None if that is open.

    Axes of length 1 do not count.
    """
    real = [axis for axis, size in enumerate(shape) if size != 1]
    if len(real) == 1:
        return real[0] if shape[real[0]] == count else None
    fitting = [axis for axis in {real[0], real[-1]} if shape[axis] == count] if len(real) == 3 else []
    return fitting[0] if len(fitting) == 1 else None


def _spread(value: object, what: str, shape: tuple[int, ...]) -> list[Fraction]:
    """One exact number for each flat entry of `shape`."""
    found = numbers(value, what)
    size = int(np.prod(shape, dtype=object))
    if len(found) == 1:
        return found * size
    if len(found) == size:
        return found
    entries = np.empty(len(found), object)
    entries[:] = found
    given = np.shape(value) if isinstance(value, np.ndarray) else (len(found),)
    if len(given) > 1:
        try:
            return list(np.broadcast_to(entries.reshape(given), shape).reshape(-1))
        except ValueError:
            raise InputError(f"{what} of shape {given} does not fit inputs of shape {shape}") from None
    axis = channel_axis(len(found), shape)
    if axis is None:
        raise InputError(
            f"{what} holds {len(found)} numbers ({shorten(', '.join(map(str, found)))}), and it is open to which axis "
            f"of inputs of shape {shape} they belong"
        )
    along = [1] * len(shape)
    along[axis] = len(found)
    return list(np.broadcast_to(entries.reshape(along), shape).reshape(-1))
