#!/bin/bash
# format.sh OPTION...: clang-format with these options over every C++ file of the project.
set -euo pipefail
cd "$(dirname "$0")/.."
find src tests bench examples \( -name '*.cc' -o -name '*.h' \) -print0 2>/dev/null | xargs -0 -r clang-format "$@"
