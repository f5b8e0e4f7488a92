#!/usr/bin/env python3
"""Corrupt proofs at random: none that changes a claim may be verified, and the checker may not fail.

    ./scripts/mutate_proofs.py --count 10000
    ./scripts/mutate_proofs.py --count 1000 PROOF NET.onnx [PROPERTY.vnnlib]

Without files, the proofs of tests/checker; three of seven corruptions are of proofs whose claim is false, and none of
those may be verified at all. The work is done in a process of its own, so that a crash or much memory is seen, too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "checker")]

from mipverify_check import main as checker  # noqa: E402
from mipverify_check import onnx_file, operators  # noqa: E402
from mipverify_check.arithmetic import FLOATS  # noqa: E402
from mipverify_check.errors import BadInputError, RejectedError  # noqa: E402

from tests.checker.examples import EXAMPLES, VIOLATED  # noqa: E402
from tests.checker.mutations import mutated  # noqa: E402

Job = tuple[str, bytes, str, str | None, bool, int, int]  # name, proof, network, property, false, seed, count


def work(job: Job) -> tuple[Counter[str], list[str], int]:
    """Outcomes, what must not be, and the largest memory of the process in bytes."""
    name, content, network_path, property_path, false, seed, count = job
    checker.limit_memory()
    rng, outcomes, faults = np.random.default_rng(seed), Counter[str](), []
    file = onnx_file.read(network_path)
    network = operators.lowered(file, FLOATS)
    claim = None if false else checker.check(content, network, file.sha256, property_path)
    for i in range(count):
        changed = mutated(content, rng)
        try:
            said = checker.check(changed, network, file.sha256, property_path)
        except (RejectedError, BadInputError):
            outcomes["rejected"] += 1
            continue
        except BaseException:  # noqa: BLE001  # that is what is looked for
            faults.append(f"{name}, seed {seed}, corruption {i}: {traceback.format_exc()}")
            continue
        if false or (said != claim and property_path is not None):
            faults.append(f"{name}, seed {seed}, corruption {i}: verified: {said}")
        outcomes["verified" if said == claim else "another claim, named as such"] += 1
    return outcomes, faults, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Corrupt proofs at random.")
    parser.add_argument("files", nargs="*", help="a proof, its network, and its property")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jobs: list[Job] = []
    with tempfile.TemporaryDirectory() as held:
        if options.files:
            proof, network, *asked = options.files
            jobs = [
                (
                    proof,
                    Path(proof).read_bytes(),
                    network,
                    asked[0] if asked else None,
                    False,
                    options.seed,
                    options.count,
                )
            ]
        else:
            for name, build in EXAMPLES.items():
                for false in (False, True) if name not in ("image", "radii") else (False,):
                    folder = Path(held) / f"{name}{false}"
                    folder.mkdir()
                    found = build(folder, VIOLATED) if false else build(folder)
                    asked_path = None if found.property is None else str(found.property)
                    jobs.append((name, found.writer.content(), str(found.network), asked_path, false, options.seed, 0))
            each = -(-options.count // len(jobs))
            jobs = [(*job[:-1], each) for job in jobs]
        outcomes, faults, memory = Counter[str](), list[str](), 0
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for some, wrong, used in pool.imap(work, jobs):
                outcomes, faults, memory = outcomes + some, faults + wrong, max(memory, used)
    for fault in faults[:20]:
        print(fault)
    total = sum(outcomes.values()) + len(faults)
    print(f"{total} corruptions: {dict(outcomes)}, {len(faults)} faults, {memory / 2**20:.0f} MB at most")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
