#!/usr/bin/env bash
# Run an instance of VNN-COMP: run_instance.sh v1|v2 CATEGORY ONNX VNNLIB RESULTS TIMEOUT.
# ONNX: a file, or for several networks a list such as [('f', 'a.onnx'), ('g', 'b.onnx')]. RESULTS gets sat and a
# counterexample, unsat, timeout, unknown or error in its first line.
set -uo pipefail
case "${1:-}" in v1 | v2) ;; *) echo "usage: $0 v1|v2 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2; exit 1 ;; esac
[ $# -eq 6 ] || { echo "usage: $0 v1|v2 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2; exit 1; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${MIPVERIFY_VENV:-$root/.venv-vnncomp}
onnx=$3 vnnlib=$4 results=$5 timeout=$6
pidfile=${TMPDIR:-/tmp}/mipverify-vnncomp-$(id -u).pid
rm -f "$results"
# A second, or a tenth of a short limit, for starting and ending: an answer after the limit does not count.
limit=$(awk -v t="$timeout" 'BEGIN { if (!(t + 0 > 0)) exit 1; a = t - 1; b = 0.9 * t; print (a > b ? a : b) }') ||
    { echo "TIMEOUT must be a positive number of seconds, not '$timeout'" >&2; exit 1; }
"$venv/bin/mipverify" verify "$onnx" "$vnnlib" --timeout "$limit" --result-file "$results" --quiet &
echo $! >"$pidfile"
wait $!
code=$?
rm -f "$pidfile"
case $code in
0 | 3 | 10) exit 0 ;;
2) echo unknown >"$results"; exit 0 ;; # not supported, or not readable; the line on stderr says what
*) echo error >"$results"; exit 0 ;;
esac
