#!/usr/bin/env python3
"""What proofs cost: user seconds of questions without and with a proof file, of checking it, and its size.

benchmarks/proofs.py instances DIR [--benchmark acasxu] [--match RE] [--every 3] [--limit 40] [--cap 15]
benchmarks/proofs.py report NET DATA --eps 0.1 [--samples 0:200] [--workers 1]

instances: DIR/instances.csv names networks and properties as VNN-COMP does, with a column `benchmark`, `onnx` and
`vnnlib`. Each question is asked without and with `--proof` in turn, each a process of its own, and what is proven is
checked. report: one report without and one with `--proofs`, whose proofs are then all checked by `mipverify check DIR`.
Every proof that is not verified is named, and the exit status is 1 then. Seconds of checking include the start of a
process, for each proof of an instance and for each worker of a report.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HOLDS, UNDECIDED = 0, 3


@dataclass
class Costs:
    """Of one benchmark. asked, held, proven: how many questions; ratios and kilobytes of those that were proven."""

    asked: int = 0
    held: int = 0
    proven: int = 0
    with_proof: list[float] = field(default_factory=list)
    checking: list[float] = field(default_factory=list)
    kilobytes: list[float] = field(default_factory=list)


def run(*arguments: object) -> tuple[int, float]:
    """The exit code of `mipverify`, and the user seconds of it and all that it started."""
    command = [sys.executable, "-m", "mipverify", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # somebody else has waited for it
    return process.returncode, usage.ru_utime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    instances = kinds.add_parser("instances")
    instances.add_argument("folder", type=Path)
    instances.add_argument("--benchmark", action="append", help="only this one; may be given several times")
    instances.add_argument("--match", default="", help="regular expression on 'onnx vnnlib'")
    instances.add_argument("--every", type=int, default=1)
    instances.add_argument("--limit", type=int, help="questions of each benchmark")
    instances.add_argument("--cap", type=float, default=15.0, help="seconds for each question")
    report = kinds.add_parser("report")
    report.add_argument("network", type=Path)
    report.add_argument("data", type=Path)
    report.add_argument("--eps", required=True)
    report.add_argument("--samples", default="0:200")
    report.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        return (of_instances if options.kind == "instances" else of_report)(options, Path(place))


def of_instances(options: argparse.Namespace, place: Path) -> int:
    """Question by question, a table by benchmark at the end."""
    costs: dict[str, Costs] = defaultdict(Costs)
    wrong = 0
    with (options.folder / "instances.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if re.search(options.match, f"{row['onnx']} {row['vnnlib']}")]
    for row in rows[:: options.every]:
        found = costs[row["benchmark"]]
        if (options.benchmark and row["benchmark"] not in options.benchmark) or found.asked == options.limit:
            continue
        files = options.folder / row["onnx"], options.folder / row["vnnlib"]
        limits = "--timeout", options.cap, "--workers", 1
        proof = place / "proof"
        proof.unlink(missing_ok=True)
        code, plain = run("verify", *files, *limits)
        proven, recorded = run("verify", *files, *limits, "--proof", proof)
        found.asked += 1
        found.held += code == HOLDS
        told = f"{plain:.2f} s, {recorded:.2f} s with a proof"
        if proven == HOLDS:
            checked, seconds = run("check", proof, *files)
            wrong += checked != 0
            found.proven += 1
            found.with_proof.append(recorded / plain if code == HOLDS else float("inf"))
            found.checking.append(seconds / recorded)
            found.kilobytes.append(proof.stat().st_size / 1000)
            told += (
                f", {'verified' if checked == 0 else 'NOT VERIFIED'} in {seconds:.2f} s, {found.kilobytes[-1]:.1f} kB"
            )
        print(f"{row['benchmark']} {files[0].name} {files[1].name}: exit code {code} and {proven}, {told}", flush=True)
    print("\nbenchmark, asked, hold, proven; medians: with by without, checking by solving, kB")
    for name, found in costs.items():
        if found.proven:
            medians = [statistics.median(own) for own in (found.with_proof, found.checking, found.kilobytes)]
            print(f"{name}, {found.asked}, {found.held}, {found.proven}; " + ", ".join(f"{v:.2f}" for v in medians))
        elif found.asked:
            print(f"{name}, {found.asked}, {found.held}, 0")
    return int(wrong > 0)


def of_report(options: argparse.Namespace, place: Path) -> int:
    """Without, with, and checking."""
    asked = [
        "report", options.network, "--data", options.data, "--eps", options.eps, "--samples", options.samples,
        "--workers", options.workers,
    ]  # fmt: skip
    seconds = {}
    for name, more in (("without", []), ("with", ["--proofs"])):
        code, seconds[name] = run(*asked, "--out", place / name, *more)
        if code not in (HOLDS, UNDECIDED):
            sys.exit(f"the report {name} proofs ended with exit code {code}")
    begin = time.monotonic()
    _, seconds["check"] = run("check", place / "with", "--workers", options.workers)
    passed = time.monotonic() - begin
    with (place / "with" / "samples.csv").open() as file:
        judged = [row for row in csv.DictReader(file) if row["proof_state"]]
    for row in judged:
        if row["proof_state"] != "verified":
            print(f"not verified: sample {row['index']}: {row['proof_check']}")
    summary = json.loads((place / "with" / "summary.json").read_text())
    size = sum(path.stat().st_size for path in (place / "with" / "proofs").iterdir()) / 1e6
    verified = sum(row["proof_state"] == "verified" for row in judged)
    print(
        f"user s: {seconds['without']:.1f} without proofs, {seconds['with']:.1f} with, {seconds['check']:.1f} to check"
    )
    print(f"wall s: {summary['seconds']:.1f} with proofs, {passed:.1f} to check them")
    print(f"{verified} of {summary['holds']} verified, {size:.2f} MB")
    return int(verified != summary["holds"])


if __name__ == "__main__":
    sys.exit(main())
