"""The solvers there are, one line each: read by `--solver`, its help and its errors, and by callers who need features.

A backend is a file with a `Solver`, and a line in BACKENDS. Files are imported when their backend is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.solvers.interface import Feature, Solver


@dataclass(frozen=True)
class Backend:
    """What is known of a backend before its file is imported.

    name: as the user chooses it. about: for help texts. module, kind: the class of the `Solver`. family: the solvers
    behind it have names of their own, which come after a colon and are what the class is made with.
    """

    name: str
    about: str
    module: str
    kind: str
    family: bool = False

    @property
    def choice(self) -> str:
        """How help texts write the name."""
        return f"{self.name}:NAME" if self.family else self.name

    def make(self, member: str = "") -> Solver:
        """The solver. Raises InputError where a family has no such member."""
        kind = getattr(import_module(self.module), self.kind)
        solver: Solver = kind(member) if self.family else kind()
        return solver

    def members(self) -> list[Solver]:
        """All solvers behind it, available or not."""
        if not self.family:
            return [self.make()]
        names: list[str] = getattr(import_module(self.module), self.kind).members()
        return [self.make(name) for name in names]


# In the order in which `solver_with` tries them.
BACKENDS = (
    Backend("highs", "HiGHS", "mipverify.solvers.highs", "Highs"),
    Backend("cbc", "CBC", "mipverify.solvers.cbc", "Cbc"),
    Backend("scip", "SCIP, an optional extra", "mipverify.solvers.scip", "Scip"),
    Backend("gurobi", "Gurobi, an optional extra", "mipverify.solvers.gurobi", "Gurobi"),
    Backend(
        "pulp", "any solver that PuLP knows and finds", "mipverify.solvers.through_pulp", "ThroughPulp", family=True
    ),
)
AUTO, BRANCH_AND_BOUND = "auto", "bab"
OWN = {AUTO: "own branch and bound, and HiGHS where it may finish", BRANCH_AND_BOUND: "own branch and bound alone"}


def choices() -> tuple[str, ...]:
    """What `--solver` takes, as help texts write it."""
    return (*OWN, *(backend.choice for backend in BACKENDS))


def describe() -> str:
    """The choices with what they are, for help texts."""
    return "; ".join([*(f"{n}: {a}" for n, a in OWN.items()), *(f"{b.choice}: {b.about}" for b in BACKENDS)])


def require_choice(name: str, what: str = "solver") -> None:
    """Raise InputError where `--solver NAME` cannot be done here, with the reason; `what` opens its line."""
    if not isinstance(name, str):
        raise InputError(f"{what} must be a name, not {name!r}")
    if name not in OWN:
        get_solver(name, what)


def get_solver(name: str, what: str = "solver") -> Solver:
    """The backend called `name`; raises InputError where it is unknown or cannot be used here, with the reason."""
    head, colon, member = name.partition(":")
    backend = next((b for b in BACKENDS if b.name == head and b.family == bool(colon)), None)
    if backend is None:
        raise InputError(f"{what} {name}: not one of {', '.join(choices())}")
    solver = backend.make(member)
    available = solver.available()
    if not available:
        raise InputError(f"{what} {name}: {available.reason}")
    return solver


def available_solvers() -> list[str]:
    """Names of the backends that can be used here."""
    return [solver.name for backend in BACKENDS for solver in backend.members() if solver.available()]


def solver_with(*features: Feature) -> Solver:
    """The first available backend that declares all of these; raises InputError where there is none."""
    for backend in BACKENDS:
        if backend.family:
            continue  # what the user has not named is not searched for
        solver = backend.make()
        if solver.features.issuperset(features) and solver.available():
            return solver
    missing = ", ".join(feature.value for feature in features)
    raise InputError(f"no solver that can be used here has: {missing}")
