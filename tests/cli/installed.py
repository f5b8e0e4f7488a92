"""The package as a user has it: a wheel of these sources, installed into an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = {
    "mipverify": "mipverify",
    "models": "mipverify/models",
    "presolve": "mipverify/presolve",
    "solvers": "mipverify/solvers",
}


def build_wheel(place: Path) -> Path:
    """A wheel that is built in `place` from a copy of the sources."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place)
    script = "import sys; from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", script], cwd=place, check=True, capture_output=True, timeout=120)
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, place: Path) -> Path:
    """The `bin` folder of a new environment in `place` with the wheel in it; its requirements are those of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=120)
    packages = next((place / "lib").glob("python3*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Only where packages lie, not what this environment's own .pth files say of an editable install.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "requirements.pth").write_text("\n".join([*others, sysconfig.get_path("purelib")]) + "\n")
    command = place / "bin" / "mipverify"
    start = 'if __name__ == "__main__":\n    sys.exit(main())'  # as pip writes it: child processes may load this file
    command.write_text(f"#!{place}/bin/python\nimport sys\nfrom mipverify.cli.main import main\n\n{start}\n")
    command.chmod(0o755)
    return place / "bin"
