"""`mipverify.compare`: two models, files or networks, asked how far they are apart around inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mipverify.api.inputs import array
from mipverify.api.limits import require_limits, require_number
from mipverify.api.progress import Progress, follower
from mipverify.api.questions import Reading, batch, broadcast, plain, spread_domain
from mipverify.engine import difference
from mipverify.engine.verify import require_solver
from mipverify.errors import InputError
from mipverify.specification.perturbation import Perturbation


def compare(
    first: Any,
    second: Any,
    x: Any,
    *,
    eps: Any,
    within: object = None,
    same_class: bool = False,
    norm: str = "linf",
    domain: Any = (0, 1),
    scale: Any = None,
    mean: object = 0,
    std: object = 1,
    transform: Any = None,
    layout: str | None = None,
    input_shape: Sequence[int] | None = None,
    output: int | str | None = None,
    gap: float = difference.GAP,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Any:
    """How far two networks are apart within `eps` of an input: `compare(net, pruned, x, eps=0.1)`.

    Without more, the largest difference of an output: a `WorstDifference`, whose bounds meet within the relative `gap`.
    within: whether no output differs by more than this. same_class: whether both name the same class everywhere, where
    a tie violates. These two give a `Verdict`; its witness has the outputs of the first network and those of the second
    behind them.

    first, second, x: models and one input or a batch of them, as in `verify`; a batch gives a tuple. Both take the same
    inputs. What reads a module (transform, layout, input_shape, output, mean, std) reads both. scale: radius of each
    feature in units of eps, 0 fixes it. Other arguments as in `verify`.

    Raises InputError where networks, inputs and arguments do not fit each other.
    """
    if within is not None and same_class:
        raise InputError("within and same_class are two questions: ask one")
    timeout, seed, workers, _ = require_limits(timeout, seed, workers)
    require_solver(solver)
    gap = require_number(gap, "gap")
    reading = Reading(input_shape, output, layout, mean, std, transform)
    asked, other = batch(first, x, None, reading), batch(second, x, None, reading)
    scales = [None] * len(asked.x) if scale is None else broadcast(array(scale, "scale"), asked, "scale")
    limits, radius = spread_domain(domain, asked), plain(eps)
    how: dict[str, Any] = {"timeout": timeout, "solver": solver, "seed": seed, "workers": workers}
    how["progress"] = follower(progress)
    found = []
    for image, own in zip(asked.x, scales, strict=True):
        around = Perturbation.around(image, norm=norm, scale=own, domain=limits, mean=asked.mean, std=asked.std)
        found.append(difference.compare(asked.network, other.network, around, radius, within, same_class, gap, **how))
    return found[0] if asked.single else tuple(found)
