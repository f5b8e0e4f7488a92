#!/usr/bin/env python3
"""How broad the engine is: instances of many benchmarks, each a whole `mipverify verify` under its limit, as a table.

OMP_NUM_THREADS=1 benchmarks/breadth.py PLACE [--match sat_relu] [--every 5] [--cap 60] [--workers 2] [--out run.csv]

PLACE is what `mipverify benchmark` takes. Nothing of a limit is set aside for the start of a process: an instance is
late where its process ends more than a second after its limit. Medians are over what is decided rightly; PAR-2 is the
mean over all, where what is not counts twice its limit. The last line says it all, for comparison with another run.
The exit code is 1 where an answer is wrong.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from mipverify.benchmark.columns import OUTCOMES, Outcome, short
from mipverify.benchmark.instances import find_instances, select
from mipverify.benchmark.job import BenchmarkJob
from mipverify.benchmark.run import fingerprints
from mipverify.benchmark.score import Standing, score
from mipverify.cluster.executor import Task
from mipverify.errors import InputError
from mipverify.parallel import cores

LATE = 1.0  # seconds after its limit in which an instance may still end
# Seconds of alpha-beta-CROWN (November 2026, two cores, no GPU, limit 60 s) on some instances of each, whole processes.
PEER = {
    "acasxu": "6 to 24",
    "tllverifybench": "10 to 27",
    "sat_relu": "3 of 3 open",
    "oval21": "4 to 44",
    "sri_resnet_a": "9 to 10",
    "linearizenn": "7, 2 of 3 open",
    "safenlp": "7 to 27",
    "malbeware": "5 to 11",
    "metaroom": "5 to 12",
    "cora": "5 to 9",
}
HEAD = f"{'benchmark':16} {'asked':>6} {'decided':>8} {'wrong':>6} {'late':>5} {'median s':>9} {'PAR-2 s':>8}  peer s"


def row(name: str, standing: Standing, late: int, peer: str) -> str:
    """A line of the table."""
    median = f"{statistics.median(standing.times):.2f}" if standing.times else "-"
    counts = f"{standing.instances:6} {standing.solved:8} {standing.wrong:6} {late:5}"
    return f"{name:16} {counts} {median:>9} {standing.par2:8.2f}  {peer}".rstrip()


def is_late(outcome: Outcome) -> bool:
    """Whether an instance ended more than `LATE` seconds after its limit."""
    return outcome.seconds > outcome.limit + LATE


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The table of some outcomes, its last line the summary of all."""
    scores = score(outcomes, ())
    lines = [HEAD]
    for (_, benchmark), standing in scores.standings.items():
        if benchmark:
            late = sum(is_late(one) for one in outcomes if one.benchmark == benchmark)
            lines.append(row(benchmark, standing, late, PEER.get(benchmark, "")))
    (everything,) = (standing for (_, benchmark), standing in scores.standings.items() if not benchmark)
    return [*lines, row("all", everything, sum(map(is_late, outcomes)), "")]


def main() -> int:
    """Run everything, print each answer and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place")
    parser.add_argument("--match", help="a regular expression for 'benchmark network property'")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--cap", type=float, help="seconds that no instance gets more than")
    parser.add_argument("--workers", type=int, default=cores(), help="processes for each instance")
    parser.add_argument("--decided", action="store_true", help="only where PLACE gives a verdict")
    parser.add_argument("--out", type=Path, help="CSV file of all that is known of each instance")
    args = parser.parse_args()
    try:
        chosen = select(find_instances(args.place), args.match, args.every)
        chosen = [instance for instance in chosen if instance.truth or not args.decided]
        hashes = fingerprints(chosen)
    except InputError as error:
        parser.error(str(error))
    by_index = {instance.index: instance for instance in chosen}
    runner = BenchmarkJob(by_index, hashes, args.cap, args.workers, start=0.0).runner()
    outcomes: list[Outcome] = []
    for outcome in runner.run(Task(0, tuple(by_index), only_cheap=False)):
        outcomes.append(outcome)
        late = "late" if is_late(outcome) else ""
        known = outcome.truth or "never decided"
        asked = f"{outcome.benchmark} {short(outcome.onnx)} {short(outcome.vnnlib)}"
        wrong = "WRONG" if outcome.solved and score([outcome], ()).contradictions else ""
        more = " ".join(filter(None, (late, wrong, outcome.replay.replace("correct", ""), outcome.reason)))
        print(
            f"{outcome.seconds:8.2f} s {outcome.verdict:9} ({known}) {outcome.stage:20} {asked} {more}".rstrip(),
            flush=True,
        )
    if args.out:
        OUTCOMES.write_csv(args.out, outcomes)
    lines = table(outcomes)
    print("", *lines, sep="\n")
    return int(any(standing.wrong for standing in score(outcomes, ()).standings.values()))


if __name__ == "__main__":
    sys.exit(main())
