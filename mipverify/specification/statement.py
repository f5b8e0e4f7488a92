"""What a robustness question asks, as it was asked: the arguments that its input set and conditions follow from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mipverify.specification.normalization import Normalization


@dataclass(frozen=True, eq=False)
class RobustnessStatement:
    """Can the image be mistaken for a target within eps of it? All numbers are exact.

    image: the pixels, float64 (n,), each the number that it is. targets: classes, in order. domain: of pixels.
    """

    image: NDArray[np.float64]
    label: int
    targets: tuple[int, ...]
    eps: Fraction
    norm: str
    domain: tuple[Fraction, Fraction] | None
    normalization: Normalization | None
