"""How much of a threat it takes to change a sample's class: the image as it is first, then ever closer parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mipverify.engine.distortion import Distortion
from mipverify.engine.judge import meets
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits, Threat
from mipverify.engine.verdict import Witness
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.deployed import in_arithmetic
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import validated
from mipverify.specification.robustness import nearest_inputs

GAP = 1e-2  # relative: each bound is a question of its own
OPTIONS = ("gap", "max_distance", "timeout", "solver", "seed", "workers", "progress", "arithmetic", "proof")


def distance_of_threat(
    network: Network,
    threat: Threat,
    sample: Sample,
    *,
    gap: float = GAP,
    max_distance: float | None = None,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
    arithmetic: str = "real",
    proof: bool = False,
) -> Distortion:
    """The smallest part of a threat that holds an input which is classified otherwise: `Threat.distance`.

    That is zero where the image itself is. A distance is a radius, where the threat has one, else a share of the
    threat. Other arguments as in `minimum_distortion`. Raises InputError where sample, threat and
    arguments do not fit each other.
    """
    if sample.eps is not None:
        raise InputError(f"threat {threat.text}: the radius (eps) is what is looked for")
    if threat.radius == "none":
        sample.without_radius(threat.text)
        if max_distance is not None and max_distance > 1:
            raise InputError(
                f"threat {threat.text}: distances are shares of it, of which 1 is the largest, not {max_distance:g}"
            )
    if proof and not threat.provable:
        raise InputError(f"threat {threat.text}: no proofs can be written of it")
    limits, began = Limits(timeout, solver, seed, workers, progress, arithmetic, proof), time.perf_counter()
    network = in_arithmetic(snapshot(network), arithmetic)
    (point,) = nearest_inputs(np.asarray(sample.image)[None], sample.normalization)
    (output,) = validated(network, point[None]).run(point[None])
    if any(meets(network, condition, point, output) for condition in sample.conditions(network.output_size)):
        seconds, witness = time.perf_counter() - began, Witness(point, output)
        nothing = {"questions": 0, "nodes": 0, "worst": None}
        measure = threat.measured_in(sample.norm)
        about = network.arithmetic
        return Distortion("optimal", 0.0, 0.0, witness, measure, seconds, statistics=nothing, arithmetic=about)
    found = threat.distance(network, sample, limits, gap, max_distance)
    return replace(found, arithmetic=network.arithmetic)
