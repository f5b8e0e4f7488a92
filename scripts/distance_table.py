#!/usr/bin/env python3
"""Distances of a 784-40-20-10 MNIST classifier in l_inf, l_1 and l_2, with proven bounds, and checks of all of them.

    scripts/distance_table.py --data mnist_train.npz --test mnist_test.npz --out distances [--samples 0:50]

Trains the classifier (about a minute), computes the distance of each test image in each norm to a relative gap, and
checks that the norms are ordered as they must be and that `verify` agrees a little below and a little above every
distance. Everything is kept in the directory, and the same command continues where it stopped. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import mipverify
from mipverify.report.distances import run_distances

NORMS = ("linf", "l1", "l2")
LAYERS = (784, 40, 20, 10)
BELOW, ABOVE = 0.999, 1.001


def train(data: str, file: Path, epochs: int) -> None:
    """A plain classifier: Adam on cross-entropy."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(data) as arrays:
        images = torch.from_numpy(arrays["images"].reshape(-1, 784).astype(np.float32) / np.float32(255))
        labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    parts: list[nn.Module] = []
    for before, after in pairwise(LAYERS):
        parts += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*parts[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        for batch in torch.randperm(len(images)).split(100):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}")
    torch.onnx.export(model.eval(), (images[:1],), str(file), dynamo=False, input_names=["image"])


def bracketed(network: Any, image: np.ndarray, label: int, norm: str, row: dict[str, Any], timeout: float) -> str:
    """What `verify` says right below and right above a distance; "ok" if both agree with it."""
    if row["upper"] == 0:
        return "ok"
    verdicts = []
    for factor in (BELOW, ABOVE):
        eps = factor * (row["lower"] if factor < 1 else row["upper"])
        asked = mipverify.robustness(image, label, eps, num_classes=LAYERS[-1], norm=norm)
        verdicts.append(mipverify.verify(network, asked, timeout=timeout).verdict)
    return "ok" if verdicts == ["holds", "violated"] else "/".join(verdicts)


def disordered(rows: dict[str, dict[str, Any]]) -> bool:
    """Whether proven bounds contradict linf <= l2 <= l1 or l2 <= 28 linf."""
    low = {norm: row["lower"] for norm, row in rows.items()}
    high = {norm: row["upper"] for norm, row in rows.items()}
    return bool(low["linf"] > high["l2"] or low["l2"] > high["l1"] or low["l2"] > np.sqrt(784) * high["linf"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training images, .npz")
    parser.add_argument("--test", required=True, help="test images, .npz")
    parser.add_argument("--out", required=True, help="directory of the run")
    parser.add_argument("--samples", default="0:50")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--gap", type=float, default=1e-3)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--norms", default=",".join(NORMS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-brackets", action="store_true", help="do not verify around every distance")
    options = parser.parse_args()

    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "classifier.onnx"
    if not file.exists():
        train(options.data, file, options.epochs)
    network = mipverify.load(file)
    data = mipverify.load_dataset(options.test).fit_to(network.input_shape)
    count = min(2000, len(data.labels))
    scores = np.asarray(network.forward(data.images[:count])).reshape(count, -1)
    print(f"accuracy of the first {count} test images: {(scores.argmax(1) == data.labels[:count]).mean():.4f}")

    found: dict[int, dict[str, dict[str, Any]]] = {}
    failed = 0
    norms = options.norms.split(",")
    for norm in norms:
        asked = {"norm": norm, "gap": options.gap, "timeout": options.timeout}
        asked |= {"targets": None, "margin": 0.0, "max_distance": None}
        done = run_distances(
            str(file), options.test, options.samples, out=str(folder / norm), asked=asked, workers=options.workers
        )
        for row in done.rows:
            found.setdefault(row["index"], {})[norm] = row
        closed = [row for row in done.rows if row["status"] == "optimal"]
        seconds = [row["seconds"] for row in done.rows]
        middle = statistics.median(row["upper"] for row in done.rows)
        print(
            f"{norm:5} {len(closed)} of {len(done.rows)} closed to {options.gap:g}; median distance {middle:.6g}; ",
            end="",
        )
        print(f"seconds: median {statistics.median(seconds):.2f}, largest {max(seconds):.2f}", flush=True)
        failed += len(done.rows) - len(closed)

    fields = [
        "index",
        "label",
        *(f"{norm}_{what}" for norm in norms for what in ("lower", "upper", "seconds", "verify")),
    ]
    with (folder / "distances.csv").open("w", newline="") as target:
        table = csv.DictWriter(target, fields)
        table.writeheader()
        for index, rows in found.items():
            line: dict[str, Any] = {"index": index, "label": next(iter(rows.values()))["label"]}
            for norm, row in rows.items():
                begin = time.perf_counter()
                said = (
                    ""
                    if options.no_brackets
                    else bracketed(network, data.image(index), row["label"], norm, row, options.timeout)
                )
                if said not in ("", "ok"):
                    failed += 1
                    print(
                        f"sample {index}, {norm}: verify says {said} ({time.perf_counter() - begin:.1f} s)", flush=True
                    )
                line |= {f"{norm}_{what}": row[what] for what in ("lower", "upper", "seconds")}
                line[f"{norm}_verify"] = said
            if set(rows) == set(NORMS) and disordered(rows):
                failed += 1
                print(f"sample {index}: the norms are out of order: {rows}")
            table.writerow(line)
    print(f"table in {folder / 'distances.csv'}; {failed} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
