#!/bin/bash
# 100,000 damaged safetensors files and indices are read or refused, never more, under the address and undefined-behaviour
# sanitizers (libtorch itself is not instrumented). `15_safetensors_fuzz.sh COUNT SEED` reads others.
# time limit: 3600
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
scripts/configure.sh debug build-debug
cmake --build --preset debug --target fuzz_safetensors
# What libtorch allocates once and keeps is no leak of ours, and a length that lies must not make us allocate 2 GB.
export ASAN_OPTIONS=detect_leaks=0:max_allocation_size_mb=2000:allocator_may_return_null=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
build-debug/fuzz_safetensors "${1:-100000}" "${2:-1}"
