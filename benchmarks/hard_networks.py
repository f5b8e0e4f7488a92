#!/usr/bin/env python3
"""Hard questions, one process each, with the cascade whole or without some of its ingredients; writes a table.

OMP_NUM_THREADS=1 benchmarks/hard_networks.py --instances vnncomp/instances.csv [--match oval21] [--cap 120]
    [--robustness NET.onnx DATA EPS BEGIN:END] [--without cuts] [--out hard.csv]

instances.csv has the columns of VNN-COMP (category, network, property, time limit), paths relative to it. --robustness
asks about images BEGIN to END of a data set instead. Seconds are wall time of the whole process, with start-up.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    import mipverify
    from mipverify.proof.rows import LinearBounds

DROPPED = {  # stages that go with an ingredient
    "attack first": ("quick attack",),
    "look-ahead": ("look-ahead",),
    "cut tightening": ("cut tightening",),
    "milp": ("milp",),
    "semidefinite": ("semidefinite", "semidefinite branching"),
    "slopes": ("optimized crown", "tightening"),
    "cuts": (
        "progressive tightening",
        "branch and bound",
        "late progressive tightening",
        "cut tightening",
        "late branch and bound",
        "hard progressive tightening",
        "last branch and bound",
    ),
    "branching": (  # intermediate bounds are cut late then
        "progressive tightening",
        "late progressive tightening",
        "input splitting",
        "first branching",
        "branch and bound",
        "late branch and bound",
        "hard progressive tightening",
        "last branch and bound",
        "semidefinite branching",
    ),
    "programs": ("lp tightening", "milp"),
    "intermediate bounds": (
        "progressive tightening",
        "late progressive tightening",
        "hard progressive tightening",
        "cut tightening",
    ),
}
# Parts of stages, which are put out of use in the process that is asked: the question is left to it alone.
PARTS = ("windows", "residual windows", "sparse operators", "joint conjunctions")
INGREDIENTS = (*DROPPED, *PARTS, "clipping", "programs of nodes", "cores")


def stages_without(ingredients: list[str]) -> list:
    """The cascade, or what is left of it; without "cores", it is one process instead of one for each."""
    from mipverify.engine.schedule import CASCADE
    from mipverify.engine.stages.phases import FirstBranching, PhaseStage

    dropped = {name for ingredient in ingredients for name in DROPPED.get(ingredient, ())}
    options: dict = {"ceiling": None} if "clipping" in ingredients else {}
    if "programs of nodes" in ingredients:
        options["most_entries"] = 0
    kept = []
    for stage in CASCADE:
        if stage.name in dropped:
            continue
        own = options if isinstance(stage, PhaseStage) else {}
        if "cuts" in ingredients and isinstance(stage, FirstBranching):  # one search without them, for all of the time
            own = {**own, "most_work": math.inf}
        kept.append(replace(stage, **own))
    return kept


def put_out_of_use(ingredients: list[str]) -> None:
    """Replace what some parts of stages are called by what there would be without them.

    windows: rows of convolutions are whole ones. residual windows: the same from the first sum or branch on. sparse
    operators: sparse weights are dense arrays. joint conjunctions: of several rows that must be met together, the one
    of the highest bound counts alone on each box.
    """
    import numpy as np
    from mipverify.solvers.branch_and_bound import conjunction

    from mipverify.network import Affine, sparse_linear
    from mipverify.proof import patches, windows

    crown = import_module("mipverify.presolve.crown")  # the package has a function of this name
    whole = windows.windowed

    def in_a_chain(network: mipverify.Network, node: int) -> bool:
        affine = [one for one in network.nodes[: node + 1] if isinstance(one, Affine)]
        read = [term.source for one in affine for term in one.terms]
        return len(read) == len(affine) == len(set(read)) and whole(network, node)

    def one_row(rows: LinearBounds, count: int, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        a = rows.coefficients.reshape(count, len(lower), -1)
        least = (rows.constant - np.asarray(rows.error)).reshape(count, -1)
        least = least + (a * (lower + upper) - np.abs(a) * (upper - lower)).sum(-1) / 2
        return (np.arange(count)[:, None] == least.argmax(axis=0)).astype(float)

    if "residual windows" in ingredients:
        crown.windowed = patches.windowed = in_a_chain
    if "windows" in ingredients:
        crown.windowed = patches.windowed = lambda network, node: False
    if "sparse operators" in ingredients:
        sparse_linear.SparseLinear.fits = classmethod(lambda cls, weight: False)
    if "joint conjunctions" in ingredients:
        conjunction._weights = one_row


def answer(question: dict) -> None:
    """One question, in a process of its own: a line of JSON."""
    import mipverify
    from mipverify.parallel import cores

    put_out_of_use(question["without"])
    network = mipverify.load(question["network"])
    if "property" in question:
        specification = mipverify.load_vnnlib(question["property"])
    else:
        data = mipverify.load_dataset(question["data"]).fit_to(network.input_shape)
        image, label = data.image(question["index"]), data.label(question["index"])
        specification = mipverify.robustness(image, label, question["eps"], num_classes=network.output_size)
    stages = stages_without(question["without"])
    workers = cores() if {"cores", *PARTS}.isdisjoint(question["without"]) else 1
    verdict = mipverify.verify(network, specification, timeout=question["cap"], stages=stages, workers=workers)
    nodes = verdict.statistics.get("nodes", 0)
    print(json.dumps({"verdict": verdict.verdict, "stage": verdict.stage, "nodes": nodes}))


def questions(args: argparse.Namespace) -> list[dict]:
    """What to ask, in order."""
    asked = []
    if args.robustness:
        network, data, eps, span = args.robustness
        for index in range(*map(int, span.split(":"))):
            asked.append(
                {"name": f"{Path(network).stem} {index}", "network": network, "data": data, "index": index, "eps": eps}
            )
    elif args.instances:
        root = args.instances.parent
        for row in csv.reader(args.instances.open()):
            if row[1].endswith(("onnx", "gz")) and (args.match is None or re.search(args.match, " ".join(row))):
                name = f"{Path(row[1]).name.split('.onnx')[0]} {Path(row[2]).name.split('.vnnlib')[0]}"
                asked.append({"name": name, "network": str(root / row[1]), "property": str(root / row[2])})
    return asked[:: args.every]


def main() -> None:
    """Ask everything, print each answer and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=Path)
    parser.add_argument("--match", help="a regular expression")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--robustness", nargs=4, metavar=("NET", "DATA", "EPS", "BEGIN:END"))
    parser.add_argument("--cap", type=float, default=120.0)
    parser.add_argument("--without", nargs="+", default=[], choices=INGREDIENTS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.answer:
        answer(json.loads(args.answer))
        return
    rows = []
    for question in questions(args):
        given = json.dumps({**question, "cap": args.cap, "without": args.without})
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--answer", given], capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - start
        found = json.loads(done.stdout) if done.returncode == 0 else {"verdict": "failed", "stage": "", "nodes": 0}
        rows.append([question["name"], found["verdict"], found["stage"], found["nodes"], round(seconds, 2)])
        print(
            f"{seconds:8.2f} s  {found['verdict']:9} {found['stage']:20} {found['nodes']:8}  {question['name']}",
            flush=True,
        )
    decided = [row for row in rows if row[1] in ("holds", "violated")]
    seconds = [row[4] for row in rows]
    if rows:
        middle, most = statistics.median(seconds), max(seconds)
        decided_in = ", ".join(f"{limit:g} s: {sum(row[4] <= limit for row in decided)}" for limit in (2, 5, 20))
        print(f"{len(decided)} of {len(rows)} decided ({decided_in}); median {middle:.2f} s, largest {most:.2f} s")
    if args.out:
        with args.out.open("w", newline="") as file:
            csv.writer(file).writerows([["question", "verdict", "stage", "nodes", "seconds"], *rows])


if __name__ == "__main__":
    main()
