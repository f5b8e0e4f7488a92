"""What is asked about: a model and one input or a batch, fitted to each other, with labels and a set around each."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipverify.api.inputs import array, channels_first, class_numbers, normalization
from mipverify.api.limits import require_sizes
from mipverify.errors import InputError
from mipverify.network import Network, load
from mipverify.network.replay import replay_of
from mipverify.network.snapshot import snapshot
from mipverify.specification import Case, Specification, robustness
from mipverify.specification.layout import arrange
from mipverify.specification.normalization import Normalization, channel_axis
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified, nearest_inputs, target_list

if TYPE_CHECKING:
    from torch import nn

_TO_FIRST = (2, 0, 1)  # height, width and channels: the channels come first


@dataclass(frozen=True)
class Reading:
    """How a model and its inputs are to be read; the arguments that all public calls share.

    input_shape: of one input of a module, without the batch axis; found by running the module unless given.
    output: which output of a module that returns several. layout: nhwc where inputs, and what is stated for each of
    their entries, hold their channels last; files and networks get them in their own order, modules first. mean, std:
    the network takes (x - mean) / std. transform: a module in front of the model, or torchvision's Normalize; the
    question is about what it is given.
    """

    input_shape: Sequence[int] | None = None
    output: int | str | None = None
    layout: str | None = None
    mean: object = 0
    std: object = 1
    transform: Any = None


@dataclass(frozen=True, eq=False)
class Batch:
    """A network and inputs of it: x (B, *shape), labels (B,). single: one input was given, without a batch axis.

    given, axes: the shape of one input as it was stated, and the permutation of its axes that made x of it, or None.
    """

    network: Network
    x: NDArray[Any]
    labels: NDArray[np.int64]
    single: bool
    mean: object
    std: object
    given: tuple[int, ...] = ()
    axes: tuple[int, ...] | None = None

    def arranged(self, value: NDArray[Any], what: str) -> NDArray[Any]:
        """An array that is stated for the inputs as they were given, with its axes in the order of x.

        One number, or one for each channel, stays as it is. Raises InputError.
        """
        if self.axes is None or (value.ndim <= 1 and value.size != math.prod(self.given)):
            return value
        if value.ndim <= 1:
            value = value.reshape(self.given)
        before = value.ndim - len(self.axes)
        if before not in (0, 1):
            raise InputError(f"{what} of shape {value.shape} does not fit inputs of shape {self.given}")
        return value.transpose(*range(before), *(before + axis for axis in self.axes))


def batch(model: Any, x: Any, y: Any, reading: Reading) -> Batch:
    """A model (module, network or path) and what it is asked about. Labels default to the model's predictions.

    Raises InputError where they do not fit.
    """
    mean, std, transform = reading.mean, reading.std, reading.transform
    if reading.input_shape is not None:
        require_sizes(reading.input_shape)
    if transform is not None and (known := normalization(transform)) is not None:
        if (mean, std) != (0, 1):
            raise InputError("the transform states a mean and std: give either")
        (mean, std), transform = known, None
    images, labels = array(x, "x"), None if y is None else class_numbers(y)
    module, input_shape = module_of(model, reading)
    if module is None:
        if transform is not None or reading.output is not None:
            raise InputError("transform and output are for torch modules: a file states both itself")
        network = load(model) if isinstance(model, (str, Path)) else snapshot(model)
        shape, single = network.input_shape, _is_single(network.input_shape, images, labels)
        stated = images.shape if single else images.shape[1:]
        images, axes = _fitted(network, images, single, reading.layout)
    else:
        from mipverify.api.modules import answering, classifier

        module = answering(module, reading.output, transform)
        stored = images.shape
        images, single = _arranged(module, images, labels, input_shape, reading.layout)
        shape = images.shape if single else images.shape[1:]
        network = classifier(module, shape)
        stated, axes = stored if single else stored[1:], _TO_FIRST if reading.layout == "nhwc" else None
        stated = stated[-len(axes) :] if axes else stated  # one input may have a batch axis
    given = images[None] if single else images
    if not given.ndim or not len(given):
        raise InputError("x holds no input")
    if math.prod(given.shape[1:]) != network.input_size:
        raise InputError(f"x of shape {images.shape}: inputs of {network.input_size} values are needed, as {shape}")
    asked = Batch(network, given, np.zeros(0, np.int64), single, mean, std, stated, axes)
    mean, std = (_statistic(asked, value, what) for value, what in ((mean, "mean"), (std, "std")))
    if labels is None:
        labels = predictions(network, given, mean, std)
    labels = labels.reshape(-1)
    if len(labels) != len(given):
        raise InputError(f"{len(labels)} labels for {len(given)} inputs")
    return replace(asked, labels=labels, mean=mean, std=std)


def _statistic(asked: Batch, value: Any, what: str) -> Any:
    """A mean or std for x, of one for the inputs as they were given."""
    if asked.axes is None or _is_number(value):
        return value
    return asked.arranged(np.asarray(array(value, what) if hasattr(value, "__array__") else value, object), what)


def _fitted(
    network: Network, x: NDArray[Any], single: bool, layout: str | None
) -> tuple[NDArray[Any], tuple[int, ...] | None]:
    """Inputs of a file or network with their axes in its order, and how these were permuted. Raises InputError."""
    stored = x[None] if single else x
    if stored.ndim < 2 or not len(stored) or math.prod(stored.shape[1:]) != network.input_size:
        return x, None  # refused in words of its own
    found = arrange(stored.shape[1:], network.input_shape, layout)
    if found is None:
        raise InputError(f"x of shape {x.shape} holds no inputs of shape {network.input_shape}")
    if found.axes is None:
        return x, None
    moved = found.apply(stored)
    return (moved[0] if single else moved), found.axes


def module_of(model: Any, reading: Reading) -> tuple[nn.Module | None, Sequence[int] | None]:
    """A detached copy of the module that is meant, and its input shape if that is known; None for all other models."""
    torch = sys.modules.get("torch")
    if torch is None or isinstance(model, (str, Path, Network)):
        return None, None
    from mipverify.network.torch_copy import detached_copy

    traced = sys.modules.get("mipverify.models.traced")
    if traced is not None and isinstance(model, traced.Traced):
        return detached_copy(model.module), reading.input_shape or model.input_shape
    if isinstance(model, torch.nn.Module) or isinstance(getattr(model, "_orig_mod", None), torch.nn.Module):
        return detached_copy(model), reading.input_shape
    return None, None


def _is_single(shape: Sequence[int], x: NDArray[Any], labels: NDArray[Any] | None) -> bool:
    """Whether x is one input of a network whose input shape is known."""
    if labels is not None and labels.ndim == 1:
        return False
    return x.size == math.prod(shape)


def _arranged(
    module: nn.Module,
    x: NDArray[Any],
    labels: NDArray[Any] | None,
    input_shape: Sequence[int] | None,
    layout: str | None,
) -> tuple[NDArray[Any], bool]:
    """x as the module takes it, and whether it is one input: found by running the module on it."""
    from mipverify.api.modules import complaint

    # A batch first, as torch would take it: dense layers take more axes than they need.
    alone = [False, True] if labels is None else [labels.ndim == 0]
    if input_shape is not None:
        shape = tuple(int(size) for size in input_shape)
        single = _is_single(shape, x, labels)
        x = channels_first(x, layout, not single)
        if math.prod(x.shape if single else x.shape[1:]) != math.prod(shape):
            raise InputError(f"x of shape {x.shape} holds no inputs of shape {shape}")
        return x.reshape(shape if single else (len(x), *shape)), single
    complaints = []
    for single in alone:
        if not single and (x.ndim == 0 or not len(x)):
            continue
        try:
            given = channels_first(x, layout, not single)
        except InputError as error:
            complaints.append(str(error))
            continue
        found = complaint(module, given if single else given[0])
        if found is None:
            return given, single
        complaints.append(found)
        if single and labels is not None and len(given) == 1 and complaint(module, given[0]) is None:
            return given[0], True  # one input with its batch axis, and one label without
    if not x.size:
        raise InputError(f"x of shape {x.shape} holds no input")
    if labels is not None and single and complaint(module, channels_first(x, layout, False)[0]) is None:
        raise InputError(f"one label for {len(x)} inputs")
    if len(complaints) > 1 and complaints[0] != complaints[1]:
        reasons = f"as a batch, {complaints[0]}; as one input, {complaints[1]}"
    else:
        reasons = complaints[0] if complaints else ""
    raise InputError(f"x of shape {x.shape} is nothing that the module takes: {reasons}")


def predictions(network: Network, x: NDArray[Any], mean: object, std: object) -> NDArray[np.int64]:
    """The classes (B,) that the network's original gives inputs x (B, *shape), one by one."""
    points = nearest_inputs(x, Normalization.of(mean, std, x.shape[1:]))
    outputs = replay_of(network).run(points)
    if not np.isfinite(outputs).all():
        raise InputError("the model's output at x is NaN or infinite")
    if network.output_size > 1 and outputs.shape[1] == 1:  # the file ends in an ArgMax
        return outputs[:, 0].astype(np.int64)
    return outputs.argmax(axis=1).astype(np.int64)


def sets(
    asked: Batch,
    eps: Any,
    *,
    norm: str,
    domain: Any,
    targets: Iterable[int] | None,
    mask: Any,
) -> list[Specification]:
    """For each input of a batch the question whether an input within `eps` of it may reach another class."""
    eps, per_entry = plain(eps), not _is_number(eps)
    targets = None if targets is None else target_list(targets)  # for each input of the batch
    if not (per_entry or mask is not None or _per_entry_domain(domain)):
        return [
            robustness(
                x,
                int(label),
                eps,
                num_classes=asked.network.output_size,
                norm=norm,
                domain=domain,
                targets=targets,
                mean=asked.mean,
                std=asked.std,
            )
            for x, label in zip(asked.x, asked.labels, strict=True)
        ]
    radii = array(eps, "eps").astype(np.float64) if per_entry else np.ones(())
    scales = broadcast(radii, asked, "eps")
    if mask is not None:
        zeros_and_ones = array(mask, "mask")
        if not np.isin(zeros_and_ones, (0, 1)).all():
            raise InputError("mask must hold zeros and ones")
        scales = scales * broadcast(zeros_and_ones, asked, "mask")
    limits = spread_domain(domain, asked)
    found = []
    for x, label, scale in zip(asked.x, asked.labels, scales, strict=True):
        around = Perturbation.around(x, norm=norm, scale=scale, domain=limits, mean=asked.mean, std=asked.std)
        inputs = around.within(1 if per_entry else eps)
        conditions = misclassified(int(label), asked.network.output_size, inputs.size, targets=targets)
        found.append(Specification((Case(inputs, conditions),), "robustness"))
    return found


def broadcast(value: NDArray[Any], asked: Batch, what: str) -> NDArray[np.float64]:
    """A number for each entry of x (B, *shape): from one for each channel, or an array that broadcasts to the inputs.

    Raises InputError where it does not fit.
    """
    x = asked.x
    try:
        return np.broadcast_to(_along_channels(asked.arranged(value, what), x.shape[1:]), x.shape).astype(np.float64)
    except ValueError:
        raise InputError(f"{what} of shape {value.shape} does not fit inputs of shape {asked.given}") from None


def spread_domain(domain: Any, asked: Batch) -> Any:
    """Limits for all entries, or for each of them where a side has one number for each channel or entry."""
    if domain is None or not _per_entry_domain(domain):
        return domain
    return tuple(side if _is_number(side) else _spread_side(side, asked) for side in domain)


def _spread_side(side: Any, asked: Batch) -> list[object]:
    entries = np.asarray(array(side, "domain") if hasattr(side, "__array__") else side, object)
    shape = asked.x.shape[1:]
    try:
        limits = _along_channels(asked.arranged(entries, "domain"), shape)
        return list(np.broadcast_to(limits, shape).reshape(-1))
    except ValueError:
        raise InputError(f"domain limits of shape {entries.shape} do not fit inputs of shape {asked.given}") from None


def _along_channels(value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """One number for each entry of a shape, or for each channel of it, ready to be broadcast; all else as it is."""
    sizes, wanted = ([size for size in some if size != 1] for some in (value.shape, shape))
    if value.size == math.prod(shape) and (sizes == wanted or min(len(sizes), len(wanted)) <= 1):
        return value.reshape(shape)  # in another order of axes it would be about other entries
    if value.ndim != 1 or len(value) == 1 or len(shape) < 2:
        return value
    axis = channel_axis(len(value), shape)
    if axis is None:
        raise ValueError("it is open to which axis they belong")
    return value.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def _per_entry_domain(domain: Any) -> bool:
    if domain is None:
        return False
    if _is_number(domain) or len(domain) != 2:
        raise InputError("domain: the smallest and the largest legal value are needed, or None")
    return not all(_is_number(side) for side in domain)


def plain(value: Any) -> Any:
    """A number out of its array or tensor."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    return isinstance(value, str) or getattr(value, "ndim", 0 if not isinstance(value, (list, tuple)) else 1) == 0
