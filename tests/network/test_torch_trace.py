"""Modules with wrapped layers, compiled code and optional arguments are read as what they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import mipverify  # noqa: E402
from mipverify.network import Network  # noqa: E402
from mipverify.network.replay import replay_of  # noqa: E402


def _module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class Options(nn.Module):
    """Its forward asks what its optional arguments are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _module()

    def forward(self, x: Any, mask: Any = None, scale: float = 2.0, *, negative: bool = False) -> Any:
        y = self.inner(x if mask is None else x * mask) * scale
        return -y if negative else y


def compiled_forward() -> nn.Module:
    """Made where it is used: `torch.compile` loads a compiler, for which all who list the tests would wait."""

    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _module()

        @torch.compile
        def forward(self, x: Any) -> Any:
            return 2 * self.inner(x)

    return Compiled()


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "compiled layers": lambda: nn.Sequential(torch.compile(_module()), nn.ReLU()),
    "compiled forward": compiled_forward,
    "shared out between devices": lambda: nn.Sequential(nn.DataParallel(_module()), nn.ReLU()),
    "averaged": lambda: nn.Sequential(torch.optim.swa_utils.AveragedModel(_module()), nn.ReLU()),
    "options": Options,
    "wrapped options": lambda: nn.DataParallel(torch.compile(Options())),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRAPPED)
def test_is_read_and_runs_as_it_is_written(name: str) -> None:
    module = WRAPPED[name]()
    network = Network.from_torch(module, (4,))
    x = torch.rand(5, 4)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = module(x).numpy()
    np.testing.assert_allclose(network.forward(x[:, None].numpy().astype(np.float64))[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(replay_of(network).run(x.numpy()), expected, atol=1e-6)
    assert mipverify.verify(module, x[0], eps="1e-4").verdict == "holds"
