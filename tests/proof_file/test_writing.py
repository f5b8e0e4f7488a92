"""What holds comes with a proof, if one is asked for: a file of those facts alone that the end needs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mipverify
from mipverify.network import Network
from mipverify.proof_file import Proof
from mipverify.specification import Specification, robustness
from tests.proof_file.nets import dense_file

ROOT = Path(__file__).parents[2]


def question(network: Network, eps: float, seed: int = 0) -> Specification:
    image = np.random.default_rng(seed).random(network.input_size)
    label = int(network.forward(image.reshape(1, *network.input_shape)).argmax())
    return robustness(image, label, eps, num_classes=network.output_size)


def proof_of(network: Network, specification: Specification) -> Proof:
    verdict = mipverify.verify(network, specification, timeout=60, proof=True)
    assert verdict.verdict == "holds", verdict.reason
    assert verdict.proof is not None
    return verdict.proof


def rules(proof: Proof) -> list[str]:
    return [fact["rule"] for fact in proof.header["facts"]]


def test_nothing_is_recorded_unless_asked_for(tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [4, 6, 3], 0)
    assert mipverify.verify(network, question(network, 0.001)).proof is None


def test_the_file_is_an_npz_with_a_header(tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [4, 6, 3], 0)
    proof = proof_of(network, question(network, 0.001))
    proof.save(tmp_path / "proof")
    with np.load(io.BytesIO((tmp_path / "proof").read_bytes()), allow_pickle=False) as members:
        header = json.loads(members["header"].tobytes().decode())
        assert header["network"]["sha256"] == network.sha256
        assert set(members.files) == {"header", *proof.arrays}
    assert header["question"]["eps"] == "0.001"
    assert rules(proof) == ["interval", "exclude"]


def test_the_same_question_has_the_same_file(tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [5, 20, 20, 3], 1)
    files = [proof_of(network, question(network, 0.02)).to_bytes() for _ in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("eps", [0.001, 0.03, 0.08, 0.12])
def test_facts_name_earlier_ones_alone_and_all_but_the_last_are_needed(tmp_path: Path, eps: float) -> None:
    network = dense_file(tmp_path / "net.onnx", [5, 20, 20, 3], 3)
    verdict = mipverify.verify(network, question(network, eps), timeout=60, proof=True)
    if verdict.verdict == "violated":
        pytest.skip("not robust here")
    assert verdict.verdict == "holds"
    assert verdict.proof is not None
    facts = verdict.proof.header["facts"]
    used = {fact[name] for fact in facts for name in ("of", "within") if name in fact}
    for number, fact in enumerate(facts):
        assert all(fact[name] < number for name in ("of", "within") if name in fact)
        ends = fact["rule"] == "exclude" or "condition" in fact
        assert ends or number in used


def test_solvers_words_are_not_taken(tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [6, 30, 30, 4], 5)
    verdict = mipverify.verify(network, question(network, 0.1), timeout=60, proof=True, solver="highs")
    assert not verdict.trusted
    assert (verdict.verdict == "holds") == (verdict.proof is not None)


def test_a_memory_cap_leaves_the_proof(tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [4, 6, 3], 0)
    verdict = mipverify.verify(network, question(network, 0.001), memory=2**31, proof=True)
    assert verdict.verdict == "holds"
    assert verdict.proof is not None


def test_without_a_file_there_is_nothing_to_speak_of() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    network = Network.from_torch(module, (3,))
    verdict = mipverify.verify(network, question(network, 1e-6), proof=True)
    assert verdict.verdict == "unknown"
    assert "no proof" in verdict.reason


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_halved_until_each_condition_is_closed_in_all_of_them(tmp_path: Path, seed: int) -> None:
    network = dense_file(tmp_path / "net.onnx", [2, 24, 24, 3], seed, scale=1.5)
    found = None
    for eps in (0.4, 0.3, 0.2, 0.1, 0.05):
        verdict = mipverify.verify(network, question(network, eps, seed), timeout=60, proof=True)
        if verdict.proof is not None and "boxes" in rules(verdict.proof):
            found = verdict.proof
            break
    if found is None:
        pytest.skip("no box had to be halved")
    fact = next(fact for fact in found.header["facts"] if fact["rule"] == "boxes")
    arrays = {name: found.arrays[fact[name]] for name in ("conditions", "axis", "at", "closed")}
    closed: dict[int, set[int]] = {}
    for node, position in arrays["closed"].tolist():
        closed.setdefault(node, set()).add(position)

    def walk(node: int, low: np.ndarray, high: np.ndarray, left: set[int]) -> int:
        """Where the node behind this one's part of the tree begins."""
        left = left - closed.get(node, set())
        axis = int(arrays["axis"][node])
        if axis < 0:
            assert not left
            return node + 1
        at = arrays["at"][node]
        assert low[axis] <= at <= high[axis]
        upper, lower = high.copy(), low.copy()
        upper[axis] = lower[axis] = at
        return walk(walk(node + 1, low, upper, left), lower, high, left)

    box = found.header["cases"][0]["box"]
    sides = found.arrays[box["table"]][found.arrays[box["which"]]]
    end = walk(0, sides[:, 0], sides[:, 1], set(range(len(arrays["conditions"]))))
    assert end == len(arrays["axis"])


def test_the_command_line_keeps_the_proof_and_says_where(tmp_path: Path) -> None:
    zoo = ROOT / "models" / "zoo"
    question = ["--data", str(zoo / "mnist_100.npz"), "--index", "0", "--eps"]
    command = [sys.executable, "-m", "mipverify", "verify", str(zoo / "mnist_small_linf0.1.onnx"), *question]
    path = tmp_path / "proof.npz"

    def run(eps: str) -> dict:
        done = subprocess.run([*command, eps, "--proof", str(path), "--json"], capture_output=True, text=True)
        return json.loads(done.stdout)

    shown = run("0.1")
    assert (shown["verdict"], shown["proof"]) == ("holds", str(path))
    assert path.is_file()
    shown = run("0.9")  # where nothing holds, no proof of something else is left
    assert (shown["verdict"], shown["proof"]) == ("violated", None)
    assert not path.exists()
