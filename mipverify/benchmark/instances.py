"""Instances of benchmarks as VNN-COMP lays them out: folders with an `instances.csv`, perhaps in folders of versions.

A row is `network,property,timeout`, paths relative to the file; a network may be a list of pairs of a name and a path,
where a property is about several. A file with a header names its columns: `onnx`, `vnnlib`, `timeout` or `timeout_s`
and, if they are there, `benchmark` and `verdict`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mipverify.errors import InputError
from mipverify.specification.exact import shorten
from mipverify.specification.files import decoded, read_file
from mipverify.specification.naming import network_files

INSTANCES = "instances.csv"
TRUTHS = {"sat": "violated", "violated": "violated", "unsat": "holds", "holds": "holds"}
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")  # the name of a folder that holds one version of a benchmark
_HEADER = {"onnx": "onnx", "vnnlib": "vnnlib", "timeout": "timeout", "timeout_s": "timeout"}
_HEADER |= {"benchmark": "benchmark", "category": "benchmark", "verdict": "verdict", "result": "verdict"}
_COLUMNS = ("onnx", "vnnlib", "timeout")


@dataclass(frozen=True)
class Instance:
    """One question: `index` in its place, the benchmark that it belongs to, and what its file says.

    onnx, vnnlib: as written. networks: by name, the files; the name is empty where the file gives none.
    timeout: seconds. truth: `holds` or `violated` where the file gives a verdict, else empty.
    """

    index: int
    benchmark: str
    onnx: str
    vnnlib: str
    networks: tuple[tuple[str, Path], ...]
    property_path: Path
    timeout: float
    truth: str = ""

    @property
    def name(self) -> str:
        """What a pattern is matched against."""
        return f"{self.benchmark} {self.onnx} {self.vnnlib}"


def find_instances(place: str | Path) -> list[Instance]:
    """The instances of an `instances.csv`, of the folder of a benchmark, or of a folder of benchmarks.

    Of a benchmark in several versions the first is taken; name the folder of another one for that.
    Raises InputError where there are none, or a file is not as it should be.
    """
    found: list[Instance] = []
    for path in _files(Path(place)):
        found += _read(path, len(found))
    if not found:
        raise InputError(f"{place}: holds no instance")
    return found


def select(instances: list[Instance], match: str | None, every: int) -> list[Instance]:
    """Those whose name matches a regular expression, and of these every so many-th."""
    if every < 1:
        raise InputError(f"--every must be at least 1, not {every}")
    try:
        pattern = re.compile(match or "")
    except re.error as error:
        raise InputError(f"--match {match!r}: not a regular expression: {error}") from None
    chosen = [instance for instance in instances if pattern.search(instance.name)][::every]
    if not chosen:
        raise InputError(f"--match {match!r}: none of {len(instances)} instances matches")
    return chosen


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    if not place.is_dir():
        raise InputError(f"{place}: there is no such file or folder")
    if (own := _of_benchmark(place)) is not None:
        yield own
        return
    folder = place / "benchmarks" if (place / "benchmarks").is_dir() else place
    within = [_of_benchmark(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    if not any(within):
        raise InputError(f"{place}: neither it nor a folder in it holds an {INSTANCES}")
    yield from (path for path in within if path is not None)


def _of_benchmark(folder: Path) -> Path | None:
    """The file of a benchmark: in its folder, else in that of its first version."""
    if (folder / INSTANCES).is_file():
        return folder / INSTANCES
    versions = [path for path in folder.iterdir() if _VERSION.fullmatch(path.name) and (path / INSTANCES).is_file()]
    versions.sort(key=lambda path: [int(part) for part in path.name.split(".")])
    return versions[0] / INSTANCES if versions else None


def _benchmark_of(path: Path) -> str:
    folder = path.absolute().parent
    return folder.parent.name if _VERSION.fullmatch(folder.name) else folder.name


def _read(path: Path, start: int) -> list[Instance]:
    text = decoded(read_file(path)[0], str(path))
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    columns: tuple[str, ...] = _COLUMNS
    found: list[Instance] = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not found and columns is _COLUMNS and (named := _header(cells)):
                columns = named
                continue
            try:
                found.append(_instance(dict(zip(columns, cells, strict=False)), len(cells), path, start + len(found)))
            except InputError as error:
                raise InputError(f"{path}, line {rows.line_num}: {error}") from None
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: {error}") from None
    return found


def _header(cells: list[str]) -> tuple[str, ...] | None:
    names = tuple(_HEADER.get(cell.lower(), "") for cell in cells)
    return names if {"onnx", "vnnlib", "timeout"} <= set(names) else None


def _instance(cells: dict[str, str], count: int, path: Path, index: int) -> Instance:
    if count < len(_COLUMNS) or not all(cells.get(name) for name in _COLUMNS):
        raise InputError(f"three columns are needed, network, property and time limit; there are {count}")
    try:
        timeout = float(cells["timeout"])
    except ValueError:
        timeout = math.nan
    if not 0 < timeout < math.inf:
        raise InputError(f"the time limit must be a positive number of seconds, not {shorten(cells['timeout'])!r}")
    return Instance(
        index=index,
        benchmark=cells.get("benchmark") or _benchmark_of(path),
        onnx=cells["onnx"],
        vnnlib=cells["vnnlib"],
        networks=tuple((name, _file(path.parent, file)) for name, file in network_files(cells["onnx"])),
        property_path=_file(path.parent, cells["vnnlib"]),
        timeout=timeout,
        truth=TRUTHS.get(cells.get("verdict", "").lower(), ""),
    )


def _file(folder: Path, name: str) -> Path:
    """The file, or the one that it was compressed to."""
    try:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    except (OSError, ValueError):  # names that no file system takes
        pass
    raise InputError(f"there is no file {shorten(name)}, compressed or not")
