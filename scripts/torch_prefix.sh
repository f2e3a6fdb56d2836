#!/bin/sh
# Prints the CMake prefix of libtorch: TORCH_DIR (a wheel's torch folder or an unpacked libtorch), else the project's venv, else python3's torch.
here=$(cd "$(dirname "$0")/.." && pwd)
if [ -n "${TORCH_DIR:-}" ]; then
  for p in "$TORCH_DIR" "$TORCH_DIR/share/cmake" "$TORCH_DIR/torch/share/cmake"; do
    [ -f "$p/Torch/TorchConfig.cmake" ] && echo "$p" && exit 0
    [ -f "$p/share/cmake/Torch/TorchConfig.cmake" ] && echo "$p/share/cmake" && exit 0
  done
  echo "TORCH_DIR=$TORCH_DIR holds no share/cmake/Torch/TorchConfig.cmake" >&2
  exit 1
fi
for python in "$here/.venv/bin/python" python3; do
  command -v "$python" >/dev/null 2>&1 || continue
  "$python" -c 'import torch.utils; print(torch.utils.cmake_prefix_path)' 2>/dev/null && exit 0
done
exit 1
