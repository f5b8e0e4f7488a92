#!/usr/bin/env python3
"""Train the small robust MNIST classifier in models/zoo and pick the images beside it.

    scripts/make_demo_network.py --data mnist_train.npz --test mnist_test.npz [--out models/zoo]

Both files hold `images` (N, 28, 28) uint8 and `labels` (N,). The loss is the cross-entropy of the worst logits
that interval arithmetic allows (Gowal et al. 2018, arXiv 1810.12715), mixed with the clean loss; the radius grows
linearly. A few minutes on one core. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

BATCH = 128
NAME = "mnist_small_linf0.1"


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )


def interval_logits(model: nn.Sequential, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """The worst logits (B, 10) for labels (B,) that intervals around images (B, 1, 28, 28) allow."""
    lower, upper = (images - eps).clamp(0, 1), (images + eps).clamp(0, 1)
    for layer in model:
        if isinstance(layer, nn.ReLU | nn.Flatten):
            lower, upper = layer(lower), layer(upper)
            continue
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        if isinstance(layer, nn.Conv2d):
            spread = functional.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
        else:
            spread = functional.linear(radius, layer.weight.abs())
        middle = layer(centre)
        lower, upper = middle - spread, middle + spread
    own = functional.one_hot(labels, 10).bool()
    return torch.where(own, lower, upper)


def train(model: nn.Sequential, images: Tensor, labels: Tensor, *, epochs: int, eps: float) -> None:
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.2)
    step = 0
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            x, y = images[batch], labels[batch]
            progress = min(1.0, max(0.0, (step / steps - 0.05) / 0.55))
            robust = functional.cross_entropy(interval_logits(model, x, y, eps * progress), y)
            share = 0.5 * progress
            loss = (1 - share) * functional.cross_entropy(model(x), y) + share * robust
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
        print(f"epoch {epoch + 1:2d}  loss {loss.item():.3f}  robust loss {robust.item():.3f}", flush=True)


def to_onnx(model: nn.Sequential) -> onnx.ModelProto:
    """The module as an ONNX file; input `image` (N, 1, 28, 28) in [0, 1], output `logits` (N, 10)."""
    nodes, initializers, current = [], [], "image"
    for index, layer in enumerate(model):
        name = "logits" if index == len(model) - 1 else f"h{index}"
        if isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [current], [name], f"relu{index}"))
        elif isinstance(layer, nn.Flatten):
            nodes.append(helper.make_node("Flatten", [current], [name], f"flatten{index}", axis=1))
        else:
            inputs = [current, f"weight{index}", f"bias{index}"]
            for array, key in ((layer.weight, inputs[1]), (layer.bias, inputs[2])):
                initializers.append(numpy_helper.from_array(array.detach().numpy(), key))
            if isinstance(layer, nn.Conv2d):
                shape = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
                nodes.append(helper.make_node("Conv", inputs, [name], f"conv{index}", **shape))
            else:
                nodes.append(helper.make_node("Gemm", inputs, [name], f"dense{index}", transB=1))
        current = name
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        initializers,
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    file.producer_name = "mipverify"
    onnx.checker.check_model(file, full_check=True)
    return file


def read(path: Path) -> tuple[Tensor, Tensor, np.ndarray]:
    with np.load(path) as data:
        images, labels = data["images"], data["labels"]
    scaled = torch.from_numpy(images.astype(np.float32) / np.float32(255)).reshape(-1, 1, 28, 28)
    return scaled, torch.from_numpy(labels.astype(np.int64)), images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set (.npz)")
    parser.add_argument("--test", type=Path, required=True, help="test set (.npz); its first images are bundled")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "models" / "zoo")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument(
        "--eps", type=float, default=0.11, help="final training radius, a little above the one to prove"
    )
    parser.add_argument("--images", type=int, default=100, help="how many test images to bundle")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    images, labels, _ = read(options.data)
    model = build()
    train(model, images, labels, epochs=options.epochs, eps=options.eps)

    images, labels, raw = read(options.test)
    with torch.no_grad():
        clean = (model(images).argmax(1) != labels).float().mean().item()
        robust = (interval_logits(model, images, labels, 0.1).argmax(1) != labels).float().mean().item()
    print(f"test error {clean:.2%}, at most {robust:.2%} under l_inf 0.1 (by interval arithmetic alone)")
    options.out.mkdir(parents=True, exist_ok=True)
    onnx.save(to_onnx(model), options.out / f"{NAME}.onnx")
    count = options.images
    np.savez_compressed(
        options.out / f"mnist_{count}.npz", images=raw[:count], labels=labels[:count].numpy().astype(np.uint8)
    )


if __name__ == "__main__":
    main()
