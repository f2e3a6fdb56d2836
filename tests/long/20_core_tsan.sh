#!/bin/bash
# The core's tests under the thread sanitizer.
# time limit: 1800
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset core-tsan --log-level=NOTICE
cmake --build --preset core-tsan
# GCC 12's thread sanitizer cannot live with the widest address randomisation of newer kernels.
setarch "$(uname -m)" --addr-no-randomize ctest --preset core-tsan -j 2
echo "core tests clean under the thread sanitizer"
