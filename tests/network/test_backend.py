"""ONNX's own test cases: each is read right, or refused by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from mipverify.errors import InputError
from mipverify.network import load
from tests.network.backend_cases import Case, cases

AT_LEAST_EQUAL = 439


def _judged(case: Case, path: Path) -> str:
    path.write_bytes(case.model.SerializeToString())
    try:
        network = load(path)
    except InputError as error:
        assert "\n" not in str(error)
        return "refused"
    if network.order_only:
        return "order only"
    y = network.forward(case.x.astype(np.float64).reshape(1, *network.input_shape))[0]
    assert y.shape == case.expected.shape, case.name
    np.testing.assert_allclose(
        y, case.expected, rtol=max(case.rtol, 1e-5), atol=max(case.atol, 1e-5), err_msg=case.name
    )
    return "equal"


def test_cases_of_onnx(tmp_path: Path) -> None:
    """None differs and none ends in a failure of ours; what is refused is refused as bad input."""
    with np.errstate(all="ignore"):
        verdicts = Counter(_judged(case, tmp_path / "net.onnx") for case in cases())
    assert verdicts["equal"] >= AT_LEAST_EQUAL, verdicts
