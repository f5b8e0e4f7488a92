"""The exact distance to the closest adversarial input: proofs from below, sharpened witnesses from above."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mipverify.engine.budget import Clock
from mipverify.engine.distance_proof import robustness_asked, write_distance
from mipverify.engine.radius_search import RadiusSearch
from mipverify.engine.recorded import require_provable
from mipverify.engine.scores import require_order
from mipverify.engine.shown import html_table, number, seconds, vector
from mipverify.engine.verdict import Witness
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.deployed import in_arithmetic
from mipverify.network.snapshot import snapshot
from mipverify.specification import Condition
from mipverify.specification.normalization import Normalization
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified
from mipverify.specification.statement import RobustnessStatement

if TYPE_CHECKING:
    from mipverify.proof_file import Proof

GAP = 1e-4  # relative, between the proven bounds of an optimal distance


@dataclass(frozen=True)
class Known:
    """What is known of a distance before a search: a proven lower bound, and an input that violates or None.

    The input is replayed before it counts; the bound is taken for proven.
    """

    lower: float
    witness: ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class Distortion:
    """How far the closest adversarial input is: lower <= distance <= upper.

    status: "optimal", the bounds meet within the gap; "bounded", they do not yet; "none", there is no adversarial input
    in the domain, or none within the largest distance asked about: `lower` is that distance and `upper` is None.
    witness: a replayed input at distance `upper`. trusted, arithmetic (of `lower`): as in `Verdict`. proof: of `lower`,
    where one was asked for and `lower` is above zero.
    """

    status: Literal["optimal", "bounded", "none"]
    lower: float
    upper: float | None
    witness: Witness | None
    norm: str
    seconds: float
    trusted: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    arithmetic: Literal["real", "float32"] = "real"
    proof: Proof | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        upper = "" if self.upper is None else f" to {number(self.upper)}"
        why = f", {self.reason}" if self.reason else ""
        return f"Distortion({self.status}, {self.norm} {number(self.lower)}{upper}, {seconds(self.seconds)}{why})"

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"distance at least": number(self.lower), "distance at most": number(self.upper)}
        if self.witness is not None:
            rows |= {"closest input": vector(self.witness.input), "output there": vector(self.witness.output)}
        rows |= {"seconds": f"{self.seconds:.3g}", "why not": self.reason, "trusted": ", ".join(self.trusted)}
        return html_table(f"{self.status}, {self.norm}", rows)

    def to_json(self) -> dict[str, Any]:
        """The object that `mipverify distortion --json` prints."""
        witness = None
        if self.witness is not None:
            witness = {
                "input": [float(v) for v in self.witness.input.reshape(-1)],
                "output": [float(v) for v in self.witness.output.reshape(-1)],
            }
        return {
            "status": self.status,
            "distance": {"lower": self.lower, "upper": self.upper},
            "witness": witness,
            "norm": self.norm,
            "arithmetic": self.arithmetic,
            "seconds": round(self.seconds, 4),
            "trusted": list(self.trusted),
            "statistics": self.statistics,
            "reason": self.reason,
        }


def minimum_distortion(
    network: Network,
    image: ArrayLike,
    label: int,
    *,
    norm: str = "linf",
    targets: Iterable[int] | None = None,
    domain: tuple[object, object] | None = (0, 1),
    scale: ArrayLike | None = None,
    constraints: Sequence[tuple[ArrayLike, object]] = (),
    mean: object = 0,
    std: object = 1,
    margin: object = 0,
    gap: float = GAP,
    timeout: float = 300.0,
    max_distance: float | None = None,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
    known: Known | None = None,
    arithmetic: str = "real",
    proof: bool = False,
) -> Distortion:
    """The distance from `image` (of the network's input shape) to the closest input that is not classified as `label`.

    A tie counts as adversarial. targets: only these classes count. margin: a target's score must exceed the label's by
    this much. scale: radius of each feature in units of the distance, 0 fixes it. constraints: (coefficients, limit)
    with coefficients . x <= limit. mean, std: the network takes (x - mean) / std, as in `robustness`; distances, domain
    and scale are those of x, the witness is an input of the network. gap: relative gap at which the search ends.
    max_distance: look no further. workers: processes that share the work of one question. known: what an earlier
    search for the same distance came to; this one goes on from there. arithmetic: what the lower bound is about, as in
    `verify`. proof: whether the lower bound must come with `Distortion.proof`, that nothing closer is wrong; no
    solver's word counts then, nor the lower bound of `known`.

    Raises:
        InputError: arguments out of range, or an image that does not fit the network, the domain or the constraints;
            a proof about a network that is not that of one ONNX file.
    """
    perturbation = Perturbation.around(
        image, norm=norm, scale=scale, domain=domain, constraints=constraints, mean=mean, std=std
    )

    def asked(conditions: Sequence[Condition]) -> RobustnessStatement | None:
        if scale is not None or len(constraints):
            return None
        return robustness_asked(image, conditions, norm, domain, Normalization.of(mean, std, np.shape(image)))

    return closest_violation(
        network,
        perturbation,
        label,
        targets=targets,
        margin=margin,
        gap=gap,
        timeout=timeout,
        max_distance=max_distance,
        solver=solver,
        seed=seed,
        workers=workers,
        progress=progress,
        known=known,
        arithmetic=arithmetic,
        proof=proof,
        asked=asked if proof else None,
    )


def _status(search: RadiusSearch) -> Literal["optimal", "bounded", "none"]:
    return "optimal" if search.closed else "none" if search.empty else "bounded"


def closest_violation(
    network: Network,
    perturbation: Perturbation,
    label: int,
    *,
    targets: Iterable[int] | None = None,
    margin: object = 0,
    gap: float = GAP,
    timeout: float = 300.0,
    max_distance: float | None = None,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
    known: Known | None = None,
    arithmetic: str = "real",
    proof: bool = False,
    asked: Callable[[Sequence[Condition]], RobustnessStatement | None] | None = None,
) -> Distortion:
    """The smallest radius at which a perturbation reaches a wrong class; arguments as in `minimum_distortion`.

    asked: of conditions, the robustness question that a proof answers; without one it states sets.
    """
    started = time.perf_counter()
    network = in_arithmetic(snapshot(network), arithmetic)
    if perturbation.size != network.input_size:
        raise InputError(f"the image has {perturbation.size} values, the network {network.input_size} inputs")
    if not 0 < gap < 1:
        raise InputError(f"gap must lie between 0 and 1, not {gap:g}")
    if max_distance is not None and not max_distance > 0:
        raise InputError(f"the largest distance must be positive, not {max_distance:g}")
    conditions = misclassified(label, network.output_size, network.input_size, targets=targets, margin=margin)
    require_order(network, conditions)
    cap = min(perturbation.reach, np.inf if max_distance is None else max_distance)
    if not np.isfinite(cap):
        raise InputError("without limits of the domain a largest distance is needed")
    if proof:
        require_provable(network, conditions)
    search = RadiusSearch(network, perturbation, conditions, cap, gap, Clock(timeout), seed, solver, progress, proof)
    if known is not None:
        point = None if known.witness is None else np.asarray(known.witness, np.float32)
        search.resume(0.0 if proof else known.lower, point)
    reason = search.finish(workers)
    # What was left behind may bring the bounds closer yet: `upper` before the witness, which is no farther than that.
    lower, upper, status = search.lower, search.upper, _status(search) if not reason else "bounded"
    written = None
    if proof:
        held = search.excluded.so_far()  # of a search that was left behind, perhaps less than `lower`
        lower, written, missing = write_distance(network, conditions, held, asked(conditions) if asked else None)
        status, reason = ("bounded", missing) if missing else (status, reason)
    return Distortion(
        status,
        lower,
        upper if np.isfinite(upper) else None,
        search.witness,
        perturbation.norm.name,
        time.perf_counter() - started,
        tuple(dict.fromkeys(search.trusted)),
        search.statistics(),
        (reason or search.reason or "time") if status == "bounded" else "",
        network.arithmetic,
        written,
    )
