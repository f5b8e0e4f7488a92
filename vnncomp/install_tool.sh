#!/usr/bin/env bash
# Install mipverify for VNN-COMP: install_tool.sh v1|v2. Needs Python 3.11 or later.
# MIPVERIFY_VENV: the environment to use or make, by default .venv-vnncomp at the root.
set -euo pipefail
case "${1:-}" in v1 | v2) ;; *) echo "usage: $0 v1|v2" >&2; exit 1 ;; esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${MIPVERIFY_VENV:-$root/.venv-vnncomp}
if [ ! -x "$venv/bin/mipverify" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$root"
fi
"$venv/bin/mipverify" --version
