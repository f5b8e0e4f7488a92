"""Runs over samples: they go on where they stopped, keep their best, and answer one question only."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mipverify.cli.main import main
from mipverify.engine.distortion import Known, minimum_distortion
from mipverify.errors import InputError
from mipverify.network import load
from mipverify.parallel import ProcessPool
from mipverify.report.distance_store import DistanceResult, DistanceStore
from mipverify.report.distances import run_distances
from mipverify.specification.preprocessing import Preprocessing

ASKED: dict[str, Any] = {
    "norm": "linf", "targets": None, "margin": "0", "gap": 1e-4, "max_distance": None,
    "timeout": 20.0, "solver": "auto", "seed": 0,
}  # fmt: skip


def dense_file(path: Path, *, argmax: bool = False, external: bool = False, seed: int = 0) -> Path:
    """A dense network 4-6-3 on disk."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(4, 6)), rng.normal(size=6), rng.normal(size=(6, 3)), rng.normal(size=3)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Add", ["a", "w1"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "w2"], ["d"]),
        helper.make_node("Add", ["d", "w3"], ["scores" if argmax else "y"]),
    ]
    if argmax:
        nodes.append(helper.make_node("ArgMax", ["scores"], ["y"], axis=1, keepdims=0))
    kind, shape = (TensorProto.INT64, [1]) if argmax else (TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", kind, shape)],
        [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    more = {"save_as_external_data": True, "location": path.stem + ".bin", "size_threshold": 0} if external else {}
    if external:
        (path.parent / f"{path.stem}.bin").unlink(missing_ok=True)  # onnx appends
    onnx.save(model, path, **more)
    return path


def data_file(path: Path, network: Path, *, wrong: bool = False) -> Path:
    """Eight images with the labels that the network gives them, or with other ones."""
    images = np.random.default_rng(1).uniform(0.2, 0.8, (8, 4)).astype(np.float32)
    scores = np.asarray(load(network).forward(images.astype(np.float64))).reshape(8, -1)
    np.savez(path, images=images, labels=(scores.argmax(axis=1) + wrong) % 3)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    network = dense_file(tmp_path / "net.onnx")
    return str(network), str(data_file(tmp_path / "data.npz", network))


def run(files: tuple[str, str], out: Path, samples: str = "0:3", workers: int = 1, **asked: Any) -> list[Any]:
    given = Preprocessing.of(**{name: asked.pop(name) for name in ("domain", "mean", "std", "scale") if name in asked})
    return run_distances(*files, samples, out=str(out), asked=ASKED | asked, preprocessing=given, workers=workers).rows


def without_time(rows: list[Any]) -> list[Any]:
    return [{k: row[k] for k in ("index", "label", "status", "adversarial_label")} for row in rows]


def test_processes_find_what_one_finds(files: tuple[str, str], tmp_path: Path) -> None:
    alone = run(files, tmp_path / "alone", "1:8")
    shared = run(files, tmp_path / "shared", "1:8", workers=2)
    assert without_time(alone) == without_time(shared)
    for one, two in zip(alone, shared, strict=True):
        assert one["upper"] == pytest.approx(two["upper"], rel=1e-3)
    assert not list((tmp_path / "shared").glob("*.partial"))


def test_processes_that_samples_leave_idle_share_the_work_of_one(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pools: list[int] = []

    class Counted(ProcessPool):
        def __init__(self, workers: int) -> None:
            pools.append(workers)
            super().__init__(workers)

    monkeypatch.setattr("mipverify.engine.bisection.ProcessPool", Counted)
    one = ["distortion", files[0], "--data", files[1], "--index", "1", "--json"]
    found = []
    for workers in ("1", "3"):
        assert main([*one, "--workers", workers]) == 0
        record = json.loads(capfd.readouterr().out)
        found.append((record["status"], record["distance"], record["witness"]))
    assert found[0] == found[1]
    (row,) = run(files, tmp_path / "out", "1:2", workers=3)
    assert (row["lower"], row["upper"]) == (found[0][1]["lower"], found[0][1]["upper"])
    assert pools == [1, 3, 3]


def test_finished_samples_are_not_run_again(files: tuple[str, str], tmp_path: Path) -> None:
    first = run(files, tmp_path / "out")
    again = run(files, tmp_path / "out", "0:4")
    assert [row["seconds"] for row in again[:3]] == [row["seconds"] for row in first]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"norm": "l1"}, "norm"),
        ({"domain": ("0", "2")}, "domain"),
        ({"mean": "0.5"}, "mean"),
        ({"std": ["1", "1", "1", "0.5"]}, "std"),
        ({"scale": "1/2"}, "scale"),
        ({"targets": (0, 2)}, "targets"),
        ({"margin": "0.5"}, "margin"),
        ({"gap": 0.5}, "gap"),
        ({"max_distance": 0.01}, "max_distance"),
    ],
)
def test_another_question_is_refused(
    change: dict[str, Any], named: str, files: tuple[str, str], tmp_path: Path
) -> None:
    run(files, tmp_path / "out", "0:1")
    with pytest.raises(InputError, match=f"another {named}"):
        run(files, tmp_path / "out", "0:2", **change)


def test_settings_that_mean_the_same_are_the_same(files: tuple[str, str], tmp_path: Path) -> None:
    label = int(np.load(files[1])["labels"][0])
    others = tuple(k for k in range(3) if k != label)
    run(files, tmp_path / "out", "0:1", targets=others, max_distance=0.5, domain=("0", "1"))
    asked: dict[str, Any] = {"targets": others[::-1], "max_distance": 0.50, "domain": ("0.0", "1e0"), "margin": "0.00"}
    assert len(run(files, tmp_path / "out", "0:1", timeout=9.0, seed=3, **asked)) == 1


@pytest.mark.parametrize("changed", ["weights in another file", "labels", "labels in another file", "images"])
def test_other_contents_under_the_same_names_are_refused(changed: str, tmp_path: Path) -> None:
    external = changed.startswith("weights")
    network = dense_file(tmp_path / "net.onnx", external=external)
    data = data_file(tmp_path / "data.npz", network)
    if changed == "labels in another file":
        data = tmp_path / "t-images-idx3-ubyte"
        data.write_bytes(b"\0\0\x08\x03" + np.array([8, 2, 2], ">u4").tobytes() + bytes(range(100, 132)))
        labels = tmp_path / "t-labels-idx1-ubyte"
        labels.write_bytes(b"\0\0\x08\x01" + np.array([8], ">u4").tobytes() + bytes(8))
    before = network.read_bytes()
    run((str(network), str(data)), tmp_path / "out", "0:1")
    if external:
        dense_file(network, external=True, seed=5)
        assert network.read_bytes() == before
    elif changed == "labels":
        data_file(data, network, wrong=True)
    elif changed == "labels in another file":
        labels.write_bytes(b"\0\0\x08\x01" + np.array([8], ">u4").tobytes() + bytes([1] * 8))
    else:
        with np.load(data) as stored:
            np.savez(data, images=stored["images"] * np.float32(0.5), labels=stored["labels"])
    with pytest.raises(InputError, match=r"another (network|data|labels)"):
        run((str(network), str(data)), tmp_path / "out", "0:2")


def test_a_search_goes_on_from_what_is_known(files: tuple[str, str]) -> None:
    network, data = load(files[0]), np.load(files[1])
    image, label = data["images"][0].reshape(network.input_shape), int(data["labels"][0])
    full = minimum_distortion(network, image, label, timeout=20)
    assert full.upper is not None
    assert full.witness is not None
    known = Known(full.lower, full.witness.input)
    more = minimum_distortion(network, image, label, timeout=20, known=known)
    assert (more.status, more.lower, more.upper) == ("optimal", full.lower, full.upper)
    assert more.statistics["questions"] == 0
    # A point that does not violate is no witness, whoever says so.
    assert minimum_distortion(network, image, label, timeout=20, known=Known(0.0, image)).upper == pytest.approx(
        full.upper, rel=1e-3
    )


def answer(lower: float, upper: float | None, status: str = "bounded", seconds: float = 1.0) -> DistanceResult:
    witness = None if upper is None else {"input": [upper], "output": [0.0]}
    other = None if upper is None else int(10 * upper)
    return DistanceResult(4, 0, status, lower, upper, other, seconds, 1, 2, "time", witness, (f"trust {lower}",))


def test_bounds_only_get_better(tmp_path: Path) -> None:
    with DistanceStore(tmp_path, {"norm": "linf"}, 1e-2) as store:
        store.put(answer(0.1, 0.5))
        kept = store.put(answer(0.3, 0.7))
        assert (kept.lower, kept.upper, kept.witness, kept.adversarial_label) == (
            0.3, 0.5, {"input": [0.5], "output": [0.0]}, 5,
        )  # fmt: skip
        assert (kept.seconds, kept.questions, kept.nodes) == (2.0, 2, 4)
        assert kept.trusted == ("trust 0.1", "trust 0.3")
        assert store.put(answer(0.0, None)).upper == 0.5
        closed = store.put(answer(0.499, 0.6))
        assert (closed.status, closed.reason) == ("optimal", "")
        assert store.results(range(5)) == [closed]


def test_bounds_that_contradict_each_other_are_no_answer(tmp_path: Path) -> None:
    with DistanceStore(tmp_path, {"norm": "linf"}, 1e-2) as store:
        store.put(answer(0.1, 0.5))
        with pytest.raises(RuntimeError, match="contradicts"):
            store.put(answer(0.6, None, "none"))
        assert store.results(range(5)) == [answer(0.1, 0.5)]


def test_shorter_runs_lose_nothing(tmp_path: Path) -> None:
    """Sample 7 of the package's images, whose distance takes long, with less time in each run."""
    zoo = Path(__file__).parents[2] / "models" / "zoo"
    seen: list[tuple[float, float]] = []
    for timeout in (3.0, 0.6, 0.3):
        asked = ASKED | {"timeout": timeout}
        files = str(zoo / "mnist_small_linf0.1.onnx"), str(zoo / "mnist_100.npz")
        (row,) = run_distances(*files, "7:8", out=str(tmp_path / "out"), asked=asked).rows
        seen.append((row["lower"], row["upper"]))
    assert seen[0][0] <= seen[1][0] <= seen[2][0]
    assert seen[0][1] >= seen[1][1] >= seen[2][1]


def test_a_network_that_ends_in_a_class(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain, classes = dense_file(tmp_path / "net.onnx"), dense_file(tmp_path / "class.onnx", argmax=True)
    data = data_file(tmp_path / "data.npz", plain)
    found = []
    for network in (plain, classes):
        assert main(["distortion", str(network), "--data", str(data), "--index", "0", "--timeout", "20", "--json"]) == 0
        found.append(json.loads(capfd.readouterr().out)["distance"])
    assert found[0]["upper"] == pytest.approx(found[1]["upper"], rel=1e-3)
    assert main(["distortion", str(classes), "--data", str(data), "--index", "0", "--timeout", "20"]) == 0
    assert "instead of" in capfd.readouterr().out
    many = ["--samples", "0:8", "--out", str(tmp_path / "out"), "--timeout", "20", "-q"]
    assert main(["distortion", str(classes), "--data", str(data), *many]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "distances.csv").open()))
    assert all(row["adversarial_label"] != row["label"] for row in rows)
    # By how much a class wins is not to be seen in the class.
    assert main(["distortion", str(classes), "--data", str(data), "--index", "0", "--margin", "0.1"]) == 2


@pytest.mark.parametrize("content", ["garbage", "a report", "another program", "another version"])
def test_what_is_no_store_is_refused_and_kept(
    content: str, files: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, stored = tmp_path / "out", tmp_path / "out" / "results.sqlite"
    out.mkdir()
    if content == "garbage":
        stored.write_bytes(b"garbage " * 200)
    elif content == "a report":
        assert main(["report", *report_of(files), "--samples", "0:1", "--workers", "0", "--out", str(out), "-q"]) == 0
    else:
        import sqlite3

        with sqlite3.connect(stored) as database:
            if content == "another program":
                database.execute("CREATE TABLE prices (value REAL)")
            else:
                database.execute("CREATE TABLE distances (sample INTEGER PRIMARY KEY, label INTEGER)")
        database.close()
    capfd.readouterr()
    before = stored.read_bytes()
    code = main(["distortion", files[0], "--data", files[1], "--samples", "0:1", "--out", str(out)])
    err = capfd.readouterr().err
    assert (code, err.count("\n")) == (2, 1), err
    assert "results.sqlite" in err
    assert stored.read_bytes() == before


def report_of(files: tuple[str, str]) -> list[str]:
    return [files[0], "--data", files[1], "--eps", "0.01"]


def test_a_report_refuses_the_store_of_distances(files: tuple[str, str], tmp_path: Path) -> None:
    run(files, tmp_path / "out", "0:1")
    assert (
        main(["report", *report_of(files), "--samples", "0:1", "--workers", "0", "--out", str(tmp_path / "out")]) == 2
    )


def test_a_moved_run_goes_on(files: tuple[str, str], tmp_path: Path) -> None:
    run(files, tmp_path / "out", "0:2")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert len(run(files, tmp_path / "elsewhere", "0:3")) == 3
