"""One question from network and specification to verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mipverify.engine.budget import Clock
from mipverify.engine.driver import silent
from mipverify.engine.run import Run
from mipverify.engine.samples import HandedOn
from mipverify.engine.schedule import CASCADE, rest_of_cascade
from mipverify.engine.stage import Stage
from mipverify.engine.verdict import Verdict
from mipverify.network import Network
from mipverify.network.deployed import in_arithmetic
from mipverify.network.snapshot import snapshot
from mipverify.parallel.guard import LeftBehindError, run_within
from mipverify.solvers.registry import require_choice
from mipverify.specification import Specification

if TYPE_CHECKING:
    from mipverify.proof_file import Ground


def verify(
    network: Network,
    specification: Specification,
    *,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    workers: int = 1,
    memory: int | None = None,
    progress: Callable[[str, str], None] | None = None,
    stages: Sequence[Stage] = CASCADE,
    proof: bool = False,
    arithmetic: str = "real",
) -> Verdict:
    """Prove that no input of the specification's set meets a violating condition, or find one that does.

    timeout: seconds for the whole question. solver: what finishes if bounds do not, of those in `registry.choices()`.
    workers: processes that share the work of one question; the others start only once it has turned out to be hard.
    memory: cap in bytes on what the work may take, which is then done in a process of its own; beyond it the verdict is
    unknown.
    progress: called with a stage's name and a short text. stages: what to run, for measurements. proof: whether what
    holds must come with `Verdict.proof`; no solver's word counts then.
    arithmetic: what `holds` is about, the real-valued function, or with `float32` every evaluation in float32.
    Raises InputError where network and property do not fit, or float32 cannot be spoken of.
    """
    require_choice(solver)
    network = in_arithmetic(snapshot(network), arithmetic)
    run = Run(network, specification, Clock(timeout), solver, seed, workers, progress or silent, stages, proof)
    if memory is not None:
        from mipverify.engine.confined import run_confined  # most questions need no other process

        return run_confined(run, memory)
    return _finished(run)


def require_solver(name: str) -> None:
    """Raise InputError for a name that no solver has."""
    require_choice(name)


def verify_rest(
    network: Network, specification: Specification, start: HandedOn, *, timeout: float, solver: str, seed: int
) -> Verdict:
    """The same for a sample that was left open among others: goes on from what is known of it."""
    stages = rest_of_cascade(start.ran)
    return _finished(Run(network, specification, Clock(timeout), solver, seed, 1, silent, stages, start=start))


def verify_with_grounds(
    network: Network, specification: Specification, *, timeout: float, seed: int
) -> tuple[Verdict, list[Ground]]:
    """The same with a proof, and what that was written from where it holds: for one proof of several questions."""
    run = Run(network, specification, Clock(timeout), "bab", seed, 1, silent, CASCADE, proof=True)
    verdict = _finished(run)
    return verdict, run.grounds() if verdict.verdict == "holds" else []


def _finished(run: Run) -> Verdict:
    try:
        return run_within(run.clock, run.finish)
    except KeyboardInterrupt:
        return run.verdict("interrupted")
    except LeftBehindError:
        return run.verdict("time")
