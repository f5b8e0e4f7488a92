#!/usr/bin/env python
"""Put all that the documentation site is built from into one folder: pages, pictures, the package as it is installed.

    python scripts/stage_docs.py DIR

Documents that stand elsewhere in the repository become pages of their own, and links follow them. `scripts/docs` does
this, and builds the site.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "PERFORMANCE.md": "performance.md",
    "models/zoo/README.md": "zoo.md",
}
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def page_of(target: str) -> str:
    """The page that a path of the repository has become; a folder stands for its README."""
    path = target.removeprefix("../").rstrip("/")
    return PAGES.get(path) or PAGES.get(f"{path}/README.md") or path.removeprefix("docs/")


def page(text: str) -> str:
    """A document with the links that it has on the site."""
    return LINK.sub(lambda found: f"]({page_of(found[1])}{found[2] or ''})", text)


def stage(folder: Path) -> None:
    """Write mkdocs.yml, docs/ and package/ into a folder that is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name, copy in PAGES.items():
        shutil.copy(ROOT / name, folder / "docs" / copy)
    for path in (folder / "docs").glob("*.md"):
        path.write_text(page(path.read_text("utf-8")), "utf-8")
    package = folder / "package" / "mipverify"
    package.mkdir(parents=True)
    for entry in (*(ROOT / "mipverify").iterdir(), *(ROOT / name for name in ("presolve", "solvers", "models"))):
        (package / entry.name).symlink_to(entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    stage(parser.parse_args().folder)


if __name__ == "__main__":
    main()
