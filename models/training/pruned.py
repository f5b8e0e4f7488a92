"""Pruning a network that is kept in the directory of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mipverify.models.adversarial import pgd_attack
from mipverify.models.pruning import make_permanent, prune_relus, prune_small_weights, weighted
from mipverify.models.quick import attack_twin
from mipverify.models.training.data import Images
from mipverify.models.training.files import read_network, read_record, write_network, write_record
from mipverify.models.training.loop import weights_sha256
from torch import nn

from mipverify.errors import InputError

ATTACK_STEPS = 8


def keep_zeros(module: nn.Module) -> None:
    """Let training leave alone the weights that are zero."""
    if any(bool((p == 0).any()) for p in module.parameters() if p.ndim > 1):
        prune_small_weights(module, torch.finfo(torch.float32).tiny)


def prune_run(
    source: str | Path,
    out: Path,
    *,
    weights: float | None = None,
    relus: float | None = None,
    images: Images | None = None,
    eps: float = 0.0,
) -> dict[str, Any]:
    """Prune the network of the run `source` and write it into `out`; returns what training.json says.

    weights   weights with |w| below it become zero
    relus     fraction of `images`, attacked at radius `eps` by PGD, below which (or above 1 minus which) a ReLU's
              activity makes it zero (or linear); needs `images`

    Raises InputError: there is no network in `source`, `out` holds one, or the images do not fit.
    """
    trained = read_network(source)
    if (out / "network.pt").exists() or (out / "checkpoint.pt").exists():
        raise InputError(f"--out {out}: holds a network already")
    module = trained.module
    record: dict[str, Any] = {"finished": True, "source": str(source), "source_sha256": weights_sha256(module)}
    if weights is not None:
        before = {name: int((part.weight == 0).sum()) for name, part in module.named_modules() if weighted(part)}
        zeros = prune_small_weights(module, weights)
        make_permanent(module)
        record["weights"] = {
            "threshold": weights,
            "zeros": zeros,
            "removed": {name: count - before[name] for name, count in zeros.items()},
            "sizes": {name: module.get_submodule(name).weight.numel() for name in zeros},  # type: ignore[operator]
        }
    if relus is not None:
        if images is None:
            raise InputError("images to count activity on are needed")
        if images.shape != trained.input_shape:
            raise InputError(f"{images.path}: images of shape {images.shape}, the network takes {trained.input_shape}")
        twin = attack_twin(module)
        labels = images.labels.split(256)
        batches = iter(labels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            counts = prune_relus(
                module,
                images.pixels,
                relus,
                attack=lambda x: pgd_attack(twin, x, next(batches), eps, steps=ATTACK_STEPS),
            )
        record["relus"] = {
            "fraction": relus,
            "eps": eps,
            "data_sha256": images.sha256,
            "images": len(images),
            "layers": {name: asdict(count) for name, count in counts.items()},
        }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from None
    write_network(out, trained)
    record |= {
        "architecture": trained.architecture,
        "input_shape": list(trained.input_shape),
        "classes": trained.classes,
        "weights_sha256": weights_sha256(module),
    }
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    if (folder / "training.json").exists():
        record["made_by"] = read_record(folder)
    write_record(out, record)
    return record
