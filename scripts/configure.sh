#!/bin/bash
# configure.sh PRESET FOLDER: runs cmake where FOLDER is not configured yet, or was for another TORCH_DIR or FARSKIP_DEPS
# (then from scratch, since cmake remembers what it found). Ninja runs cmake again by itself when a CMake file changes.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=$1 folder=$2
inputs="TORCH_DIR=${TORCH_DIR:+$(realpath "$TORCH_DIR")} FARSKIP_DEPS=${FARSKIP_DEPS:+$(realpath "$FARSKIP_DEPS")}"
if [ -f "$folder/build.ninja" ] && [ "$(cat "$folder/inputs.txt" 2>/dev/null)" = "$inputs" ]; then
  exit 0
fi
cmake --fresh --preset "$preset" --log-level=NOTICE ${FARSKIP_DEPS:+-DFARSKIP_DEPS="$(realpath "$FARSKIP_DEPS")"} \
  ${TORCH_DIR:+-DTORCH_DIR="$(realpath "$TORCH_DIR")"}
echo "$inputs" > "$folder/inputs.txt"
