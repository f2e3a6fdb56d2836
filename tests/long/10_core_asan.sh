#!/bin/bash
# The core's tests under the address and undefined-behaviour sanitizers.
# time limit: 1800
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset core-asan --log-level=NOTICE
cmake --build --preset core-asan
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
ctest --preset core-asan -j 2
echo "core tests clean under address and undefined sanitizers"
