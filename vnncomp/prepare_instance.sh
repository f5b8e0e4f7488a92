#!/usr/bin/env bash
# Prepare an instance of VNN-COMP: prepare_instance.sh v1|v2 CATEGORY ONNX VNNLIB.
# Ends what an earlier instance may have left running and brings the program into memory. Nothing about the network or
# the property is worked out here.
set -euo pipefail
case "${1:-}" in v1 | v2) ;; *) echo "usage: $0 v1|v2 CATEGORY ONNX VNNLIB" >&2; exit 1 ;; esac
[ $# -eq 4 ] || { echo "usage: $0 v1|v2 CATEGORY ONNX VNNLIB" >&2; exit 1; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${MIPVERIFY_VENV:-$root/.venv-vnncomp}
pidfile=${TMPDIR:-/tmp}/mipverify-vnncomp-$(id -u).pid
if [ -f "$pidfile" ]; then
    left=$(cat "$pidfile")
    # Its own workers end with it. The number may be another program's by now.
    if [ -n "$left" ] && grep -qs mipverify "/proc/$left/cmdline"; then kill -9 "$left" 2>/dev/null || true; fi
    rm -f "$pidfile"
fi
"$venv/bin/mipverify" --help >/dev/null
