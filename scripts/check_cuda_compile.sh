#!/bin/bash
# Compiles (syntax and types only) every source file that uses libtorch against the headers of libtorch 2.11's CUDA wheel,
# with NCCL on: neither a GPU nor a CUDA toolkit is needed. All headers come from wheels of PyPI (1.5 GB, once) and are kept
# in a cache folder (70 MB). `check_cuda_compile.sh FILE...` checks these files only.
# time limit: 5400
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

wheels=(torch==2.11.0 nvidia-nccl-cu13==2.28.9 nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88
  nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.1.0.3 nvidia-cusparse==12.6.3.3 nvidia-cusolver==12.0.4.66)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/farskip/cuda-headers

# Keeps the headers of one wheel: $cache/WHEEL.txt says that they are there.
fetch() {
  local wheel=$1 work
  [ ! -f "$cache/$wheel.txt" ] || return 0
  work=$(mktemp -d)
  echo "Fetching the headers of $wheel"
  if ! "${PYTHON:-python3}" -m pip download --quiet --no-deps --no-cache-dir --only-binary :all: -d "$work" "$wheel"; then
    rm -rf "$work"
    return 1
  fi
  "${PYTHON:-python3}" - "$work" "$cache" <<'UNZIP'
import glob, re, sys, zipfile
work, cache = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    wheel.extractall(cache, [name for name in wheel.namelist() if re.match(r"(torch|nvidia/\w+)/include/", name)])
UNZIP
  ls "$work" >"$cache/$wheel.txt"
  rm -rf "$work"
}
mkdir -p "$cache"
for wheel in "${wheels[@]}"; do
  fetch "$wheel" || { echo "$wheel could not be fetched (no network?)"; exit 77; }
done
torch=$cache/torch/include
if [ ! -f "$torch/c10/cuda/CUDAStream.h" ]; then
  echo "$torch is not of a CUDA wheel: remove $cache and choose an index of pip that has one"
  exit 77
fi

flags=(-std=c++20 -fPIC -O0 -Wall -Wextra -Werror -Wno-unused-parameter -DFMT_HEADER_ONLY -DFARSKIP_TORCH
  -DFARSKIP_VERSION='"check"' -DFARSKIP_SOURCE_DIR='"."' -DUSE_C10D_GLOO -DUSE_C10D_NCCL -DUSE_DISTRIBUTED -DUSE_CUDA
  -Isrc -I. -isystem "$torch" -isystem "$torch/torch/csrc/api/include")
for include in "$cache"/nvidia/*/include; do flags+=(-isystem "$include"); done
if [ $# -gt 0 ]; then
  files=("$@")
else
  mapfile -t folders < <(sed -n 's/^ *farskip_library(\([a-z_]*\) .*TORCH).*/src\/\1/p' CMakeLists.txt)
  mapfile -t files < <(find "${folders[@]}" -name '*.cc' 2>/dev/null | sort; find src/cli -name 'torch_*.cc' | sort)
fi

# One precompiled header for all, as in the build.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '#include %s\n' '<ATen/ATen.h>' '<torch/csrc/autograd/custom_function.h>' '<nlohmann/json.hpp>' '<fmt/format.h>' >"$work/pch.h"
g++ "${flags[@]}" -x c++-header "$work/pch.h" -o "$work/pch.h.gch"
printf '%s\n' "${files[@]}" | xargs -P "${JOBS:-2}" -I{} g++ "${flags[@]}" -fsyntax-only -include "$work/pch.h" {}
echo "${#files[@]} files compile with libtorch 2.11 for CUDA"
