#!/bin/bash
# Makes or updates .venv from requirements.txt; nothing to do with TORCH_DIR, or when it already holds just that.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -z "${TORCH_DIR:-}" ] || exit 0
stamp=.venv/requirements.txt
cmp -s requirements.txt $stamp && exit 0
echo "Making .venv: $(grep -v '^#' requirements.txt | paste -sd ' ')"
[ -x .venv/bin/pip ] || "${PYTHON:-python3}" -m venv .venv
# shellcheck disable=SC2086  # PIP_ARGS is a list of words
if ! .venv/bin/pip install --quiet --disable-pip-version-check ${PIP_ARGS:-} -r requirements.txt; then
  echo "pip could not install the torch wheel; without network give your own libtorch: TORCH_DIR=<folder>" >&2
  exit 1
fi
cp requirements.txt $stamp
