"""Networks with one unstable layer of ReLUs: semidefinite bounds, and branching with them."""

from __future__ import annotations

from dataclasses import dataclass

from mipverify.engine.features import by_milp, reducible, too_many_units, unstable, unstable_layers
from mipverify.engine.problem import Problem
from mipverify.engine.searches import go_on, phase_search
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update


@dataclass(frozen=True, kw_only=True)
class Semidefinite(Stage):
    """Semidefinite relaxations of the open conditions, from which branching may go on.

    most_units: unstable ReLUs up to which a bound is proven in seconds; that costs the cube of their number and is not
    interrupted. entries: of the inputs of all nodes that are bounded together, each of which has a vector; batch:
    nodes, at most.
    """

    most_units: int = 2000
    entries: int = 2**20
    batch: int = 128

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where one layer of ReLUs is unstable: the relaxation takes the network as it is then."""
        if by_milp(problem) or state.bounds is None or unstable_layers(state) != 1:
            return None
        if unstable(state) > self.most_units or not reducible(state):
            return None
        return f"{unstable(state)} units are unstable, all in one layer"

    def obstacle(self, problem: Problem, state: State) -> str:
        """Too many units."""
        return "" if by_milp(problem) else too_many_units(state)

    def run(self, work: Work) -> None:
        """Bound the open conditions, and keep the search for branching."""
        from mipverify.proof.semidefinite import SingleLayer
        from mipverify.solvers.branch_and_bound.semidefinite import SemidefiniteBounder

        single_layer = SingleLayer.of(work.state.reduced(work.deadline.over).bounds)
        if single_layer is None:
            return
        size = work.problem.network.input_size
        bounder = SemidefiniteBounder(single_layer, work.problem.network.input_shape)
        batch = min(self.batch, max(2, self.entries // size))
        roots = [bounder.start(c) for c in work.state.open().tolist()]
        search = phase_search(work.outlasting(), bounder, roots, batch=batch)
        outcome = search.run(work.deadline.over, split=False)
        work.tell(Update(facts=(outcome.bound,), nodes=outcome.nodes, semidefinite=(search,)))


@dataclass(frozen=True, kw_only=True)
class SemidefiniteBranching(Stage):
    """Branch and bound on ReLU phases with semidefinite bounds."""

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where such bounds were made."""
        return "semidefinite bounds take the layer as it is" if state.semidefinite else None

    def run(self, work: Work) -> None:
        """Go on with the search, and let it go: its nodes take memory, and others follow."""
        searches = work.state.semidefinite
        work.tell(Update(semidefinite=()))
        go_on(work, searches)
