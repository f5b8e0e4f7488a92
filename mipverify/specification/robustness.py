"""Local robustness of a classifier: no input near an image may reach another class."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mipverify.errors import InputError
from mipverify.specification.conditions import Condition, Row
from mipverify.specification.exact import domain_limits, exact_number, shorten
from mipverify.specification.normalization import Normalization
from mipverify.specification.norms import BallNorm, norm_named
from mipverify.specification.sets import Ball, BallInBox, Box, InputSet
from mipverify.specification.specification import Case, Specification
from mipverify.specification.statement import RobustnessStatement


class OutsideError(InputError):
    """An image lies outside of the domain."""


def robustness(
    image: ArrayLike,
    label: int,
    eps: object,
    *,
    num_classes: int,
    norm: str = "linf",
    domain: tuple[object, object] | None = (0, 1),
    targets: Iterable[int] | None = None,
    mean: object = 0,
    std: object = 1,
) -> Specification:
    """Violated by an input within `eps` of `image`, inside `domain`, at which a target's score reaches the label's.

    A tie violates. One condition `y_label - y_target <= 0` for each target, in the order given; by default all
    classes but the label.

    Args:
        image: floats of any shape, every pixel taken as exactly the number it is.
        eps: radius, read exactly: "0.1", Decimal("0.1") and the float 0.1 mean one tenth.
        norm: "linf", "l1" or "l2".
        domain: smallest and largest legal pixel, read as exactly as `eps`; None: no limits.
        mean, std: the network takes (pixel - mean) / std, while image, eps and domain are those of pixels. A number,
            one for each channel, or an array that broadcasts to the image; read as exactly as `eps`. The set of the
            question, and its witness, are then inputs of the network.

    Raises:
        InputError: an argument is out of range; an image pixel lies outside of the domain.
    """
    measure = norm_named(norm)
    normalization = Normalization.of(mean, std, np.shape(image))
    box = linf_ball(image, eps, domain=domain, normalization=normalization)
    inputs: InputSet = box
    if isinstance(measure, BallNorm):
        inputs = BallInBox(Ball.around(image, eps, measure, normalization), box)
    conditions = misclassified(label, num_classes, box.size, targets=targets)
    chosen = _targets(_class_of(label, "label", num_classes), num_classes, targets)
    radius, limits = exact_number(eps, "eps"), domain_limits(domain)
    asked = RobustnessStatement(_pixels(image), int(label), tuple(chosen), radius, norm, limits, normalization)
    return Specification((Case(inputs, conditions),), "robustness", statement=asked)


def misclassified(
    label: int, num_classes: int, num_inputs: int, *, targets: Iterable[int] | None = None, margin: object = 0
) -> tuple[Condition, ...]:
    """One condition `y_label - y_target <= -margin` for each target: by default, a tie is a violation already."""
    if not isinstance(num_classes, Integral):
        raise InputError(f"num_classes must be a whole number, not {num_classes!r}")
    if num_classes < 2:
        raise InputError(
            f"robustness compares scores of at least 2 classes, and the network gives {num_classes}: state what must"
            " not happen as a VNN-LIB property (a torch module with one logit is taken for a classifier of two classes)"
        )
    label, least = _class_of(label, "label", num_classes), exact_number(margin, "margin")
    by = f" by {margin}" if least else ""
    return tuple(
        Condition.from_rows(
            [Row({label: Fraction(1), target: Fraction(-1)}, {}, -least)],
            num_inputs,
            num_classes,
            f"class {target} reaches class {label}{by}",
        )
        for target in _targets(label, num_classes, targets)
    )


def linf_ball(
    image: ArrayLike,
    eps: object,
    *,
    domain: tuple[object, object] | None = (0, 1),
    normalization: Normalization | None = None,
) -> Box:
    """The box of all inputs within `eps` of `image` in every coordinate and inside `domain`, read exactly.

    With a normalization, the box of the network inputs z = (x - mean) / std that these x become. An array of many
    images gives the box of their concatenation: one exact computation for all of them.

    Raises:
        InputError: `eps` is negative or no number; an image pixel is no finite float or lies outside of the domain.
    """
    radius = exact_number(eps, "eps")
    if radius < 0:
        raise InputError(f"eps must not be negative: {shorten(str(eps))}")
    few, where = _ball(_pixels(image), radius, domain_limits(domain), normalization)
    return few.spread(where)


def nearest_inputs(images: ArrayLike, normalization: Normalization | None) -> np.ndarray:
    """The float32 network inputs nearest to images (B, ...) themselves: (B, n)."""
    few, where = _ball(_pixels(images), Fraction(0), None, normalization)
    return few.float32_lower[where].reshape(len(np.asarray(images)), -1)


def _pixels(image: ArrayLike) -> np.ndarray:
    array = np.asarray(image)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"image must hold floats (uint8 pixels divided by 255), not {array.dtype}")
    if array.size == 0:
        raise InputError("image is empty")
    flat = array.reshape(-1).astype(np.float64)
    for i in np.flatnonzero(~np.isfinite(flat)).tolist():
        raise InputError(f"image pixel {i} is {flat[i]}")
    return flat


def _ball(
    pixels: np.ndarray,
    radius: Fraction,
    limits: tuple[Fraction, Fraction] | None,
    normalization: Normalization | None,
) -> tuple[Box, np.ndarray]:
    """The box of few coordinates, and for each of all (n,) which of them it is.

    Images repeat few values (grey levels): exact arithmetic is done once for each, and for each mean and std.
    """
    values, where = np.unique(pixels, return_inverse=True)
    exact = [Fraction(value) for value in values.tolist()]
    lower, upper = [value - radius for value in exact], [value + radius for value in exact]
    if limits is not None:
        low, high = limits
        for i, value in enumerate(exact):
            if not low <= value <= high:
                pixel = int(np.flatnonzero(where == i)[0])
                span = f"[{float(low)}, {float(high)}]"
                raise OutsideError(f"image pixel {pixel} is {values[i]}, outside of the domain {span}")
        lower, upper = [max(low, bound) for bound in lower], [min(high, bound) for bound in upper]
    if normalization is not None:
        copies = len(pixels) // normalization.size
        if copies * normalization.size != len(pixels):
            raise InputError(f"mean and std are those of {normalization.size} inputs, the image has {len(pixels)}")
        number = len(normalization.pairs)
        kinds, where = np.unique(where * number + np.tile(normalization.which, copies), return_inverse=True)
        pairs = [(kind // number, *normalization.pairs[kind % number]) for kind in kinds.tolist()]
        lower, upper = ([(side[i] - mean) / std for i, mean, std in pairs] for side in (lower, upper))
    return Box.from_exact(lower, upper, name="the pixel value number {}".format), where


def _targets(label: int, num_classes: int, targets: Iterable[int] | None) -> list[int]:
    if targets is None:
        return [target for target in range(num_classes) if target != label]
    chosen = [_class_of(target, "target", num_classes) for target in target_list(targets)]
    if label in chosen:
        raise InputError(f"target {label} is the label itself")
    if not chosen:
        raise InputError("no target class is given")
    if len(set(chosen)) < len(chosen):
        raise InputError(f"a target is given twice: {', '.join(map(str, chosen))}")
    return chosen


def target_list(targets: object) -> list[Any]:
    """The target classes that were asked for, as a list. Raises InputError."""
    if isinstance(targets, Iterable) and not isinstance(targets, str):
        with suppress(TypeError):  # of an array or a tensor without axes
            return list(targets)
    raise InputError(f"targets must be a list of classes such as [3, 5], not {shorten(repr(targets))}")


def _class_of(value: object, what: str, num_classes: int) -> int:
    """The number of a class, as such or as an array or tensor of one whole number."""
    if "bool" not in str(getattr(value, "dtype", type(value))):
        with suppress(TypeError):
            number = operator.index(value)  # type: ignore[arg-type]  # what is none raises
            if 0 <= number < num_classes:
                return number
    raise InputError(f"{what} {value!r} is no class: classes are 0 to {num_classes - 1}")
