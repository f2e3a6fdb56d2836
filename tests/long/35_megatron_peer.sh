#!/bin/bash
# Our indexed datasets are megatron-core's: read by it, written by it, split, blended and masked alike. It is fetched from
# PyPI. Only the data sets are tested, so no other package of its is needed.
# time limit: 600
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x build/test_data ] || { echo "make build comes first"; exit 77; }
peer=build-long/megatron
python=.venv/bin/python
[ -x $python ] || { echo "the project's venv is not there (TORCH_DIR is set?)"; exit 77; }
$python -m pip install --quiet --no-deps --target "$peer" --upgrade megatron-core packaging ||
  { echo "megatron-core cannot be fetched (no network?)"; exit 77; }
FARSKIP_MEGATRON_PYTHON="env PYTHONPATH=$PWD/$peer $PWD/$python" build/test_data --gtest_filter='MegatronPeer.*' | tee build-long/megatron.out
if grep -q SKIPPED build-long/megatron.out; then echo "a test was skipped"; exit 1; fi
echo "data sets agree with $(ls $peer | grep -o 'megatron_core-[0-9.]*[0-9]')"
