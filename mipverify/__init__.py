"""Prove a piecewise-linear network robust, or find the counterexample."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError, MipverifyError

if TYPE_CHECKING:
    from mipverify.api.calls import adversarial_accuracy, minimum_distortion, verify, worst_margin
    from mipverify.api.compare import compare
    from mipverify.api.session import Session
    from mipverify.engine.difference import WorstDifference
    from mipverify.engine.distortion import Distortion
    from mipverify.engine.family import Family, blur, brightness_and_contrast, mixture
    from mipverify.engine.query import load_query
    from mipverify.engine.sample import SampleResult
    from mipverify.engine.verdict import Verdict, Witness
    from mipverify.engine.worst import WorstMargin
    from mipverify.formulation import embed, to_pulp
    from mipverify.network import Network, load
    from mipverify.proof_file import Proof
    from mipverify.report.curve import AccuracyCurve
    from mipverify.report.result import AccuracyResult
    from mipverify.specification import Dataset, Specification, load_dataset, load_vnnlib, robustness

__version__ = "0.1.0"

__all__ = [
    "AccuracyCurve",
    "AccuracyResult",
    "Dataset",
    "Distortion",
    "Family",
    "InputError",
    "MipverifyError",
    "Network",
    "Proof",
    "SampleResult",
    "Session",
    "Specification",
    "Verdict",
    "Witness",
    "WorstDifference",
    "WorstMargin",
    "__version__",
    "adversarial_accuracy",
    "blur",
    "brightness_and_contrast",
    "compare",
    "embed",
    "load",
    "load_dataset",
    "load_query",
    "load_vnnlib",
    "minimum_distortion",
    "mixture",
    "robustness",
    "to_pulp",
    "verify",
    "worst_margin",
]

# Resolved on first use: `mipverify --version` and `import mipverify` must not pay for numpy and onnx.
_HOMES = {
    "AccuracyCurve": "mipverify.report.curve",
    "AccuracyResult": "mipverify.report.result",
    "adversarial_accuracy": "mipverify.api.calls",
    "Distortion": "mipverify.engine.distortion",
    "compare": "mipverify.api.compare",
    "embed": "mipverify.formulation",
    "minimum_distortion": "mipverify.api.calls",
    "Family": "mipverify.engine.family",
    "blur": "mipverify.engine.family",
    "brightness_and_contrast": "mipverify.engine.family",
    "mixture": "mipverify.engine.family",
    "Network": "mipverify.network",
    "Dataset": "mipverify.specification",
    "Proof": "mipverify.proof_file",
    "SampleResult": "mipverify.engine.sample",
    "Session": "mipverify.api.session",
    "Specification": "mipverify.specification",
    "Verdict": "mipverify.engine",
    "load": "mipverify.network",
    "load_dataset": "mipverify.specification",
    "load_query": "mipverify.engine.query",
    "load_vnnlib": "mipverify.specification",
    "robustness": "mipverify.specification",
    "to_pulp": "mipverify.formulation",
    "verify": "mipverify.api.calls",
    "Witness": "mipverify.engine.verdict",
    "WorstDifference": "mipverify.engine.difference",
    "WorstMargin": "mipverify.engine.worst",
    "worst_margin": "mipverify.api.calls",
}


# Sub-packages that `import mipverify` makes known, and loads on first use.
_ROOMS = ("models", "presolve", "proof", "solvers")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
