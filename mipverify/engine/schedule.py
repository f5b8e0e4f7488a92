"""The order of the stages, and every share of time that they get. Their other numbers are fields of their classes.

A stage runs while the problem is open and time is left. A share is one of the time that is left when it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mipverify.attack.pgd import Attack
from mipverify.engine.stage import Budget, Stage
from mipverify.engine.stages.attack import GradientAttack
from mipverify.engine.stages.crown import Crown, FastLin
from mipverify.engine.stages.differences import Differences
from mipverify.engine.stages.evaluation import Evaluation
from mipverify.engine.stages.input_splitting import InputSplitting
from mipverify.engine.stages.intermediate import CutSample, CutTightening, FurtherPasses, ProgressiveTightening
from mipverify.engine.stages.interval import Interval
from mipverify.engine.stages.look_ahead import LookAhead
from mipverify.engine.stages.lp_tightening import LpTightening
from mipverify.engine.stages.milp import Milp
from mipverify.engine.stages.optimized_crown import NeuronTightening, OptimizedCrown
from mipverify.engine.stages.phases import BranchAndBound, FirstBranching
from mipverify.engine.stages.semidefinite import Semidefinite, SemidefiniteBranching
from mipverify.engine.stages.small_programs import SmallPrograms
from mipverify.presolve import Search

QUICK = Attack(restarts=4, steps=12)  # before bounds that cost more

EVALUATION = Evaluation(name="evaluation")
INTERVAL = Interval(name="interval")
QUICK_ATTACK = GradientAttack(name="quick attack", attack=QUICK, cost_ratio=4)
CROWN = Crown(name="crown")
ATTACK = GradientAttack(name="attack", attack=QUICK)
DIFFERENCES = Differences(name="differences")  # of two networks: what decides most of their questions
OPTIMIZED_CROWN = OptimizedCrown(name="optimized crown", search=Search(iterations=20))
# What has few units ends at once, whatever halves of its box would come to.
SMALL_PROGRAMS = SmallPrograms(name="small programs", budget=Budget(0.25))
INPUT_SPLITTING = InputSplitting(name="input splitting")
TIGHTENING = NeuronTightening(name="tightening", search=Search(iterations=20))
SEMIDEFINITE = Semidefinite(name="semidefinite")
LONG_ATTACK = GradientAttack(name="long attack", attack=Attack(restarts=16, steps=60))
# Branching on phases with other bounds follows, which some networks need more.
SEMIDEFINITE_BRANCHING = SemidefiniteBranching(name="semidefinite branching", budget=Budget(0.5))
LOOK_AHEAD = LookAhead(name="look-ahead", budget=Budget(0.5))
FIRST_BRANCHING = FirstBranching(name="first branching")
CUT_SAMPLE = CutSample(name="cut sample")
# Dense networks live on their intermediate bounds; what is left is enough to branch on those of easy problems.
PROGRESSIVE_TIGHTENING = ProgressiveTightening(name="progressive tightening", budget=Budget(0.75))
CUT_TIGHTENING = CutTightening(name="cut tightening", budget=Budget(0.2))
FURTHER_PASSES = FurtherPasses(name="late progressive tightening", budget=Budget(0.75))
# A third: a MILP solver that was asked for must get most of the time.
LP_TIGHTENING = LpTightening(name="lp tightening", budget=Budget(1 / 3))
MILP_AS_ASKED = Milp(name="milp", asked=True)
MILP = Milp(name="milp", asked=False, budget=Budget(0.5))  # branching goes on after it
BRANCH_AND_BOUND = BranchAndBound(
    name="branch and bound",
    budget=Budget(
        leaving=(
            (MILP, 0.1),  # a solver finishes small programs that trees of bounds only creep up to
            (FURTHER_PASSES, 0.05),  # intermediate bounds decide: what is easy is decided soon
        )
    ),
)
# Larger trees settle few signs more, but where hours are left, bounds that tighten all along are worth more than nodes.
HARD_PASSES = FurtherPasses(
    name="hard progressive tightening", budget=Budget(0.6), ratios=(1.0,), nodes=16_000, settled=1.0, after=1
)
LATE_BRANCH_AND_BOUND = BranchAndBound(
    name="late branch and bound", budget=Budget(leaving=((HARD_PASSES, 0.25),)), resumed=True
)
LAST_BRANCH_AND_BOUND = BranchAndBound(name="last branch and bound", resumed=True)

CASCADE: tuple[Stage, ...] = (
    EVALUATION,
    INTERVAL,
    QUICK_ATTACK,
    CROWN,
    ATTACK,
    OPTIMIZED_CROWN,
    SMALL_PROGRAMS,
    INPUT_SPLITTING,
    TIGHTENING,
    SEMIDEFINITE,
    LONG_ATTACK,
    SEMIDEFINITE_BRANCHING,
    LOOK_AHEAD,
    FIRST_BRANCHING,
    CUT_SAMPLE,
    PROGRESSIVE_TIGHTENING,
    CUT_TIGHTENING,
    BRANCH_AND_BOUND,
    FURTHER_PASSES,
    LP_TIGHTENING,
    MILP_AS_ASKED,
    MILP,
    LATE_BRANCH_AND_BOUND,
    HARD_PASSES,
    LAST_BRANCH_AND_BOUND,
)

# Where a proof is to be written: without those whose facts have no derivations, or too long ones.
RECORDED: tuple[Stage, ...] = tuple(
    replace(BRANCH_AND_BOUND, budget=Budget(leaving=((FURTHER_PASSES, 0.05),))) if stage is BRANCH_AND_BOUND else stage
    for stage in CASCADE
    if stage not in (LP_TIGHTENING, MILP_AS_ASKED, MILP, HARD_PASSES, LAST_BRANCH_AND_BOUND)
)

# Many samples of a data set together. Beyond this many multiplications of CROWN for a sample, about a second, it is
# left to itself: an attack costs little beside such bounds, and what that leaves open has a clock of its own.
MOST_WORK = 2**32
FAST_LIN = FastLin(name="fast-lin", most_work=MOST_WORK)
BATCH_CROWN = Crown(name="crown", most_work=MOST_WORK, float32_first=True)
BATCH_ATTACK = GradientAttack(name="attack", attack=Attack(restarts=1, steps=20))
BATCH_OPTIMIZED_CROWN = OptimizedCrown(
    name="optimized crown", search=Search(iterations=10), together=True, most_work=MOST_WORK
)
TOGETHER: tuple[Stage, ...] = (INTERVAL, FAST_LIN, BATCH_CROWN, BATCH_ATTACK, BATCH_OPTIMIZED_CROWN)
# What each of these stands for: a sample that they leave open goes on with the rest of the cascade.
STANDS_FOR: dict[Stage, tuple[Stage, ...]] = {
    INTERVAL: (EVALUATION, INTERVAL),
    BATCH_CROWN: (CROWN,),
    BATCH_ATTACK: (QUICK_ATTACK,),  # the other one starts from random points and from better hints
    BATCH_OPTIMIZED_CROWN: (OPTIMIZED_CROWN,),
}


def rest_of_cascade(ran: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages of the cascade for which none of those that ran on many samples together stands."""
    done = [other for stage in ran for other in STANDS_FOR.get(stage, ())]
    return tuple(stage for stage in CASCADE if stage not in done)


# Searches for a distance or a smallest margin ask one problem after the other, with parts of the cascade.
CROWN_ONLY: tuple[Stage, ...] = (INTERVAL, CROWN, OPTIMIZED_CROWN)  # proofs in milliseconds
TIGHTENED: tuple[Stage, ...] = (*CROWN_ONLY, TIGHTENING)
# Where a witness is known.
PROOF = tuple(stage for stage in CASCADE if stage not in (ATTACK, LONG_ATTACK))
RECORDED_PROOF = tuple(stage for stage in RECORDED if stage not in (ATTACK, LONG_ATTACK))
# Two networks: most differences are decided by bounds; near the largest one, where both have many kinks, halved boxes
# creep up to it, and phases do not.
FIRST_DIFFERENCES: tuple[Stage, ...] = (INTERVAL, CROWN, DIFFERENCES, TIGHTENING)
WORST_DIFFERENCE: tuple[Stage, ...] = (
    INTERVAL,
    DIFFERENCES,
    TIGHTENING,
    SMALL_PROGRAMS,
    FIRST_BRANCHING,
    CUT_SAMPLE,
    BRANCH_AND_BOUND,
    replace(INPUT_SPLITTING, budget=Budget(0.5)),
    LP_TIGHTENING,
    MILP_AS_ASKED,
    MILP,
    LATE_BRANCH_AND_BOUND,
)
COMPARISON: tuple[Stage, ...] = (
    EVALUATION,
    INTERVAL,
    QUICK_ATTACK,
    CROWN,
    DIFFERENCES,
    ATTACK,
    TIGHTENING,
    LONG_ATTACK,
    *WORST_DIFFERENCE[3:],
)
THOROUGH_ATTACK: tuple[Stage, ...] = (GradientAttack(name="attack", attack=Attack(restarts=4, steps=40)),)


@dataclass(frozen=True)
class Shares:
    """Of the time that a search has left.

    proof: for one proof close to the witness; retry: for one half way, where that came to nothing. regions: for linear
    regions around one witness. walks: from a witness, to come closer. watching: of the time of a proof, for points that
    it comes across.
    """

    proof: float
    retry: float
    regions: float = 0.1
    walks: float = 0.25
    watching: float = 0.15


# Close to the exact distance one proof is most of the work; margins are narrowed in more steps, since a proof of any
# level raises the bound.
DISTANCE = Shares(proof=0.8, retry=0.5)
MARGIN = Shares(proof=0.6, retry=0.6)
