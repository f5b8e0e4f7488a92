"""Alter the kernel in one place at a time and see whether the checks of its rules notice.

    python scripts/mutate_kernel.py [--match REGEX] [--seeds 12] [--jobs 2]

tests/proof/mutations.txt lists what is altered: an error term dropped, a sign flipped, a case skipped. Each altered
module is loaded in a process of its own, and all checks of tests/proof/oracle.py run on it. Exit status 1 if one goes
unnoticed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNEL, TABLE = ROOT / "mipverify" / "proof", ROOT / "tests" / "proof" / "mutations.txt"

RUN = """
import importlib.abc, importlib.util, sys, warnings
import numpy as np

sys.path.insert(0, {root!r})
name, path, source = "mipverify.proof." + {module!r}, {path!r}, sys.stdin.read()

class Altered(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, wanted, *_):
        return importlib.util.spec_from_file_location(name, path, loader=self) if wanted == name else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(source, path, "exec"), module.__dict__)

sys.meta_path.insert(0, Altered())
warnings.simplefilter("ignore")
from tests.proof.oracle import CHECKS

for seed in range({seeds}):
    for check in CHECKS.values():
        check(np.random.default_rng(seed))
"""


def mutations() -> Iterator[tuple[str, str, str]]:
    """Module, what stands there, and what is put in its place."""
    text = "\n".join(line for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    for block in text.strip().split("\n\n"):
        module, old, new = block.splitlines()
        yield module, old.removeprefix("- "), new.removeprefix("+ ")


def noticed(module: str, old: str, new: str, seeds: int) -> str | None:
    """What the checks say of the altered module; None where they notice nothing.

    Raises ValueError where the text that is to be altered is not there, or the module does not run.
    """
    path = KERNEL / f"{module}.py"
    source = path.read_text()
    if old not in source:
        raise ValueError(f"{path.name} does not hold {old!r}")
    code = RUN.format(root=str(ROOT), module=module, path=str(path), seeds=seeds)
    altered = source.replace(old, new)
    done = subprocess.run([sys.executable, "-c", code], input=altered, capture_output=True, text=True, cwd=ROOT)
    said = done.stderr.strip().splitlines()[-1][:100] if done.returncode else None
    if said is not None and said.startswith(("SyntaxError", "ImportError", "NameError")):
        raise ValueError(f"{path.name} does not run: {said}")  # whatever was altered
    return said


def main() -> None:
    """Try all mutations that match."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", help="regular expression on 'module: text'")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    args = parser.parse_args()
    chosen = [m for m in mutations() if re.search(args.match, f"{m[0]}: {m[1]}")]
    escaped = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        answers = pool.map(lambda mutation: noticed(*mutation, args.seeds), chosen)
        for (module, old, _), said in zip(chosen, answers, strict=True):
            escaped += said is None
            print(f"{'caught ' if said else 'ESCAPED'}  {module}: {old[:70]}  {said or ''}", flush=True)
    print(f"{len(chosen) - escaped} of {len(chosen)} caught")
    sys.exit(escaped > 0)


if __name__ == "__main__":
    main()
