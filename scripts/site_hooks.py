"""Hooks of mkdocs.yml: documents that stand elsewhere in the repository as pages, and links to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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
    """The page that a path of the repository has become; folders stand for their README."""
    path = target.rstrip("/")
    for found in (path, f"{path}/README.md"):
        if found in PAGES:
            return PAGES[found]
    return path.removeprefix("docs/")


def on_files(files: Any, config: Any) -> Any:
    """Add the documents outside of docs/, their links turned into those of pages."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        text = LINK.sub(lambda found: f"]({page_of(found[1])}{found[2] or ''})", (ROOT / name).read_text("utf-8"))
        files.append(File.generated(config, page, content=text))
    return files
