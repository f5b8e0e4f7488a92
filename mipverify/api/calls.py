"""`mipverify.verify` and the other questions, about modules, networks and files, tensors, arrays and loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

from mipverify.api.inputs import array, class_numbers, collected, first, is_loader
from mipverify.api.limits import require_limits, require_number, require_stages
from mipverify.api.progress import Progress, follower, function, run_display
from mipverify.api.questions import Batch, Reading, batch, broadcast, module_of, plain, sets, spread_domain
from mipverify.engine import distortion as distances
from mipverify.engine import worst as worsts
from mipverify.engine.verify import require_solver
from mipverify.engine.verify import verify as verify_network
from mipverify.errors import InputError
from mipverify.specification import Specification
from mipverify.specification.robustness import target_list

if TYPE_CHECKING:
    from pathlib import Path

    from mipverify.engine.distortion import Known
    from mipverify.engine.stage import Stage
    from mipverify.engine.verdict import Verdict
    from mipverify.engine.worst import WorstMargin
    from mipverify.report.tally import Status


@overload
def verify(
    model: Any,
    specification: Specification | str | PathLike[str],
    *,
    timeout: float = ...,
    solver: str = ...,
    seed: int = ...,
    workers: int = ...,
    memory: int | None = ...,
    progress: Progress | None = ...,
    stages: Sequence[Stage] | None = ...,
    proof: bool = ...,
    arithmetic: str = ...,
    input_shape: Sequence[int] | None = ...,
    output: int | str | None = ...,
) -> Verdict: ...


@overload
def verify(
    model: Any,
    specification: Any,
    y: Any = ...,
    *,
    eps: Any,
    norm: str = ...,
    targets: Iterable[int] | None = ...,
    domain: Any = ...,
    mask: Any = ...,
    mean: object = ...,
    std: object = ...,
    transform: Any = ...,
    layout: str | None = ...,
    input_shape: Sequence[int] | None = ...,
    output: int | str | None = ...,
    timeout: float = ...,
    solver: str = ...,
    seed: int = ...,
    workers: int = ...,
    memory: int | None = ...,
    progress: Progress | None = ...,
    stages: Sequence[Stage] | None = ...,
    proof: bool = ...,
    arithmetic: str = ...,
) -> Any: ...


def verify(
    model: Any,
    specification: Any,
    y: Any = None,
    *,
    eps: Any = None,
    norm: str = "linf",
    targets: Iterable[int] | None = None,
    domain: Any = (0, 1),
    mask: Any = None,
    mean: object = 0,
    std: object = 1,
    transform: Any = None,
    layout: str | None = None,
    input_shape: Sequence[int] | None = None,
    output: int | str | None = None,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    memory: int | None = None,
    progress: Progress | None = None,
    stages: Sequence[Stage] | None = None,
    proof: bool = False,
    arithmetic: str = "real",
) -> Any:
    """Prove that no input of a set is classified otherwise, or find one that is: `verify(model, x, y, eps=0.1)`.

    Or, for any property: `verify(model, specification)`, with a `Specification` of `load_vnnlib` or `robustness`, or
    the path of a VNN-LIB file.

    model: a torch module (compiled and wrapped ones are read inside; questions go to a detached copy in evaluation
    mode on the CPU), a `Network`, or the path of an ONNX file. x: one input, or a batch of them, as the module takes
    them; a tensor, an array or lists of floats. y: the label, or one for each input; what the model predicts unless
    given. A batch gives a tuple of verdicts. A module with one logit, or its sigmoid, is a classifier of the classes 0
    and 1.

    eps: the radius, a number read exactly ("8/255"), one for each channel, or an array that broadcasts to the inputs,
    taken as exactly the numbers it holds. mask: of zeros and ones that broadcasts to the inputs; where it is 0, nothing
    may change. domain: smallest and largest legal value, each a number or one for each channel or entry; None for no
    limits. norm, targets: as in `robustness`. mean, std, transform, layout, input_shape, output: see `Reading`.

    timeout: seconds for each question. solver: what finishes if bounds do not: auto, bab, highs, cbc or scip. workers:
    processes that share the work of one question. memory: cap in bytes. progress: called with a stage's name and text;
    True prints them on stderr.
    proof: whether what holds must come with `Verdict.proof`, for a network of an ONNX file. arithmetic: what `holds` is
    about: `real`, the real-valued function, or `float32`, every float32 evaluation of an ONNX file's network in any
    order of summation.
    Raises InputError where arguments do not fit each other.
    """
    timeout, seed, workers, memory = require_limits(timeout, seed, workers, memory)
    run: dict[str, Any] = {"timeout": timeout, "solver": solver, "seed": seed, "workers": workers, "memory": memory}
    run |= {"progress": follower(progress), "proof": proof, "arithmetic": arithmetic} | (
        {} if stages is None else {"stages": require_stages(stages)}
    )
    if isinstance(specification, str | PathLike):
        from mipverify.specification import load_vnnlib

        specification = load_vnnlib(specification)
    if isinstance(specification, Specification):
        if y is not None or eps is not None:
            raise InputError("a specification states its set: it takes no label and no eps")
        return verify_network(_network(model, specification, input_shape, output), specification, **run)
    if eps is None:
        raise InputError("eps is needed: verify(model, x, y, eps=0.1), or verify(model, specification)")
    asked = batch(model, specification, y, Reading(input_shape, output, layout, mean, std, transform))
    questions = sets(asked, eps, norm=norm, domain=domain, targets=targets, mask=mask)
    found = tuple(verify_network(asked.network, question, **run) for question in questions)
    return found[0] if asked.single else found


def _network(
    model: Any, specification: Specification, input_shape: Sequence[int] | None, output: int | str | None
) -> Any:
    """The network of a model that a specification is about, whose inputs have that shape."""
    module, known = module_of(model, Reading(input_shape, output))
    if module is None:
        from mipverify.network import load

        return load(model) if isinstance(model, str) or hasattr(model, "__fspath__") else model
    from mipverify.api.modules import answering
    from mipverify.network import from_torch
    from mipverify.network.torch_copy import untouched

    shape = known or (specification.declared[0].shape[1:] if specification.declared else (specification.num_inputs,))
    try:
        with untouched():
            return from_torch(answering(module, output, None), tuple(shape))
    except InputError as error:
        hint = "" if known else f" (read for inputs of shape {tuple(shape)}: input_shape= states another)"
        raise InputError(f"{error}{hint}") from None


def minimum_distortion(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    norm: str = "linf",
    targets: Iterable[int] | None = None,
    domain: Any = (0, 1),
    scale: Any = None,
    constraints: Sequence[tuple[Any, object]] = (),
    mean: object = 0,
    std: object = 1,
    transform: Any = None,
    layout: str | None = None,
    input_shape: Sequence[int] | None = None,
    output: int | str | None = None,
    margin: object = 0,
    gap: float | None = None,
    timeout: float = 300.0,
    max_distance: float | None = None,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
    known: Known | None = None,
    arithmetic: str = "real",
    proof: bool = False,
    threat: str | None = None,
) -> Any:
    """The distance from an input to the closest one that is not classified as its label, by bounds that meet.

    A `Distortion` for one input, a tuple of them for a batch. model, x, y and how they are read: as in `verify`. A tie
    counts as adversarial. targets: only these classes count. margin: a target's score must exceed the label's by this
    much. scale: radius of each feature in units of the distance, 0 fixes it. constraints: (coefficients, limit) with
    coefficients . x <= limit. Distances, domain and scale are those of x, the witness is an input of the network. gap:
    relative gap at which the search ends. max_distance: look no further. known: what an earlier search for the same
    distance came to; this one goes on from there. arithmetic: what the lower bound is about, as in `verify`.
    proof: whether the lower bound must come with `Distortion.proof`, for a network of an ONNX file; neither a solver's
    word nor the lower bound of `known` counts then.
    threat: another one than a ball, as `--threat` has it ("rotation:30"): the radius of a patch or of masked pixels is
    looked for, else the smallest share of the threat; gap is then 1e-2 by default, and images of a mixture are those of
    the batch.

    Raises InputError: arguments out of range, or an input that does not fit the network, the domain or the constraints.
    """
    timeout, seed, workers, _ = require_limits(timeout, seed, workers)
    require_solver(solver)
    gap = None if gap is None else require_number(gap, "gap")
    if max_distance is not None:
        max_distance = require_number(max_distance, "max_distance")
    if known is not None and not isinstance(known, distances.Known):
        raise InputError(f"known must be a distortion.Known, not {type(known).__name__}")
    if threat is not None and not isinstance(threat, str):
        raise InputError(f"threat must be words such as 'rotation:30', not {threat!r}")
    asked = batch(model, x, y, Reading(input_shape, output, layout, mean, std, transform))
    if threat is not None:
        from mipverify.api.threats import distances_of_threat

        if scale is not None or constraints or known is not None or plain(margin) != 0:
            raise InputError("a threat takes no scale, constraints, margin or known distance")
        return distances_of_threat(
            asked, threat, domain, norm=norm, targets=targets, max_distance=max_distance, timeout=timeout,
            solver=solver, seed=seed, workers=workers, progress=follower(progress), arithmetic=arithmetic, proof=proof,
            **({} if gap is None else {"gap": gap}),
        )  # fmt: skip
    gap = distances.GAP if gap is None else gap
    return _each(
        asked, distances.minimum_distortion, domain, scale, norm=norm, targets=targets, constraints=constraints,
        margin=margin, gap=gap, timeout=timeout, max_distance=max_distance, solver=solver, seed=seed, workers=workers,
        progress=follower(progress), known=known, arithmetic=arithmetic, proof=proof,
    )  # fmt: skip


def worst_margin(
    model: Any,
    x: Any,
    y: Any = None,
    eps: Any = None,
    *,
    norm: str = "linf",
    targets: Iterable[int] | None = None,
    domain: Any = (0, 1),
    scale: Any = None,
    constraints: Sequence[tuple[Any, object]] = (),
    mean: object = 0,
    std: object = 1,
    transform: Any = None,
    layout: str | None = None,
    input_shape: Sequence[int] | None = None,
    output: int | str | None = None,
    gap: float = worsts.GAP,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Any:
    """The smallest margin y[label] - max over targets of y[target] within `eps` of an input, by bounds that meet.

    A `WorstMargin` for one input, a tuple of them for a batch. gap: the bounds may differ by this much, or by this
    share of a margin above one. Other arguments as in `minimum_distortion`.

    Raises InputError: arguments out of range, or a network that gives classes, not scores.
    """
    if eps is None:
        raise InputError("eps is needed")
    timeout, seed, workers, _ = require_limits(timeout, seed, workers)
    require_solver(solver)
    gap = require_number(gap, "gap")
    asked = batch(model, x, y, Reading(input_shape, output, layout, mean, std, transform))

    def ask(network: Any, image: Any, label: int, **options: Any) -> WorstMargin:
        return worsts.worst_margin(network, image, label, plain(eps), **options)

    return _each(
        asked, ask, domain, scale, norm=norm, targets=targets, constraints=constraints, gap=gap, timeout=timeout,
        solver=solver, seed=seed, workers=workers, progress=follower(progress),
    )  # fmt: skip


def _each(asked: Batch, ask: Callable[..., Any], domain: Any, scale: Any, **options: Any) -> Any:
    """The answers to a question about each input of a batch; one alone for one input."""
    if options["targets"] is not None:
        options["targets"] = target_list(options["targets"])
    what = "constraints"
    try:
        options[what] = [(asked.arranged(array(row, what), what), limit) for row, limit in options[what]]
    except (TypeError, ValueError):
        raise InputError("constraints: pairs of coefficients and a limit are needed") from None
    scales = [None] * len(asked.x) if scale is None else broadcast(array(scale, "scale"), asked, "scale")
    limits = spread_domain(domain, asked)
    found = tuple(
        ask(asked.network, x, int(y), domain=limits, scale=s, mean=asked.mean, std=asked.std, **options)
        for x, y, s in zip(asked.x, asked.labels, scales, strict=True)
    )
    return found[0] if asked.single else found


def adversarial_accuracy(
    model: Any,
    images: Any,
    labels: Any = None,
    eps: Any = None,
    *,
    samples: int | None = None,
    norm: str = "linf",
    domain: tuple[object, object] | None = (0, 1),
    mean: object = 0,
    std: object = 1,
    transform: Any = None,
    layout: str | None = None,
    input_shape: Sequence[int] | None = None,
    output: int | str | None = None,
    out: str | Path | None = None,
    timeout: float = 120.0,
    workers: int | None = None,
    solver: str = "auto",
    seed: int = 0,
    cluster: str | None = None,
    retry_unknown: bool = False,
    class_names: Sequence[str] = (),
    progress: Callable[[Status], None] | bool | None = None,
    arithmetic: str = "real",
) -> Any:
    """Decide for every sample whether any input within `eps` is classified otherwise than by its label.

    Gives an `AccuracyResult`; for several radii an `AccuracyCurve`, of one run in which what is known at one radius
    counts at the others.

    model     a torch module, a Network or the path of an ONNX file; how it is read: as in `verify`
    images    (N, ...) with values in the domain, as many values each as the network takes; or a DataLoader or data set
              of pairs of inputs and labels
    labels    (N,) integers, for arrays; what the model predicts unless given
    eps       radius; a string is read exactly, a float as the shortest decimal that means it. Or a list of them
    samples   only the first so many of them
    domain    smallest and largest legal value, read as exactly as `eps`; None for no limits
    mean, std the network takes (x - mean) / std: a number, or one for each channel
    out       directory that keeps the results, so that the same call goes on where it stopped; also receives the
              tables and the page. Nothing is kept without it
    workers   local processes, by default one for each core; 0 runs in this process
    timeout   seconds for each sample
    cluster   address of a Dask scheduler, or `local`
    class_names  one for each class, for the page, tables and plots of the result
    progress  called with the `Status` of the run; True shows it on stderr, or as a bar in a notebook
    arithmetic  what `holds` is about, as in `verify`

    Raises InputError if the arguments do not fit each other or `out` holds a run with another question.
    """
    from mipverify.report import run as reports

    if eps is None:
        raise InputError("eps is needed")
    timeout, seed, workers, _ = require_limits(timeout, seed, workers, least_workers=0)
    require_solver(solver)
    most = first(samples)
    if is_loader(images):
        if labels is not None:
            raise InputError(
                "a loader gives its labels itself; state eps by name: adversarial_accuracy(m, loader, eps=0.1)"
            )
        images, labels = collected(images, most)
    images, labels = array(images, "images"), None if labels is None else class_numbers(labels)
    if not images.ndim or not len(images):
        raise InputError(f"images of shape {images.shape}: at least one is needed, along a first axis")
    images, labels = images[:most], labels[:most] if labels is not None and labels.ndim else labels
    if labels is not None and labels.shape != images.shape[:1]:
        raise InputError(f"labels: {len(images)} integers are needed, not {labels.dtype} of shape {labels.shape}")
    asked = batch(model, images, labels, Reading(input_shape, output, layout, mean, std, transform))
    with ExitStack() as stack:
        told = stack.enter_context(run_display()) if progress is True else function(progress)
        return reports.adversarial_accuracy(
            asked.network, asked.x, asked.labels, _radii(eps), norm=norm, domain=domain, mean=asked.mean, std=asked.std,
            out=out, timeout=timeout, workers=workers, solver=solver, seed=seed, cluster=cluster,
            retry_unknown=retry_unknown, class_names=class_names, progress=told, arithmetic=arithmetic,
        )  # fmt: skip


def _radii(eps: Any) -> Any:
    """One radius, or a list of several out of any container of them."""
    if isinstance(eps, str) or not hasattr(eps, "__iter__") or getattr(eps, "ndim", None) == 0:
        return plain(eps)
    radii = [plain(radius) for radius in eps]
    if not radii:
        raise InputError("eps: at least one radius is needed")
    return radii
