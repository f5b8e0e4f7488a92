"""The public conformance suite of VNN-LIB solvers (the extra `conformance`): no wrong answer, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mipverify.cli.vnnlib import main

# What is refused, and why: a question that is not piecewise linear, or that the official parser refuses.
REFUSED = {
    **{f"arithmetic_poly0{k}": "a product of two variables" for k in range(1, 5)},
    **{f"div0{k}": "the divisor" for k in range(1, 5)},
    **{f"pow0{k}": "Pow" for k in range(1, 7)},
    "mul03": "a product of two tensors",
    "network_isomorphic01": "Type mismatch",
    "softmax05": "Softmax",
}


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("vnntest", reason="the extra `conformance` is not installed")
    from vnntest.core.generator import generate_all_tests

    monkeypatch.chdir(tmp_path)
    found = generate_all_tests()
    return {entry["name"]: (entry, tmp_path / ".vnnlib-satisfactory" / "tests" / entry["category"]) for entry in found}


@pytest.mark.slow
def test_no_answer_is_wrong(cases, capfd) -> None:
    refused: dict[str, str] = {}
    for name, (entry, folder) in cases.items():
        files = [f"{network}={folder / file}" for network, file in entry["networks"].items()]
        networks = [part for file in files for part in ("--network", file)]
        code = main(["verify", str(folder / entry["vnnlib"]), *networks, "--timeout", "60", "--workers", "1"])
        shown = capfd.readouterr()
        if code == 2:
            refused[name] = shown.err
            continue
        assert (code, shown.out.split("\n", 1)[0]) == (0, entry["expected"].lower()), (name, shown)
    assert set(refused) <= set(REFUSED)
    assert all(REFUSED[name] in reason for name, reason in refused.items())
    assert len(cases) - len(refused) >= 161


def test_the_command_line_is_as_the_standard_says(tmp_path: Path) -> None:
    compliance = pytest.importorskip("vnntest.core.compliance", reason="the extra `conformance` is not installed")
    solver = tmp_path / "solver"
    solver.write_text(f"#!{sys.executable} -P\nimport sys\nfrom mipverify.cli.vnnlib import main\nsys.exit(main())\n")
    solver.chmod(0o755)
    for check in ("check_opset_versions", "check_vnnlib_versions", "check_serialise_assignments"):
        passed, message = getattr(compliance, check)(str(solver), timeout=60)
        assert passed, message
