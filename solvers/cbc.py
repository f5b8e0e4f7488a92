"""CBC through the binary that PuLP ships: an MPS file in, a solution file and a log out."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mipverify.solvers.interface import (
    DEFAULT,
    LEAST_SECONDS,
    NO_LIMITS,
    TIGHT,
    Availability,
    DualStatus,
    Feature,
    Limits,
    PrimalStatus,
    Solution,
    Solver,
    Termination,
)

from mipverify.errors import Stopped
from mipverify.formulation.milp import Milp
from mipverify.parallel.process import tied

GRACE = 1.0  # seconds beyond its limit in which CBC may write its answer, before it is killed
POLL = 0.02  # seconds between two looks at it
POLLED = 2**14  # lines of a model file between two looks at the clock


class Cbc(Solver):
    """COIN-OR branch and cut [Forrest and Lougee-Heimer 2005], one thread, in a process of its own."""

    name = "cbc"
    tolerance = TIGHT
    features = frozenset({Feature.DUAL_BOUND, Feature.INTERRUPT, Feature.SEED})

    def available(self) -> Availability:
        """Whether PuLP and its CBC binary are here."""
        try:
            path = binary()
        except ImportError as error:
            return Availability(f"PuLP cannot be imported ({error}): pip install pulp")
        if path is None:
            return Availability("PuLP ships no CBC binary for this machine: use another solver")
        return Availability()

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize with CBC."""
        path = binary()
        assert path is not None, "checked by available()"
        with tempfile.TemporaryDirectory(prefix="mipverify-cbc-") as folder:
            model, answer = Path(folder) / "model.mps", Path(folder) / "answer.txt"
            try:
                write_mps(milp, model, stop)
            except Stopped:
                return Solution(Termination.STOPPED, PrimalStatus.NONE, DualStatus.NONE, "cbc")
            # Its linear programs perturb themselves by the first seed, its heuristics choose by the second.
            command = [str(path), str(model), "-threads", "0", "-randomSeed", str(seed + 1)]
            command += ["-randomCbcSeed", str(seed + 1)]
            for kind in ("primal", "dual", "integer"):
                command += [f"-{kind}Tolerance", f"{TIGHT:g}"]
            command += ["-ratioGap", "0", "-allowableGap", f"{TIGHT:g}", "-timeMode", "elapsed"]
            if limits.time is not None:
                command += ["-seconds", f"{max(limits.time, LEAST_SECONDS):.3f}"]
            # The cutoff is not handed over: CBC would then call a program infeasible that only has nothing below it.
            command += ["-solve", "-solution", str(answer)]
            log = Path(folder) / "log.txt"
            stopped = _run(command, log, limits, stop)
            return _solution(milp, answer, log.read_text(errors="replace"), stopped)


def binary() -> Path | None:
    """The CBC executable inside the installed PuLP, or None."""
    import pulp

    path = pulp.PULP_CBC_CMD().path
    return Path(path) if path and Path(path).exists() else None


def _run(command: list[str], log: Path, limits: Limits, stop: Callable[[], bool] | None) -> bool:
    """Run to the end, or kill where the caller asks for it or time is well over; returns whether it was killed."""
    end = None if limits.time is None else time.perf_counter() + limits.time + GRACE
    with log.open("wb") as out:
        child = subprocess.Popen(tied(command), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while child.poll() is None:
                if (stop is not None and stop()) or (end is not None and time.perf_counter() > end):
                    return True
                try:
                    child.wait(POLL)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    return False


def write_mps(milp: Milp, path: Path, stop: Callable[[], bool] | None = None) -> None:
    """Write free-format MPS with 17 significant digits: every float64 is read back as it is.

    Raises Stopped once `stop` returns true.
    """
    with path.open("w") as file:
        for k, line in enumerate(_mps(milp)):
            if k % POLLED == 0 and stop is not None and stop():
                raise Stopped
            file.write(line + "\n")


def _mps(milp: Milp) -> Iterator[str]:
    """The lines of it, one by one: together they take a hundred bytes and more for each coefficient."""
    columns = milp.matrix.tocsc()
    equal = milp.row_lower == milp.row_upper
    has_low, has_high = np.isfinite(milp.row_lower), np.isfinite(milp.row_upper)
    kinds = np.where(equal, "E", np.where(has_high, "L", np.where(has_low, "G", "N")))
    yield from ("NAME mipverify FREE", "ROWS", " N cost")
    yield from (f" {kind} r{i}" for i, kind in enumerate(kinds))
    yield "COLUMNS"
    inside = False
    # CBC does not know of a column without an entry, and stumbles over its bounds: such a column is free anyway.
    present = np.flatnonzero((milp.objective != 0) | (np.diff(columns.indptr) > 0))
    for j in present:
        if bool(milp.integer[j]) != inside:
            inside = not inside
            yield f" m{j} 'MARKER' '{'INTORG' if inside else 'INTEND'}'"
        yield f" c{j} cost {milp.objective[j]:.17g}"
        span = slice(columns.indptr[j], columns.indptr[j + 1])
        rows, values = columns.indices[span].tolist(), columns.data[span].tolist()
        yield from (f" c{j} r{i} {value:.17g}" for i, value in zip(rows, values, strict=True))
    if inside:
        yield " mend 'MARKER' 'INTEND'"
    yield "RHS"
    side = np.where(has_high, milp.row_upper, milp.row_lower)
    yield from (f" rhs r{i} {side[i]:.17g}" for i in np.flatnonzero((has_low | has_high) & (side != 0)))
    yield "RANGES"
    both = has_low & has_high & ~equal
    yield from (f" rng r{i} {milp.row_upper[i] - milp.row_lower[i]:.17g}" for i in np.flatnonzero(both))
    yield "BOUNDS"
    for j in present:
        low, high = milp.lower[j], milp.upper[j]
        yield f" LO bnd c{j} {low:.17g}" if np.isfinite(low) else f" MI bnd c{j}"
        yield f" UP bnd c{j} {high:.17g}" if np.isfinite(high) else f" PL bnd c{j}"
    yield "ENDATA"


def _solution(milp: Milp, answer: Path, log: str, stopped: bool) -> Solution:
    version = re.search(r"^Version:\s*(\S+)", log, re.MULTILINE)
    solver = f"cbc {version.group(1) if version else 'of unknown version'}"
    text = answer.read_text(errors="replace") if answer.exists() else ""
    first = text.partition("\n")[0].lower()
    if first.startswith("optimal"):
        termination = Termination.OPTIMAL
    elif "infeasible" in first or "integer infeasible" in first:
        termination = Termination.INFEASIBLE
    elif "unbounded" in first:
        termination = Termination.UNBOUNDED
    elif "stopped on time" in first:
        termination = Termination.TIME_LIMIT
    elif "stopped on" in first:
        termination = Termination.OTHER_LIMIT
    else:
        termination = Termination.STOPPED if stopped else Termination.FAILED
    primal = None
    if termination in (Termination.OPTIMAL, Termination.TIME_LIMIT, Termination.OTHER_LIMIT):
        primal = _read_point(milp, text)
    if primal is not None and milp.evaluate(primal)[2] > DEFAULT:
        primal = None  # stopped early, it prints what solves the linear relaxation
    objective = float("nan") if primal is None else milp.evaluate(primal)[0]
    bound = float("-inf")
    if termination is Termination.OPTIMAL and np.isfinite(objective):
        bound = objective  # CBC prints no bound where it closed the gap
    else:
        lower = re.search(r"^Lower bound:\s*(\S+)", log, re.MULTILINE)
        if lower is not None:
            try:
                bound = float(lower.group(1)) + milp.offset
            except ValueError:
                bound = float("-inf")
    nodes = re.search(r"^Enumerated nodes:\s*(\d+)", log, re.MULTILINE)
    return Solution(
        termination,
        PrimalStatus.NONE if primal is None else PrimalStatus.FEASIBLE,
        DualStatus.BOUND if np.isfinite(bound) else DualStatus.NONE,
        solver,
        primal,
        objective,
        bound,
        None,
        int(nodes.group(1)) if nodes else 0,
        TIGHT,
    )


def _read_point(milp: Milp, text: str) -> np.ndarray | None:
    """The point in a solution file, zeros left out there; None where it cannot be read."""
    point = np.clip(0.0, milp.lower, milp.upper)
    point[(np.diff(milp.matrix.tocsc().indptr) > 0) | (milp.objective != 0)] = 0.0  # zeros are left out of the file
    for match in re.finditer(r"^\s*(?:\*\*)?\s*\d+\s+c(\d+)\s+(\S+)", text, re.MULTILINE):
        try:
            point[int(match.group(1))] = float(match.group(2))
        except (ValueError, IndexError):
            return None
    return point if np.isfinite(point).all() else None
