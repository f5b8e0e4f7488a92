"""A page in a real browser, used as a reader would."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium was found: install Debian's package chromium")


WATCH = """<head><script>
window.errors = []; window.violations = [];
window.addEventListener("error", (event) => window.errors.push(String(event.message)));
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
</script>"""


def browse(probe: str, page: Path, *, width: int = 1280) -> dict:
    """What a probe saw in a copy of the page: a script that leaves it as text between two SEEN."""
    copy = page.with_name("probed.html")
    copy.write_text(page.read_text().replace("<head>", WATCH, 1).replace("</body>", probe + "</body>"))
    for patience in (5_000, 20_000, 60_000):  # ms of the page's own time, which goes on while a busy machine decodes
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--virtual-time-budget={patience}",
            f"--user-data-dir={page.parent / f'profile{patience}'}",
            f"--window-size={width},900",
        ]
        done = subprocess.run(
            [str(BROWSER), *options, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120
        )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert console == []
        found = re.search(r"SEEN([A-Za-z0-9+/=]+)SEEN</pre>", done.stdout)
        if found:
            break
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(base64.b64decode(found[1]))
