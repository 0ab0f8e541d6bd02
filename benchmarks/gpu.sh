#!/usr/bin/env bash
# Builds, proves and times the CUDA kernels on a machine with a GPU, without network.
#
#   bash benchmarks/gpu.sh OUTDIR [PART ...]      parts: build check sanitize agree bench-1 ... bench-6 table
#
# Every part takes less than nine minutes and can be run alone, `build` first; with none named all are run. OUTDIR gets
# a log a part, the benchmarks' JSON and table.md. Needs nvcc, a C++20 compiler, cmake, ninja, and in `python3`: numpy,
# pytest, pybind11, nanobind, scikit-build-core; PyTorch with CUDA is the peer if it is there. PYTHON=... chooses another
# Python. The exit status counts the parts that failed.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,9p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(build check sanitize agree bench-{1..6} table)
python=${PYTHON:-python3}
export PYTHONPATH="$out/site" TILEWRIGHT_TEST_DEVICE=cuda
# Rows that between them launch each kind of kernel: elementwise, reduction, rows, product, convolution, attention, index.
short='add or sum or softmax or layer_norm or matmul or conv2d or scaled_dot or embedding'

build() {
  rm -rf "$out/site"
  "$python" -m pip install --no-build-isolation --no-deps --no-index --target "$out/site" \
    -C cmake.define.TILEWRIGHT_CUDA=ON -C cmake.define.TILEWRIGHT_SIMT=ON -C cmake.define.TILEWRIGHT_LEVELS=avx2 . &&
    "$python" -c 'import tilewright as tw; print(tw.cuda.get_device_properties())'
}
optable() { "$python" -m pytest -q -p no:cacheprovider -x --maxfail=20 tests/test_op_table.py "$@"; }
check() {
  TILEWRIGHT_CUDA=on optable && TILEWRIGHT_CUDA=on "$python" -m pytest -q -p no:cacheprovider tests/test_cuda.py &&
    TILEWRIGHT_TEST_CUDA=on "$python" -m pytest -q -p no:cacheprovider tests/test_hopper*.py -k 'not findings'
}
sanitize() {
  for tool in memcheck racecheck; do
    TILEWRIGHT_CUDA=on timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
      "$python" -m pytest -q -p no:cacheprovider tests/test_op_table.py -k "($short) and float32 and forward" || return 1
  done
}
agree() {
  TILEWRIGHT_CUDA=simt "$python" tests/agree.py save "$out/emulator.npz" &&
    TILEWRIGHT_CUDA=on "$python" tests/agree.py save "$out/device.npz" &&
    "$python" tests/agree.py compare "$out/emulator.npz" "$out/device.npz"
}
bench() {  # families with their dtype, as family:dtype, which share 510 s
  local failed=0
  for pair in "$@"; do
    TILEWRIGHT_CUDA=on timeout $((510 / $#)) "$python" -m benchmarks.run "${pair%:*}" --device cuda --dtype "${pair#*:}" --seconds 0.2 \
      --peers "$("$python" -c 'import torch; print("torch" if torch.cuda.is_available() else "none")' 2>/dev/null || echo none)" \
      --json "$out/${pair%:*}-${pair#*:}.json" >"$out/${pair%:*}-${pair#*:}.md" || failed=1
  done
  return $failed
}
table() { "$python" -m benchmarks.report --table "$out"/*.json | tee "$out/table.md"; }

failed=0
for part in "${parts[@]}"; do
  echo "== $part"
  case $part in
    build | check | sanitize | agree | table) command=("$part") ;;
    bench-1) command=(bench elementwise:float32 elementwise:bfloat16 reductions:float32) ;;
    bench-2) command=(bench matmul:bfloat16 linear:bfloat16) ;;
    bench-3) command=(bench attention:bfloat16 conv2d:bfloat16 softmax:bfloat16) ;;
    bench-4) command=(bench layer_norm:bfloat16 batch_norm:float32 cross_entropy:bfloat16) ;;
    bench-5) command=(bench optimizers:float32 lstm:float32 gru:float32) ;;
    bench-6) command=(bench model:float32 random:float32 index:float32) ;;
    *) echo "no such part: $part"; exit 2 ;;
  esac
  "${command[@]}" >"$out/$part.log" 2>&1
  status=$?
  tail -n 4 "$out/$part.log"
  [ $status -eq 0 ] || { failed=$((failed + 1)); echo "FAILED: $part (see $out/$part.log)"; }
done
exit $failed
