"""The site is built of the documents with warnings as errors, and tells of everything that is public."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mipverify.models import __all__ as training

import mipverify

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
needs_the_extra = pytest.mark.skipif(
    find_spec("zensical") is None or find_spec("mkdocstrings_handlers") is None, reason="the extra `docs` is missing"
)


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "scripts" / "docs", out],
        env={**os.environ, "BIN": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@needs_the_extra
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="tutorial.html"' in index
    reference = (tmp_path / "site" / "reference.html").read_text()
    assert 'id="mipverify.adversarial_accuracy"' in reference
    assert "Decide for every sample" in reference, "docstrings are there"
    sources = re.findall(r'(?:src|rel="stylesheet" href)="(https?:[^"]+)"', index)
    assert sources == [], "the pages ask nothing of the network"


@needs_the_extra
@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("[gone](gone.md) and [gone](trust.md#gone)", "2 issues found"),
        ("::: mipverify.gone", "Could not collect 'mipverify.gone'"),
    ],
)
def test_what_points_nowhere_ends_the_build(wrong: str, told: str, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    for name in ("docs", "scripts"):
        (root / name).mkdir(parents=True)
        for path in (ROOT / name).iterdir():
            (root / name / path.name).symlink_to(path)
    documents = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "PERFORMANCE.md", "mkdocs.yml")
    for name in (*documents, "mipverify", "presolve", "models", "solvers"):
        (root / name).symlink_to(ROOT / name)
    for script in ("docs", "stage_docs.py"):
        (root / "scripts" / script).unlink()
        (root / "scripts" / script).write_bytes((ROOT / "scripts" / script).read_bytes())
        (root / "scripts" / script).chmod(0o755)
    gallery = root / "docs" / "gallery.md"
    text = gallery.read_text()
    gallery.unlink()
    gallery.write_text(f"{text}\n{wrong}\n")
    done = build(root, tmp_path / "site")
    assert done.returncode != 0
    assert told in done.stdout + done.stderr


def test_the_reference_lists_all_that_is_public() -> None:
    pages = (DOCS / "reference.md").read_text() + (DOCS / "reference-training.md").read_text()
    listed = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    public = {f"mipverify.{name}" for name in mipverify.__all__ if not name.startswith("_")}
    # By its home: the module beside it has the same name.
    public = public - {"mipverify.robustness"} | {"mipverify.specification.robustness.robustness"}
    public |= {f"mipverify.models.{name}" for name in (*training, "StabilityCallback", "UnstableUnitsMetric")}
    assert public <= listed
    assert listed - public == {"mipverify.api.questions.Reading"}


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    elsewhere = {"index.md", "contributing.md", "changelog.md", "performance.md", "zoo.md"}
    assert named - elsewhere == {path.name for path in DOCS.glob("*.md")}


def test_every_picture_is_shown_and_none_is_large() -> None:
    shown = {
        name for path in DOCS.glob("*.md") for name in re.findall(r"[(\"](pictures/[\w-]+\.\w+)", path.read_text())
    }
    there = {f"pictures/{path.name}" for path in (DOCS / "pictures").glob("*")}
    assert shown == there
    assert all((DOCS / name).stat().st_size < 300_000 for name in there)
