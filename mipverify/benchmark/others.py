"""What other tools answered: results of the competition, and verdicts that are known."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mipverify.benchmark.instances import TRUTHS, Instance
from mipverify.errors import InputError
from mipverify.specification.exact import shorten
from mipverify.specification.files import decoded, read_file
from mipverify.specification.naming import network_files

RESULTS = "results.csv"
CATEGORY, NETWORK, PROPERTY, _PREPARED, RESULT, SECONDS = range(6)  # columns of the competition
# What the competition's scripts write besides the words of a tool begins like this.
_WORDS = (
    ("unsat", "holds"),
    ("holds", "holds"),
    ("sat", "violated"),
    ("violated", "violated"),
    ("unknown", "unknown"),
    ("no_result_in_file", "unknown"),
    ("prepare_instance_error_", "unknown"),
    ("run_instance_timeout", "timeout"),
    ("prepare_instance_timeout", "timeout"),
    ("timeout", "timeout"),
    ("error_nonmaximal", "unknown"),
    ("error", "error"),
)
UNCHECKED = "not given"  # of the witness of a tool whose counterexamples are not there


@dataclass(frozen=True)
class Answer:
    """What a tool said about an instance, in how many seconds.

    witness: what the check of its counterexample says. counterexample: that itself as it was printed, if it is there.
    """

    verdict: str
    seconds: float
    witness: str = ""
    counterexample: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Tool:
    """A tool's answers by the index of the instance; `elsewhere` counts rows of its file about other instances."""

    name: str
    path: Path | None
    answers: dict[int, Answer]
    elsewhere: int = 0


class Finder:
    """Finds the instance that a row of another file is about, by its files from `onnx` and `vnnlib` on and benchmark.

    The competition calls benchmarks by names with years, which are given up where the files tell enough.
    """

    def __init__(self, instances: Sequence[Instance]):
        self._found: dict[tuple[str, str], list[Instance]] = defaultdict(list)
        for instance in instances:
            self._found[_key(instance.onnx, instance.vnnlib)].append(instance)

    def find(self, benchmark: str, network: str, property_: str) -> Instance | None:
        """The instance, or None where there is none, or no telling which."""
        found = self._found.get(_key(network, property_), [])
        if len(found) > 1:
            named = [one for one in found if _plain(one.benchmark) == _plain(benchmark)]
            found = named or [one for one in found if _alike(one.benchmark, benchmark)]
        elif found and benchmark and not _alike(found[0].benchmark, benchmark):
            return None
        return found[0] if len(found) == 1 else None


def read_tools(paths: Sequence[str], instances: Sequence[Instance]) -> list[Tool]:
    """The tools in files of results, or in folders of them. Raises InputError where a file is not as it should be."""
    finder = Finder(instances)
    tools = [_tool(file, finder) for path in paths for file in _files(Path(path))]
    names = [tool.name for tool in tools]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--against: there are two results of {twice[0]}")
    return tools


def read_truth(path: str, instances: Sequence[Instance]) -> dict[int, str]:
    """Known verdicts by the index of the instance, of a file of results or with a header as in `instances.csv`."""
    finder, found = Finder(instances), dict[int, str]()
    for where, benchmark, network, property_, verdict, _ in _rows(Path(path)):
        if verdict not in TRUTHS and verdict not in ("", "unknown", "timeout", "error"):
            raise InputError(f"{where}: {shorten(verdict)!r} is no verdict (sat, unsat or unknown are)")
        instance = finder.find(benchmark, network, property_)
        if instance is not None and verdict in TRUTHS:
            found[instance.index] = TRUTHS[verdict]
    if not found:
        raise InputError(f"--truth {path}: no verdict on one of the {len(instances)} instances is there")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"--against {path}: there is no such file or folder")
    if (path / RESULTS).is_file():
        return [path / RESULTS]
    found = sorted(path.glob(f"*/{RESULTS}")) or sorted(path.glob("*.csv"))
    if not found:
        raise InputError(f"--against {path}: holds no {RESULTS}, and no folder in it does")
    return found


def _tool(path: Path, finder: Finder) -> Tool:
    name = path.absolute().parent.name if path.name == RESULTS else path.name.removesuffix(".gz").removesuffix(".csv")
    answers: dict[int, Answer] = {}
    elsewhere = 0
    for where, benchmark, network, property_, word, seconds in _rows(path):
        instance = finder.find(benchmark, network, property_)
        if instance is None:
            elsewhere += 1
            continue
        if instance.index in answers:
            raise InputError(f"{where}: a second answer to {instance.name}")
        verdict = next((verdict for start, verdict in _WORDS if word.startswith(start)), None if word else "unknown")
        if verdict is None:
            raise InputError(f"{where}: {shorten(word)!r} is no result (sat, unsat, timeout, unknown and error are)")
        witness = counterexample = ""
        if verdict == "violated":
            text = _witness(path.parent, benchmark, network, property_)
            counterexample = "" if text is None else text.strip().removeprefix("sat").lstrip()
            witness = UNCHECKED if text is None else _checked(instance, counterexample)
        answers[instance.index] = Answer(verdict, seconds, witness, counterexample)
    if not answers:
        raise InputError(f"--against {path}: none of its {elsewhere} rows is about one of the instances")
    return Tool(name, path, answers, elsewhere)


def _rows(path: Path) -> Iterator[tuple[str, str, str, str, str, float]]:
    """Where it stands, benchmark, network, property, word and seconds of each row; seconds are 0 with a header."""
    rows = csv.reader(io.StringIO(decoded(read_file(path)[0], str(path)), newline=""))
    names: list[str] | None = None
    for row in rows:
        cells = [cell.strip() for cell in row]
        where = f"{path}, line {rows.line_num}"
        if not any(cells):
            continue
        lowered = [cell.lower() for cell in cells]
        if rows.line_num == 1 and {"onnx", "vnnlib"} <= set(lowered):
            names = lowered
            continue
        if names is not None:
            known = dict(zip(names, cells, strict=False))
            word = known.get("verdict", known.get("result", "")).lower()
            benchmark = known.get("benchmark", known.get("category", ""))
            yield where, benchmark, known.get("onnx", ""), known.get("vnnlib", ""), word, 0.0
            continue
        if len(cells) != SECONDS + 1:
            raise InputError(f"{where}: six columns are needed, as the competition writes them, not {len(cells)}")
        try:
            seconds = float(cells[SECONDS])
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise InputError(f"{where}: {shorten(cells[SECONDS])!r} is no time in seconds")
        yield where, cells[CATEGORY], cells[NETWORK], cells[PROPERTY], cells[RESULT].lower(), seconds


def _checked(instance: Instance, text: str) -> str:
    from mipverify.benchmark.check import check_witness

    return check_witness(instance.networks, instance.property_path, text)


def _witness(folder: Path, benchmark: str, network: str, property_: str) -> str | None:
    """The counterexample that a tool left beside its results, as the competition files it."""
    names = witness_names(network, property_)
    for place in (benchmark, *(path.name for path in sorted(folder.glob(f"*_{benchmark}")))):
        for name in names:
            plain = folder / place / f"{name}.counterexample"
            try:
                if plain.is_file():
                    return plain.read_text(encoding="utf-8")
                if (packed := plain.with_name(plain.name + ".gz")).is_file():
                    return gzip.decompress(packed.read_bytes()).decode("utf-8")
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"{plain}: cannot be read: {error}") from None
    return None


def witness_names(network: str, property_: str) -> tuple[str, str]:
    """How the competition calls a counterexample, and the same with the folder of a network that lies deeper."""
    files = network_files(network)
    stem = "_".join(name for name, _ in files) if files[0][0] else _stem(files[0][1])
    inner = PurePosixPath(_tail(files[0][1], "onnx")).parts[1:-1]
    return f"{stem}_{_stem(property_)}", "_".join((*inner, stem, _stem(property_)))


def _stem(path: str) -> str:
    return PurePosixPath(path.removesuffix(".gz")).stem


def _tail(path: str, folder: str) -> str:
    """A path from the last folder of that name on, or else its last part."""
    parts = PurePosixPath(path.removesuffix(".gz")).parts
    at = max((index for index, part in enumerate(parts) if part == folder), default=len(parts) - 1)
    return "/".join(parts[at:])


def _key(network: str, property_: str) -> tuple[str, str]:
    names = "|".join(f"{name}={_tail(path, 'onnx')}" for name, path in network_files(network))
    return names, _tail(property_, "vnnlib")


def _plain(benchmark: str) -> str:
    """The name without years, which the competition puts before and behind it."""
    return "_".join(part for part in benchmark.lower().split("_") if not (part.isdigit() and len(part) == 4))


def _alike(one: str, other: str) -> bool:
    return _plain(one) == _plain(other) or not one or not other
