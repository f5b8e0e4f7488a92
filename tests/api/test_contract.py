"""What users rely on: names, signatures and what results look like. A change here is a change for them."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mipverify

RECORD = Path(__file__).with_name("signatures.txt")
RESULTS = ("AccuracyResult", "Distortion", "SampleResult", "Verdict", "Witness", "WorstMargin")  # whose fields are read
QUESTIONS = ("verify", "minimum_distortion", "worst_margin", "adversarial_accuracy")
METHODS = (mipverify.Family.verify, mipverify.Family.minimum_distortion)


def named() -> Iterator[tuple[str, Any]]:
    """Public functions, classes, and public methods and properties of these."""
    for name in mipverify.__all__:
        found = getattr(mipverify, name)
        yield name, found
        if inspect.isclass(found) and not issubclass(found, Exception):
            for member, value in inspect.getmembers(found):
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value


def signatures() -> str:
    """A line for each public call, and for each kind of result its fields."""
    lines = []
    for name, found in named():
        if inspect.isfunction(found):
            lines.append(f"{name}{_shown(inspect.signature(found))}")
        elif name in RESULTS:
            lines.append(f"{name}: " + ", ".join(f"{f.name}: {f.type}" for f in dataclasses.fields(found)))
        elif isinstance(found, property):
            lines.append(f"{name}: {inspect.signature(typing.cast(Callable[..., Any], found.fget)).return_annotation}")
    return "\n".join(lines) + "\n"


def _shown(signature: inspect.Signature) -> str:
    """Annotations as they are written in the source."""
    return re.sub(r"'", "", str(signature))


def test_signatures_are_those_on_record() -> None:
    """After an intended change: `python -m tests.api.test_contract`, and a line in CHANGELOG.md."""
    assert signatures() == RECORD.read_text()


@pytest.mark.parametrize(("name", "found"), [pair for pair in named() if callable(pair[1])])
def test_every_call_is_documented_and_typed(name: str, found: Any) -> None:
    assert inspect.getdoc(found), name
    if inspect.isfunction(found):
        parameters = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
        assert all(p.annotation is not p.empty for p in parameters), name
        assert inspect.signature(found).return_annotation is not inspect.Signature.empty, name


@pytest.mark.parametrize("call", [*(getattr(mipverify, name) for name in QUESTIONS), *METHODS])
def test_questions_take_the_same_options_alike(call: Callable[..., Any]) -> None:
    options = inspect.signature(call).parameters
    for name, default in (("solver", "auto"), ("seed", 0)):
        assert options[name].default == default
    for name in ("timeout", "workers", "progress", "solver", "seed"):
        assert options[name].kind is inspect.Parameter.KEYWORD_ONLY, name
    assert options["timeout"].annotation == "float"


def test_whatever_a_call_returns_is_exported() -> None:
    ours = re.compile(r"\b[A-Z][A-Za-z]+\b")
    exported = set(mipverify.__all__) | {"Any", "Literal", "None", "Mapping", "Path", "LpVariable", "LpProblem"}
    for name, found in named():
        if inspect.isfunction(found) and "." not in name:
            said = str(inspect.signature(found).return_annotation)
            assert set(ours.findall(said)) <= exported, f"{name} -> {said}"
    for result in (mipverify.Verdict, mipverify.Distortion, mipverify.WorstMargin, mipverify.AccuracyResult):
        for field in dataclasses.fields(result):
            assert set(ours.findall(str(field.type))) <= exported, f"{result.__name__}.{field.name}: {field.type}"


def test_all_rooms_and_names_resolve_in_a_fresh_interpreter() -> None:
    code = (
        "import mipverify\n"
        "assert set(mipverify.__all__) <= set(dir(mipverify))\n"
        "for name in mipverify.__all__: getattr(mipverify, name)\n"
        "assert 'torch' not in __import__('sys').modules, 'a name imports torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [n for n in mipverify.__all__ if isinstance(getattr(mipverify, n), ModuleType)]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """One of each kind of result, of the bundled network."""
    zoo = files("mipverify.models.zoo")
    path, data = str(zoo / "mnist_small_linf0.1.onnx"), mipverify.load_dataset(str(zoo / "mnist_100.npz"))
    network = mipverify.load(path)
    data = data.fit_to(network.input_shape)
    image, label = data.image(0), data.label(0)
    asked = mipverify.robustness(image, label, "0.01", num_classes=10)
    report = mipverify.adversarial_accuracy(path, data.images[:3], data.labels[:3], "0.01", workers=0)
    family = mipverify.brightness_and_contrast(image, 0.01, 0.01)
    return {
        "network": network,
        "specification": asked,
        "data": data,
        "verdict": mipverify.verify(path, asked, timeout=10, proof=True),
        "violated": mipverify.verify(path, image, (label + 1) % 10, eps="0.01", timeout=10),
        "proof": mipverify.verify(path, asked, timeout=10, proof=True).proof,
        "distortion": mipverify.minimum_distortion(path, image, (label + 1) % 10, timeout=1),
        "margin": mipverify.worst_margin(path, image, label, "0.001", timeout=1),
        "report": report,
        "sample": report.samples[0],
        "family": family,
        "family by path": family.verify(path, label, timeout=5),
    }


def test_results_read_well(results: dict[str, Any]) -> None:
    """Short in a session, tables in a notebook, usable as keys."""
    for name, result in results.items():
        assert len(repr(result)) <= 200, name
        assert "\n" not in repr(result), name
        assert "array(" not in repr(result), name
        assert {result: 1}[result] == 1, name
    for name in ("verdict", "distortion", "margin", "report"):
        assert results[name]._repr_html_().lstrip().startswith("<"), name


def test_results_travel_between_processes(results: dict[str, Any]) -> None:
    for name in ("verdict", "violated", "distortion", "margin", "sample"):
        again = pickle.loads(pickle.dumps(results[name]))
        assert repr(again) == repr(results[name])


def test_types_are_those_that_annotations_promise(results: dict[str, Any]) -> None:
    kinds = {"verdict": mipverify.Verdict, "distortion": mipverify.Distortion, "margin": mipverify.WorstMargin}
    kinds |= {"report": mipverify.AccuracyResult, "sample": mipverify.SampleResult, "proof": mipverify.Proof}
    kinds |= {"data": mipverify.Dataset, "family by path": mipverify.Verdict}
    for name, kind in kinds.items():
        assert type(results[name]) is kind, name
    assert type(results["violated"].witness) is mipverify.Witness


if __name__ == "__main__":
    RECORD.write_text(signatures())
