"""Two instances of a benchmark, one of which holds, and another tool that gets one of them wrong.

Writes a folder as VNN-COMP lays them out, runs it and compares: `python examples/benchmark.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from mipverify.benchmark.run import BenchmarkLimits, run_benchmark

INPUTS, OUTPUTS = 784, 10


def property_text(low: float, high: float, condition: str) -> str:
    """All pixels between two values, and what must not happen."""
    lines = [f"(declare-const X_{i} Real)" for i in range(INPUTS)]
    lines += [f"(declare-const Y_{k} Real)" for k in range(OUTPUTS)]
    lines += [f"(assert (>= X_{i} {low}))\n(assert (<= X_{i} {high}))" for i in range(INPUTS)]
    return "\n".join([*lines, f"(assert {condition})"]) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "example"
        (place / "onnx").mkdir(parents=True)
        (place / "vnnlib").mkdir()
        shutil.copy(str(files("mipverify.models.zoo") / "mnist_small_linf0.1.onnx"), place / "onnx" / "net.onnx")
        (place / "vnnlib" / "high.vnnlib").write_text(property_text(0, 0.05, "(>= Y_0 1000)"))
        (place / "vnnlib" / "low.vnnlib").write_text(property_text(0, 0.05, "(<= Y_0 1000)"))
        rows = [f"onnx/net.onnx,vnnlib/{name}.vnnlib" for name in ("high", "low")]
        (place / "instances.csv").write_text("".join(f"{row},30\n" for row in rows))
        other = Path(folder) / "hasty.csv"
        other.write_text("".join(f"example,{row},0,unsat,0.5\n" for row in rows))

        run = Path(folder) / "run"
        result = run_benchmark(str(place), out=str(run), limits=BenchmarkLimits(cap=20), against=[str(other)])
        for tool, standing in result.summary["standings"]["all"].items():
            print(f"{tool}: {standing['solved']} solved, {standing['wrong']} wrong, score {standing['score']}")
        for one in result.scores.contradictions:
            print(f"{', '.join(one.wrong)} is wrong about {one.outcome.vnnlib}: {one.outcome.replay} counterexample")


if __name__ == "__main__":
    main()
