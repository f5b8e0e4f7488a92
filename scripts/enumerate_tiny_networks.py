#!/usr/bin/env python3
"""Compare verdicts on random tiny networks with their exact answers, by enumeration of phases in rational numbers.

    scripts/enumerate_tiny_networks.py [--count 10000] [--seed 0] [--solver auto]

Prints how often each verdict met each truth; exits 1 on a contradiction or a proven bound above the exact minimum.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "soundness"))

from exact import random_question

from mipverify.engine import verify


def main() -> int:
    """Run the comparison; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--timeout", type=float, default=5.0)
    args = parser.parse_args()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    wrong, begin = 0, time.time()
    for number in range(args.count):
        question = random_question(np.random.default_rng([args.seed, number]))
        verdict = verify(question.network(), question.specification(), timeout=args.timeout, solver=args.solver)
        truth = "violated" if question.violated() else "holds"
        counts[truth, verdict.verdict] += 1
        bad = verdict.verdict not in (truth, "unknown")
        if len(question.conditions) == len(question.conditions[0]) == 1 and verdict.margin_lower_bound is not None:
            bad |= Fraction(verdict.margin_lower_bound) > question.smallest_margin()
        if bad:
            wrong += 1
            print(
                f"number {number}: {verdict.verdict}, exactly {truth}, bound {verdict.margin_lower_bound}\n{question}"
            )
    for (truth, word), count in sorted(counts.items()):
        print(f"exactly {truth:9} verdict {word:9} {count:7}")
    print(f"{args.count} networks, {wrong} disagreements, solver {args.solver}, {time.time() - begin:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
