"""What of a module is not in its layers: hooks, weights computed by them, and modules that hold nothing to be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import mipverify  # noqa: E402
from mipverify.errors import InputError  # noqa: E402
from mipverify.network import Network  # noqa: E402


def _module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def test_a_hook_that_changes_values_is_refused() -> None:
    module = _module()
    module[1].register_forward_hook(lambda layer, given, result: 2 * result)
    with pytest.raises(InputError, match=r"hooks \(the first of them on '1'\)"):
        Network.from_torch(module, (4,))
    module = _module()
    module[2].register_forward_pre_hook(lambda layer, given: (given[0] - 1,))
    with pytest.raises(InputError, match=r"hooks \(the first of them on '2'\)"):
        Network.from_torch(module, (4,))
    module = _module()
    module.register_forward_hook(lambda layer, given, result: -result)
    with pytest.raises(InputError, match="on the module itself"):
        Network.from_torch(module, (4,))


def test_a_hook_that_looks_on_is_none_of_our_business() -> None:
    module, seen = _module(), []
    module[1].register_forward_hook(lambda layer, given, result: seen.append(float(result.max())))
    with torch.autocast("cpu", torch.bfloat16):
        network = Network.from_torch(module, (4,))
    assert network.output_size == 3
    assert seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("normalize", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_hooks_compute_are_those_of_the_present_parameters(normalize: Any) -> None:
    module = _module()
    normalize(module[0])
    module.train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = [buffer.clone() for buffer in module.buffers()]
    network = Network.from_torch(module, (4,))
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))
    x = torch.rand(5, 4)
    with torch.no_grad():
        np.testing.assert_allclose(network.forward(x[:, None])[:, 0], module.eval()(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_modules_without_code_or_values_are_refused() -> None:
    x = torch.full((4,), 0.5)
    lazy = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3))
    meta = nn.Sequential(nn.Linear(4, 3, device="meta"))
    for module, said in (
        (torch.jit.script(_module()), "scripted"),
        (nn.Sequential(torch.jit.script(_module()), nn.ReLU()), "scripted"),
        (lazy, "no shape yet"),
        (meta, "device meta"),
    ):
        with pytest.raises(InputError, match=said):
            mipverify.verify(module, x, eps="0.1")
        with pytest.raises(InputError, match=said):
            Network.from_torch(module, (4,))


def test_a_context_of_mixed_precision_changes_nothing() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        verdict = mipverify.verify(_module(), torch.full((4,), 0.5), eps="0.001")
    assert verdict.verdict == "holds"


def test_a_module_in_half_precision_inside_is_refused() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _module()

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(x)

    with pytest.raises(InputError, match="not what runs"):
        mipverify.verify(Half(), torch.full((4,), 0.5), eps="0.1")
