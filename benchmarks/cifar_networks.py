#!/usr/bin/env python3
"""Networks of CIFAR size: limits kept, memory, attacks in time, and CROWN of all unstable units beside auto_LiRPA.

benchmarks/cifar_networks.py FOLDER [--match resnet8] [--eps 1/255 2/255 8/255] [--timeout 5 30 120] [--crown 1/255]
    [--against-auto-lirpa CHECKOUT] [--only limits|bounds]

FOLDER gets what is not there yet: a CNN of 61,696 ReLUs and a ResNet-8 of 73,728, with the first weights and with
weights trained for half a minute on images made up here, as ONNX and as state dicts. Questions are whole processes of
`mipverify verify`; a longer limit is asked only where a shorter one did not decide. Memory is the largest sum over the
processes of a question, shared pages counted once. A question is late where it ends more than a second after its limit,
or where a plain search (projected gradient descent, 20 steps from 4 points, in torch) finds a counterexample and it
takes more than a second longer than one of radius 0. The exit code is 1 where a question is late or above 2 GB, or
where what a plain search finds stays open. Bounds are timed in processes with one thread, the lesser of two runs: ours
in float64 with all rounding counted, auto_LiRPA's (method CROWN for all intermediate layers) in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

SHAPE = (3, 32, 32)
CLASSES = 10
LATE = 1.0  # seconds
MOST_MEMORY = 2e9  # bytes
NETWORKS = ("cnn_random", "cnn_trained", "resnet8_random", "resnet8_trained")


def module(name: str) -> nn.Module:
    """The CNN or the ResNet-8, with first weights of a fixed seed."""
    import torch
    from mipverify.models.architectures import Block
    from torch import nn

    torch.manual_seed(0)
    if name.startswith("resnet8"):
        blocks = [Block(16, 16, downsample=False), *(Block(n, 2 * n, downsample=True) for n in (16, 32))]
        blocks[0].shortcut = nn.Identity()
        last = (nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, CLASSES))
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), *blocks, *last)
    layers: list[nn.Module] = []
    for inputs, outputs, size in ((3, 32, 3), (32, 32, 4), (32, 64, 3), (64, 64, 4)):
        layers += [nn.Conv2d(inputs, outputs, size, stride=size - 2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Made-up images in [0, 1] and their classes: a coarse pattern for each class, under noise."""
    import torch

    patterns = torch.randn(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    own = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=own)
    fine = torch.nn.functional.interpolate(patterns[labels], scale_factor=4, mode="bilinear")
    return (0.5 + 0.05 * fine + 0.1 * torch.randn(count, *SHAPE, generator=own)).clamp(0, 1), labels


def train(net: nn.Module, seconds: float = 30.0, most_steps: int = 150) -> None:
    """Steps of Adam on made-up images."""
    import torch

    inputs, labels = images(2048, seed=1)
    optimizer, begin = torch.optim.Adam(net.parameters(), lr=1e-3), time.monotonic()
    for step in range(most_steps):
        if time.monotonic() - begin > seconds:
            break
        part = torch.arange(32 * step, 32 * (step + 1)) % len(inputs)
        loss = torch.nn.functional.cross_entropy(net(inputs[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def make(folder: Path, name: str) -> None:
    """The network and an image with the class that it gets, unless they are there."""
    import torch

    if (folder / f"{name}.npz").exists():
        return
    net = module(name)
    if name.endswith("trained"):
        train(net)
    net.eval()
    torch.save(net.state_dict(), folder / f"{name}.pt")
    torch.onnx.export(net, (torch.zeros(1, *SHAPE),), str(folder / f"{name}.onnx"), dynamo=False)
    image, _ = images(1, seed=2)
    pixels = np.round(255 * image.numpy()).astype(np.uint8)
    with torch.no_grad():
        labels = net(torch.from_numpy(pixels / np.float32(255))).argmax(dim=1).numpy()
    np.savez(folder / f"{name}.npz", images=pixels.transpose(0, 2, 3, 1), labels=labels)


def stored(folder: Path, name: str) -> nn.Module:
    """The network with its stored weights."""
    import torch

    net = module(name)
    net.load_state_dict(torch.load(folder / f"{name}.pt"))
    return net.eval()


def box(folder: Path, name: str, eps: str) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the ball around the image within [0, 1], (1, 3, 32, 32) in float32."""
    pixels = np.load(folder / f"{name}.npz")["images"].transpose(0, 3, 1, 2) / 255
    lower, upper = (np.clip(pixels + sign * float(Fraction(eps)), 0, 1).astype(np.float32) for sign in (-1, 1))
    return lower, upper


def plain_search(folder: Path, name: str, eps: str) -> bool:
    """Whether projected gradient descent finds another class."""
    import torch

    net, label = stored(folder, name), int(np.load(folder / f"{name}.npz")["labels"][0])
    lower, upper = map(torch.from_numpy, box(folder, name, eps))
    points = lower + (upper - lower) * torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        points.requires_grad_(True)
        scores = net(points)
        margins = scores[:, label] - scores.masked_fill(torch.arange(CLASSES) == label, -torch.inf).amax(dim=1)
        if bool((margins < 0).any()):
            return True
        step = (upper - lower) / 8 * torch.autograd.grad(margins.sum(), points)[0].sign()
        points = (points.detach() - step).clamp(lower, upper)
    return False


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:  # grows meanwhile
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, listed.read_text().split())
    return found


def memory(pid: int) -> int:
    """Bytes of a process and its descendants, each shared page once."""
    total = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            total += 1024 * int(line.split()[1]) if line.startswith("Pss:") else 0
    return total


def ask(folder: Path, name: str, eps: str, timeout: float, workers: int) -> tuple[str, str, float, int]:
    """Verdict, stage, seconds of the whole process and its largest memory."""
    question = [str(folder / f"{name}.onnx"), "--data", str(folder / f"{name}.npz"), "--index", "0", "--eps", eps]
    limits = ["--timeout", f"{timeout:g}", "--workers", str(workers), "--json"]
    begin, largest = time.monotonic(), 0
    command = [sys.executable, "-P", "-m", "mipverify", "verify", *question, *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError):  # one of them has ended meanwhile
                largest = max(largest, memory(process.pid))
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        assert process.stdout is not None
        text = process.stdout.read()
    found = json.loads(text or '{"verdict": "failed", "stage": ""}')
    return found["verdict"], found["stage"], seconds, largest


def questions(folder: Path, name: str, args: argparse.Namespace) -> int:
    """Ask for each radius, under one limit after the other until it is decided; how many are late or too large."""
    start, wrong = min(ask(folder, name, "0", 60, args.workers)[2] for _ in range(2)), 0
    print(f"{name}: {start:.2f} s for radius 0")
    for eps in args.eps:
        easy = plain_search(folder, name, eps)
        for timeout in args.timeout:
            verdict, stage, seconds, largest = ask(folder, name, eps, timeout, args.workers)
            late = seconds > (start if easy else timeout) + LATE
            wrong += late or largest > MOST_MEMORY or (easy and verdict != "violated")
            notes = ["found by a plain search"] * easy + ["late"] * late + ["above 2 GB"] * (largest > MOST_MEMORY)
            print(
                f"  {eps:6} limit {timeout:4g} s: {seconds:7.2f} s {largest / 1e6:6.0f} MB  {verdict:9} {stage:24}",
                "; ".join(notes),
                flush=True,
            )
            if verdict in ("holds", "violated"):
                break
    return wrong


def spent(work: Callable[[], object], repeat: int = 2) -> dict[str, float]:
    """User and system seconds of this process for some work, the run of the least sum."""
    runs = []
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_SELF)
        work()
        after = resource.getrusage(resource.RUSAGE_SELF)
        runs.append((after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime))
    return dict(zip(("user", "system"), min(runs, key=sum), strict=True))


def most_memory() -> int:
    """Bytes of this process at most, so far; `getrusage` counts those of the process that started it, too."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def bound_here(folder: Path, name: str, eps: str) -> dict[str, float]:
    """CROWN of all unstable units by this project."""
    from mipverify.presolve import crown, interval

    import mipverify

    network = mipverify.load(str(folder / f"{name}.onnx"))
    lower, upper = (end.astype(np.float64) for end in box(folder, name, eps))
    found = [interval(network, lower, upper)]
    used = spent(lambda: found.append(crown(interval(network, lower, upper))))
    return {**used, "unstable": int(found[-1].unstable_counts().sum())}


def bound_there(folder: Path, name: str, eps: str) -> dict[str, float]:
    """The same by auto_LiRPA, found on the path."""
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    torch.set_num_threads(1)
    lower, upper = map(torch.from_numpy, box(folder, name, eps))
    middle = (lower + upper) / 2
    bounded = BoundedModule(stored(folder, name), middle, device="cpu")
    inputs = BoundedTensor(middle, PerturbationLpNorm(norm=np.inf, x_L=lower, x_U=upper))
    with torch.no_grad():
        used = spent(lambda: bounded.compute_bounds(x=(inputs,), method="CROWN"))
    before = [relu.inputs[0] for relu in bounded.relus]
    return {**used, "unstable": sum(int(((node.lower < 0) & (node.upper > 0)).sum()) for node in before)}


def bounds(folder: Path, name: str, eps: str, checkout: str | None) -> None:
    """Time both in turn, each in a process of its own, and print the ratio."""
    seconds = []
    for side, path in (("here", None), *([("auto_LiRPA", checkout)] if checkout else [])):
        environment = {**os.environ, **({"PYTHONPATH": path} if path else {})}
        command = [sys.executable, "-W", "ignore", __file__, str(folder), "--bound", side, name, eps]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            print(f"{name} {eps}: {side} failed: {done.stderr.strip().splitlines()[-1:]}")
            return
        found = json.loads(done.stdout.splitlines()[-1])
        seconds.append(found["user"] + found["system"])
        print(
            f"{name} {eps}: CROWN {side} {found['user']:.2f} s and {found['system']:.2f} s of system time, "
            f"{found['unstable']} unstable units after it, {found['memory'] / 1e6:.0f} MB",
            flush=True,
        )
    if len(seconds) > 1:
        print(f"{name} {eps}: auto_LiRPA takes {seconds[1] / seconds[0]:.2f} times as long")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the networks, ask and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--match", default="", help="part of a network's name")
    parser.add_argument("--eps", nargs="+", default=["1/255", "2/255", "8/255"])
    parser.add_argument("--timeout", nargs="+", type=float, default=[5.0, 30.0, 120.0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--crown", nargs="+", default=["1/255"], metavar="EPS", help="radii of the bounds")
    parser.add_argument("--against-auto-lirpa", metavar="CHECKOUT", help="what stands on the path for it, `:` between")
    parser.add_argument("--only", choices=("limits", "bounds"))
    parser.add_argument("--bound", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.bound:
        side, name, eps = args.bound
        found = (bound_here if side == "here" else bound_there)(args.folder, name, eps)
        print(json.dumps({**found, "memory": most_memory()}))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name in NETWORKS:
        if args.match in name:
            make(args.folder, name)
            wrong += questions(args.folder, name, args) if args.only != "bounds" else 0
            for eps in args.crown if args.only != "limits" else ():
                bounds(args.folder, name, eps, args.against_auto_lirpa)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
