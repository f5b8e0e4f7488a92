"""State dicts of PyTorch with an architecture given in Python."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from mipverify import InputError, load  # noqa: E402
from mipverify.network import Network  # noqa: E402
from mipverify.network.formats import convert  # noqa: E402
from mipverify.network.formats.export import to_onnx  # noqa: E402
from tests.formats.sources import assert_close, outputs  # noqa: E402
from tests.network.architectures import architectures  # noqa: E402

ARCHITECTURES = architectures()
PLAIN = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))

def ranked():
    return nn.Sequential(build(), nn.Softmax(dim=1))

def other():
    return nn.Linear(3, 3)

def number():
    return 3

def broken():
    raise RuntimeError("no such thing")
"""


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    made[1].running_mean.normal_()
    made[1].running_var.uniform_(0.5, 2)
    return made.eval()


@pytest.fixture
def folder(module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model.py").write_text(PLAIN)
    torch.save(module.state_dict(), tmp_path / "net.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_that_is_imported_can_be_written(name: str, tmp_path: Path) -> None:
    module, shape = ARCHITECTURES[name]
    module.eval()
    (tmp_path / "net.onnx").write_bytes(to_onnx(Network.from_torch(module, shape)).SerializeToString())
    x = torch.randn(4, *shape)
    with torch.no_grad():
        expected = module(x).reshape(4, -1).numpy()
    assert_close(outputs(tmp_path / "net.onnx", x.numpy()), expected)
    read = load(tmp_path / "net.onnx")
    assert_close(read.forward(x[:, None].numpy()).reshape(4, -1), expected)
    assert len(read.relus) == len(Network.from_torch(module, shape).relus)


def test_state_dict(module: nn.Module, folder: Path) -> None:
    done = convert("net.pth", "net.onnx", architecture="model.py:build", input_shape=(1, 8, 8))
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert_close(outputs(folder / "net.onnx", x.numpy()), module(x).numpy())
    assert (done.input_shape, done.output_shape) == ((1, 8, 8), (3,))


def test_an_architecture_that_imports_its_neighbours(folder: Path) -> None:
    Path("sub").mkdir()
    Path("sub/neighbour_of_net.py").write_text(PLAIN)
    source = "from dataclasses import dataclass\nfrom neighbour_of_net import build as b\n"
    Path("sub/net.py").write_text(source + "\n@dataclass\nclass C:\n    n: int = 1\n\ndef build():\n    return b()\n")
    convert("net.pth", "net.onnx", architecture="sub/net.py:build", input_shape=(1, 8, 8))
    sys.modules.pop("neighbour_of_net")


def test_where_frameworks_put_it(module: nn.Module, folder: Path) -> None:
    state = module.state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, "deep.pt")
    convert("deep.pt", "deep.onnx", architecture="model.py:build", input_shape=(1, 8, 8))
    convert("net.pth", "net.onnx", architecture="model.py:build", input_shape=(1, 8, 8))
    assert Path("deep.onnx").read_bytes() == Path("net.onnx").read_bytes()


def test_a_softmax_at_the_end_is_dropped_and_said(module: nn.Module, folder: Path) -> None:
    torch.save({f"0.{name}": value for name, value in module.state_dict().items()}, "ranked.pth")
    done = convert("ranked.pth", "net.onnx", architecture="model.py:ranked", input_shape=(1, 8, 8))
    assert done.difference is None
    assert any("dropped" in note for note in done.notes)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert_close(outputs(folder / "net.onnx", x.numpy()), module(x).numpy())


def test_no_code_in_a_weight_file_is_run(module: nn.Module, folder: Path) -> None:
    torch.save(module, "whole.pth")
    with pytest.raises(InputError, match="state_dict"):
        convert("whole.pth", "net.onnx", architecture="model.py:build", input_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("model.py:other", "does not fit"),
        ("model.py:number", "returns int"),
        ("model.py:broken", "no such thing"),
        ("model.py:absent", "absent"),
        ("none.py:build", "no file none.py"),
        ("model.py", "FILE.py:FUNCTION"),
    ],
)
def test_an_architecture_that_cannot_be_used(architecture: str, words: str, folder: Path) -> None:
    with pytest.raises(InputError, match=words) as error:
        convert("net.pth", "net.onnx", architecture=architecture, input_shape=(1, 8, 8))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x02}q\x00."])
def test_a_damaged_file(content: bytes, folder: Path) -> None:
    Path("bad.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.pth"):
        convert("bad.pth", "net.onnx", architecture="model.py:build", input_shape=(1, 8, 8))
    assert not Path("net.onnx").exists()


def test_weights_that_are_not_finite(module: nn.Module, folder: Path) -> None:
    state = module.state_dict()
    state["4.bias"] = torch.full((3,), float("nan"))
    torch.save(state, "nan.pth")
    with pytest.raises(InputError, match=r"nan\.pth.*4\.bias.*NaN"):
        convert("nan.pth", "net.onnx", architecture="model.py:build", input_shape=(1, 8, 8))


def test_an_input_shape_that_does_not_fit(folder: Path) -> None:
    with pytest.raises(InputError, match=r"net\.pth"):
        convert("net.pth", "net.onnx", architecture="model.py:build", input_shape=(3, 8, 8))


def test_numbers_beyond_float32(folder: Path) -> None:
    state = {"weight": torch.eye(3, dtype=torch.float64) * 1e300, "bias": torch.zeros(3, dtype=torch.float64)}
    torch.save(state, "large.pth")
    Path("model.py").write_text("from torch import nn\n\ndef build():\n    return nn.Linear(3, 3).double()\n")
    with pytest.raises(InputError, match="float32"):
        convert("large.pth", "net.onnx", architecture="model.py:build", input_shape=(3,))


def test_what_is_written_is_a_file_for_any_batch_size(folder: Path) -> None:
    convert("net.pth", "net.onnx", architecture="model.py:build", input_shape=(1, 8, 8))
    x = np.random.default_rng(0).normal(size=(7, 1, 8, 8))
    together = outputs(folder / "net.onnx", x)
    single = np.concatenate([outputs(folder / "net.onnx", row[None]) for row in x])
    np.testing.assert_allclose(together, single, atol=1e-6)


def test_pooling_takes_as_much_room_as_it_has_windows(tmp_path: Path) -> None:
    """As a matrix it would take more than a gigabyte."""
    module = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6144, 2)).eval()
    model = to_onnx(Network.from_torch(module, (3, 32, 32)))
    assert model.ByteSize() < 2_000_000
    path = tmp_path / "pooled.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        assert_close(outputs(path, x), module(torch.from_numpy(x)).numpy())
