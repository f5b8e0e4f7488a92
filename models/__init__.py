"""Training networks that verify fast: losses from bounds, pruning, attacks, and counters of what is left undecided."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipverify.models.adversarial import adversarial_loss, pgd_attack
    from mipverify.models.certified import certified_loss, certified_margins, margins_from
    from mipverify.models.counting import UnstableUnits, unstable_units
    from mipverify.models.differentiable import input_box, training_bounds
    from mipverify.models.initialization import ibp_initialization
    from mipverify.models.lightning import StabilityCallback as StabilityCallback
    from mipverify.models.losses import AdversarialLoss, CertifiedLoss, ReLUStabilityLoss, WeightSparsity
    from mipverify.models.metrics import UnstableUnitsMetric as UnstableUnitsMetric
    from mipverify.models.normalization import clean_statistics
    from mipverify.models.pruning import MaskedReLU, make_permanent, prune_relus, prune_small_weights
    from mipverify.models.schedules import GradientShare, RadiusSchedule, Schedule
    from mipverify.models.small_boxes import small_box_centers
    from mipverify.models.sparsity import weight_sparsity
    from mipverify.models.stability import relu_stability_loss, stability_terms
    from mipverify.models.traced import Traced
    from mipverify.models.warmup import warmup_regularizer, warmup_terms

# Resolved on first use: torch takes longer to import than most questions take to answer.
_HOMES = {
    "MaskedReLU": "pruning",
    "AdversarialLoss": "losses",
    "CertifiedLoss": "losses",
    "GradientShare": "schedules",
    "RadiusSchedule": "schedules",
    "ReLUStabilityLoss": "losses",
    "Schedule": "schedules",
    "StabilityCallback": "lightning",
    "Traced": "traced",
    "UnstableUnits": "counting",
    "UnstableUnitsMetric": "metrics",
    "WeightSparsity": "losses",
    "adversarial_loss": "adversarial",
    "certified_loss": "certified",
    "certified_margins": "certified",
    "clean_statistics": "normalization",
    "ibp_initialization": "initialization",
    "input_box": "differentiable",
    "make_permanent": "pruning",
    "margins_from": "certified",
    "pgd_attack": "adversarial",
    "prune_relus": "pruning",
    "prune_small_weights": "pruning",
    "relu_stability_loss": "stability",
    "small_box_centers": "small_boxes",
    "stability_terms": "stability",
    "training_bounds": "differentiable",
    "unstable_units": "counting",
    "warmup_regularizer": "warmup",
    "warmup_terms": "warmup",
    "weight_sparsity": "sparsity",
}

# Not StabilityCallback and UnstableUnitsMetric, whose extra may be missing: `import *` must work without.
__all__ = [
    "AdversarialLoss",
    "CertifiedLoss",
    "GradientShare",
    "MaskedReLU",
    "RadiusSchedule",
    "ReLUStabilityLoss",
    "Schedule",
    "Traced",
    "UnstableUnits",
    "WeightSparsity",
    "adversarial_loss",
    "certified_loss",
    "certified_margins",
    "clean_statistics",
    "ibp_initialization",
    "input_box",
    "make_permanent",
    "margins_from",
    "pgd_attack",
    "prune_relus",
    "prune_small_weights",
    "relu_stability_loss",
    "small_box_centers",
    "stability_terms",
    "training_bounds",
    "unstable_units",
    "warmup_regularizer",
    "warmup_terms",
    "weight_sparsity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
