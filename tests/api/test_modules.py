"""Public calls on torch modules: whatever they are wrapped in, answered as their export, and left as they were."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import mipverify  # noqa: E402
from mipverify.errors import InputError  # noqa: E402

EPS = 0.02


class Branches(nn.Module):
    """A module with functional calls, cat and view, and a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.Linear(5 * 36, 3)

    def forward(self, x: Any) -> Any:
        y = nn.functional.dropout(torch.relu(self.norm(self.conv(x))), 0.5, self.training)
        return self.last(torch.cat([x, y], 1).view(x.shape[0], -1))


def branches() -> nn.Module:
    torch.manual_seed(0)
    module = Branches()
    module(torch.rand(16, 2, 6, 6))  # running statistics
    return module


def images(count: int = 3) -> Any:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def state(module: nn.Module) -> tuple[Any, ...]:
    tensors = io.BytesIO()
    torch.save(module.state_dict(), tensors)
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    modes = [part.training for part in module.modules()]
    return tensors.getvalue(), grads, modes, [p.requires_grad for p in module.parameters()], torch.get_rng_state()


def assert_unchanged(before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    assert before[0] == after[0]
    for a, b in zip(before[1], after[1], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert before[2:4] == after[2:4]
    assert torch.equal(before[4], after[4])


QUESTIONS = {
    "verify": lambda model, x, y: [v.verdict for v in mipverify.verify(model, x, y, eps=EPS, timeout=20)],
    "worst_margin": lambda model, x, y: [w.status for w in mipverify.worst_margin(model, x, y, EPS, timeout=20)],
    "minimum_distortion": lambda model, x, y: [
        d.upper > 0 for d in mipverify.minimum_distortion(model, x, y, gap=0.5, timeout=20)
    ],
    "adversarial_accuracy": lambda model, x, y: [
        s.verdict for s in mipverify.adversarial_accuracy(model, x, y, EPS, workers=0).samples
    ],
    "of a loader": lambda model, x, y: [
        s.verdict
        for s in mipverify.adversarial_accuracy(
            model, DataLoader(TensorDataset(x, y), 2, shuffle=True), eps=EPS, workers=0
        ).samples
    ],
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_a_module_is_left_exactly_as_it_was(ask: Any) -> None:
    module = branches().train()
    module.norm.eval()  # frozen, as in finetuning
    module.last.bias.requires_grad_(False)
    x = images()
    module(x).sum().backward()
    before = state(module)
    assert len(ask(module, x, torch.tensor([0, 1, 2]))) == 3
    assert_unchanged(before, state(module))


WRAPPERS = {
    "module": lambda m: m,
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "both": lambda m: torch.compile(nn.DataParallel(m)),
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
    "training mode": lambda m: m.train(),
    "double": lambda m: m.double(),
}


KINDS = ["tensor", "array", "wants gradient", "double", "half", "channels last"]
# Every kind of input with a bare module and with one in all wrappers; the other wrappers with the two that differ most.
PAIRS = [(wrap, kind) for wrap in WRAPPERS for kind in KINDS if wrap in ("module", "both") or kind in ("array", "half")]


@pytest.mark.parametrize(("wrap", "kind"), PAIRS)
def test_the_same_answer_however_module_and_inputs_come(wrap: str, kind: str) -> None:
    plain, x = branches().eval(), images().half().float()
    labels = plain(x).argmax(1)
    asked = WRAPPERS[wrap](branches())
    given = {
        "tensor": lambda: x,
        "array": x.numpy,
        "wants gradient": lambda: x.clone().requires_grad_(),
        "double": x.double,
        "half": x.half,
        "channels last": lambda: x.contiguous(memory_format=torch.channels_last),
    }[kind]()
    specification = mipverify.robustness(x[0].numpy(), int(labels[0]), EPS, num_classes=3)
    expected = mipverify.verify(mipverify.Network.from_torch(plain, (2, 6, 6)), specification).verdict
    found = mipverify.verify(asked, given, eps=EPS)
    assert [type(v).__name__ for v in found] == ["Verdict"] * 3
    assert found[0].verdict == expected
    assert mipverify.verify(asked, given[0], labels[0], eps=EPS).verdict == expected
    assert mipverify.verify(asked, given[0], eps=EPS).verdict == expected
    assert mipverify.verify(asked, specification, input_shape=(2, 6, 6)).verdict == expected


def test_processes_verify_modules_whose_code_they_do_not_have() -> None:
    x, y = images(4), torch.tensor([0, 1, 2, 0])
    here = mipverify.adversarial_accuracy(branches(), x, y, EPS, workers=0)
    there = mipverify.adversarial_accuracy(branches(), TensorDataset(x, y), eps=EPS, workers=1)
    assert [s.verdict for s in here.samples] == [s.verdict for s in there.samples]
    first = mipverify.adversarial_accuracy(branches(), TensorDataset(x, y), eps=EPS, samples=2, workers=0)
    assert [s.verdict for s in first.samples] == [s.verdict for s in here.samples][:2]


@pytest.mark.parametrize(("sigmoid", "squeezed"), [(False, False), (True, False), (True, True)])
def test_one_logit_is_two_classes(sigmoid: bool, squeezed: bool) -> None:
    """f(x) = x_0 - x_1 (or its sigmoid): class 1 where it is positive, so that the distance is |x_0 - x_1| / 2."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: Any) -> Any:
            y = self.layer(x)
            y = y.squeeze(-1) if squeezed else y
            return torch.sigmoid(y) if sigmoid else y

    module = Head()
    with torch.no_grad():
        module.layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        module.layer.bias.zero_()
    x = torch.tensor([[0.75, 0.5], [0.25, 0.75]])
    found = mipverify.minimum_distortion(module, x)  # labels: 1 and 0
    np.testing.assert_allclose([f.upper for f in found], [0.125, 0.25], rtol=1e-3)
    for eps, word in (("0.12", "holds"), ("0.13", "violated")):
        assert mipverify.verify(module, x[0], 1, eps=eps).verdict == word
        assert mipverify.verify(module, x[0], 0, eps=eps).verdict == "violated"
    accuracy = mipverify.adversarial_accuracy(module, x, torch.tensor([1, 0]), "0.13", workers=1)
    assert [s.verdict for s in accuracy.samples] == ["violated", "holds"]


class Several(nn.Module):
    """Scores and features, as a dict, a tuple or an object."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        scores, features = self.a(x), self.b(x)
        return {"scores": scores, "features": features} if self.kind == "dict" else (features, scores)


@pytest.mark.parametrize(("kind", "output"), [("dict", "scores"), ("tuple", 1)])
def test_an_output_is_chosen_by_name_or_place(kind: str, output: Any) -> None:
    torch.manual_seed(0)
    module, x = Several(kind), torch.rand(2, 4)
    alone = mipverify.worst_margin(module.a, x, eps=EPS)
    chosen = mipverify.worst_margin(module, x, eps=EPS, output=output)
    np.testing.assert_allclose([w.lower for w in chosen], [w.lower for w in alone], rtol=1e-6)
    with pytest.raises(InputError, match="choose one with output="):
        mipverify.verify(module, x, eps=EPS)
    with pytest.raises(InputError, match=r"no output 'logits'|no output 7"):
        mipverify.verify(module, x, eps=EPS, output="logits" if kind == "dict" else 7)


class Normalize(nn.Module):
    """A transform in front of the network."""

    def forward(self, x: Any) -> Any:
        return (x - 0.25) / 0.5


def test_preprocessing_is_part_of_the_question() -> None:
    module, x = branches().eval(), images(2)
    whole = nn.Sequential(Normalize(), module).eval()
    expected = [w.lower for w in mipverify.worst_margin(whole, x, eps=EPS, timeout=30)]
    for options in ({"mean": 0.25, "std": 0.5}, {"mean": [0.25, "1/4"], "std": [0.5, 0.5]}, {"transform": Normalize()}):
        found = mipverify.worst_margin(module, x, eps=EPS, timeout=30, **options)
        np.testing.assert_allclose([w.lower for w in found], expected, atol=1e-3)
    last = x.permute(0, 2, 3, 1)
    found = mipverify.worst_margin(module, last, eps=EPS, mean=0.25, std=0.5, layout="nhwc", timeout=30)
    np.testing.assert_allclose([w.lower for w in found], expected, atol=1e-3)


@pytest.fixture
def sums() -> nn.Module:
    """Scores a + 2 b + 4 c + 8 d and 7.4, a and b being pixels of one channel, c and d of another; 7.5 at 1/2."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        module[1].weight.zero_()
        module[1].weight[0, [0, 1, 6, 7]] = torch.tensor([1.0, 2.0, 4.0, 8.0])
        module[1].bias.copy_(torch.tensor([0.0, 7.4]))
    return module


def pixels(a: float, b: float, c: float, d: float) -> Any:
    found = np.zeros((2, 2, 3))
    found.reshape(-1)[[0, 1, 6, 7]] = a, b, c, d
    return found


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"eps": 0.005}, "holds"),  # sinks by 0.075
        ({"eps": 0.01}, "violated"),
        ({"eps": 0.01, "mask": pixels(1, 1, 1, 0)}, "holds"),  # by 0.07
        ({"eps": "3/100", "mask": torch.tensor(pixels(1, 1, 0, 0))}, "holds"),  # by 0.09
        ({"eps": pixels(0.03, 0.03, 0, 0)}, "holds"),
        ({"eps": pixels(0.03, 0.03, 0, 0.01)}, "violated"),
        ({"eps": torch.tensor([0.03, 0.0])}, "holds"),  # one for each channel
        ({"eps": [0.0, 0.03]}, "violated"),
        ({"eps": 0.5, "domain": ([0.49, "0.495"], 1)}, "holds"),  # by 0.03 and 0.06
        ({"eps": 0.5, "domain": ([0.49, 0.49], [1, 1])}, "violated"),
    ],
)
def test_sets_per_entry_and_per_channel(sums: nn.Module, options: dict[str, Any], word: str) -> None:
    assert mipverify.verify(sums, torch.full((2, 2, 3), 0.5), 0, **options).verdict == word


def test_targets_count_for_each_input_of_a_batch(sums: nn.Module) -> None:
    x = torch.full((2, 2, 2, 3), 0.5)
    assert {v.verdict for v in mipverify.verify(sums, x, [0, 0], eps=0.005, targets=(k for k in (1,)))} == {"holds"}


def test_pruned_modules_are_read_with_the_weights_that_they_have_now() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    nn.utils.prune.l1_unstructured(module[0], "weight", 0.5)
    x = torch.rand(2, 4)
    module(x).sum().backward()
    with torch.no_grad():
        module[0].weight_orig.mul_(2)  # an optimizer's step, after the last forward pass
    assert {v.verdict for v in mipverify.verify(module, x, eps=1e-4)} == {"holds"}
    assert module[0].weight.grad_fn is not None


def test_modules_that_cannot_be_copied_are_questioned_all_the_same() -> None:
    class Locked(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no")

    module, x = Locked(4, 3).train(), torch.rand(4)
    before = state(module)
    assert mipverify.verify(module, x, eps=1e-4).verdict == "holds"
    assert_unchanged(before, state(module))


BAD = {
    "no eps": lambda m, x: mipverify.verify(m, x),
    "shape": lambda m, x: mipverify.verify(m, torch.rand(3, 7), eps=0.1),
    "labels": lambda m, x: mipverify.verify(m, x, [0, 1], eps=0.1),
    "label": lambda m, x: mipverify.verify(m, x[0], 3, eps=0.1),
    "one-hot": lambda m, x: mipverify.verify(m, x, torch.eye(3), eps=0.1),
    "float labels": lambda m, x: mipverify.verify(m, x, torch.rand(3), eps=0.1),
    "outside": lambda m, x: mipverify.verify(m, x + 1, eps=0.1),
    "eps shape": lambda m, x: mipverify.verify(m, x, eps=torch.rand(5)),
    "text": lambda m, x: mipverify.verify(m, "x.npy", eps=0.1),
    "no model": lambda m, x: mipverify.verify(3, x, eps=0.1),
    "integers": lambda m, x: mipverify.verify(m, (255 * x).to(torch.uint8), eps=1, domain=(0, 255)),
    "both": lambda m, x: mipverify.verify(m, mipverify.robustness(x[0].numpy(), 0, 0.1, num_classes=3), eps=0.1),
    "conv shape": lambda m, x: mipverify.verify(
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten()), mipverify.robustness(x[0].numpy(), 0, 0.1, num_classes=3)
    ),
    "loader": lambda m, x: mipverify.adversarial_accuracy(m, DataLoader(x, 2), eps=0.1),
    "empty loader": lambda m, x: mipverify.adversarial_accuracy(m, iter(()), eps=0.1),
    "positional eps": lambda m, x: mipverify.adversarial_accuracy(m, DataLoader(x, 2), 0.1, 0.1),
    "samples": lambda m, x: mipverify.adversarial_accuracy(m, x, eps=0.1, samples=0),
    "layout": lambda m, x: mipverify.verify(m, x, eps=0.1, layout="hwc"),
    "one limit": lambda m, x: mipverify.verify(m, x, eps=0.1, domain=3),
    "three limits": lambda m, x: mipverify.verify(m, x, eps=0.1, domain=(0, 1, 2)),
    "no pair": lambda m, x: mipverify.worst_margin(m, x, eps=0.1, constraints=[3]),
    "features": lambda m, x: mipverify.verify(nn.Unflatten(1, (2, 2)), x, eps=0.1),
}


@pytest.mark.parametrize("ask", BAD.values(), ids=BAD)
def test_bad_arguments_are_refused_in_one_line(ask: Any) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError) as caught:
        ask(nn.Linear(4, 3), torch.rand(3, 4))
    assert "\n" not in str(caught.value)
    assert str(caught.value)
