"""Pruning: small weights to zero, and ReLUs that hardly ever switch to a constant or to the identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from mipverify.errors import InputError

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def prune_small_weights(module: nn.Module, threshold: float) -> dict[str, int]:
    """Set weights with |w| < threshold to zero for good [Xiao et al. 2019, section 3.2; 1e-3 there].

    The weights of linear and convolutional layers get masks of `torch.nn.utils.prune`, so that further training keeps
    the zeros; masks that are there already are kept. `make_permanent` removes them. Biases are left alone. Returns how
    many weights of each layer are zero now.
    """
    if not threshold >= 0:
        raise InputError(f"threshold {threshold}: at least 0 is needed")
    zeros = {}
    for name, part in module.named_modules():
        if weighted(part):
            prune.custom_from_mask(part, "weight", part.weight.detach().abs() >= threshold)
            zeros[name] = int((part.weight == 0).sum())
    return zeros


def weighted(part: nn.Module) -> bool:
    """Whether a layer's weights can be pruned."""
    return isinstance(part, _WEIGHTED)


def make_permanent(module: nn.Module) -> None:
    """Replace pruned weights by plain parameters that hold the zeros; training may move them again."""
    for part in module.modules():
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)


class MaskedReLU(nn.Module):
    """A ReLU some of whose units are constant zero and some linear [Xiao et al. 2019, section 3.2, ReLU pruning].

    kept, linear: boolean masks of the shape of one sample; units in neither are zero. Only the kept ones are ReLUs, in
    the module, in its ONNX export and in its network: data movement does the rest, exactly.
    """

    source: Tensor
    kept: Tensor
    linear: Tensor

    def __init__(self, kept: Tensor, linear: Tensor):
        super().__init__()
        if kept.shape != linear.shape or bool((kept & linear).any()):
            raise InputError("kept and linear must be disjoint masks of one shape")
        self.shape = tuple(kept.shape)
        kept, linear = kept.flatten(), linear.flatten()
        self._sizes = (int(kept.sum()), int(linear.sum()))
        # Output i is entry source[i] of [relu(kept units), linear units, 0].
        source = torch.full((len(kept),), sum(self._sizes))
        source[kept] = torch.arange(self._sizes[0])
        source[linear] = self._sizes[0] + torch.arange(self._sizes[1])
        self.register_buffer("source", source)
        self.register_buffer("kept", kept.nonzero()[:, 0])
        self.register_buffer("linear", linear.nonzero()[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and not torch.jit.is_tracing() and x.shape[1:] != self.shape:
            raise InputError(f"masks of shape {list(self.shape)} do not fit an input of shape {list(x.shape)}")
        flat = x.flatten(1)
        parts = [torch.relu(flat[:, self.kept])] if self._sizes[0] else []
        parts += [flat[:, self.linear]] if self._sizes[1] else []
        joined = nn.functional.pad(torch.cat(parts, 1), (0, 1)) if parts else 0 * flat[:, :1]
        return joined[:, self.source].reshape(-1, *self.shape)

    def extra_repr(self) -> str:
        zero = len(self.source) - len(self.kept) - len(self.linear)
        return f"{list(self.shape)}, kept={len(self.kept)}, linear={len(self.linear)}, zero={zero}"


@dataclass(frozen=True)
class PrunedReLUs:
    """What became of the units of one layer."""

    kept: int
    linear: int
    zero: int


def prune_relus(
    module: nn.Module,
    inputs: Tensor | Iterable[Tensor],
    fraction: float,
    *,
    attack: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, PrunedReLUs]:
    """Replace, in place, each `nn.ReLU` of the module by a `MaskedReLU` [Xiao et al. 2019, section 3.2].

    A unit active (argument above 0) on fewer than `fraction` of the inputs becomes 0, on more than 1 - fraction
    linear. inputs: (N, *shape), or batches of such; the paper counts on attacked training inputs: hand these over, or
    give `attack`, which is applied to each batch. Returns the counts for each layer. The network's function changes:
    evaluate it again. Repeated use prunes further. Functional `relu` calls are not seen.
    Raises InputError where there is no ReLU layer, or one is used more than once in a pass.
    """
    if not 0 <= fraction <= 0.5:
        raise InputError(f"fraction {fraction}: a number between 0 and 0.5 is needed")
    found: dict[str, nn.Module] = {
        name: part for name, part in module.named_modules() if isinstance(part, nn.ReLU | MaskedReLU)
    }
    if not found:
        raise InputError(f"{type(module).__name__} has no nn.ReLU layer to prune (functional calls are not seen)")
    share = activity(module, inputs, found, attack)
    counts = {}
    for name, part in found.items():
        kept = (share[name] >= fraction) & (share[name] <= 1 - fraction)
        linear = share[name] > 1 - fraction
        if isinstance(part, MaskedReLU):
            before = torch.zeros_like(kept).flatten()
            before[part.kept.cpu()] = True
            old = torch.zeros_like(before)
            old[part.linear.cpu()] = True
            before, old = before.reshape(kept.shape), old.reshape(kept.shape)
            kept, linear = kept & before, (linear & before) | old
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        masked = MaskedReLU(kept, linear).to(device)
        masked.train(part.training)
        _replace(module, name, masked)
        units, own, straight = kept.numel(), int(kept.sum()), int(linear.sum())
        counts[name] = PrunedReLUs(own, straight, units - own - straight)
    return counts


def activity(
    module: nn.Module,
    inputs: Tensor | Iterable[Tensor],
    layers: dict[str, nn.Module],
    attack: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The share of inputs (shape of one sample) for which each unit of the `layers` has an argument above 0."""
    active: dict[str, Tensor] = {}
    calls = dict.fromkeys(layers, 0)

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            now = (arguments[0].detach() > 0).sum(0).cpu()
            active[name] = active[name] + now if name in active else now

        return hook

    count, batches = 0, 0
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        for batch in inputs.split(256) if isinstance(inputs, Tensor) else inputs:
            points = batch if attack is None else attack(batch)
            handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
            try:
                with torch.no_grad():
                    module(points)
            finally:
                for handle in handles:
                    handle.remove()
            count, batches = count + len(points), batches + 1
    finally:
        for part, mode in training:
            part.training = mode
    if not count:
        raise InputError("inputs to count activity on are needed")
    for name, times in calls.items():
        if times != batches:
            raise InputError(
                f"layer {name!r} is used {times // batches} times in a pass: give each use its own nn.ReLU"
            )
    return {name: total.double() / count for name, total in active.items()}


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, part)
