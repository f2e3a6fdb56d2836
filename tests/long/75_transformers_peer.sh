#!/bin/bash
# Every golden model, exported by farskip, gives its golden logits in transformers: standard ones in the stock classes, other
# connectivities with the modelling file of the export; without trust_remote_code those are refused. It is fetched from PyPI,
# in the version that the golden data was made with and in the newest.
# time limit: 1800
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
golden=${FARSKIP_GOLDEN:-$PWD/../shared/golden}
python=.venv/bin/python
[ -x build/farskip ] || { echo "make build comes first"; exit 77; }
[ -x $python ] || { echo "the project's venv is not there (TORCH_DIR is set?)"; exit 77; }
[ -f "$golden/mixtral/config.json" ] || { echo "no golden models at $golden (FARSKIP_GOLDEN says where)"; exit 77; }
work=$(mktemp -d /tmp/farskip_peer.XXXXXX)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HOME=$work/hf HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
agreed=
for version in ==4.57.1 ">=5"; do
  peer=build-long/transformers$version
  # Not torch again: the venv has it. numpy comes with it or is needed.
  if ! "$python" -m pip install --quiet --target "$peer" --upgrade --no-deps "transformers$version" ||
     ! PYTHONPATH=$peer "$python" -c 'import importlib.metadata as m
print("\n".join(r.split(";")[0] for r in m.requires("transformers") if ";" not in r))' >"$work/needs" ||
     ! "$python" -m pip install --quiet --target "$peer" --upgrade -r "$work/needs"; then
    echo "transformers$version cannot be fetched (no network?)"; exit 77
  fi
  mkdir -p "$work/models"
  PYTHONPATH=$PWD/$peer "$python" tests/long/transformers_peer.py "$PWD/build/farskip" "$golden" "$work/models" 2>"$work/errors" ||
    { cat "$work/errors"; exit 1; }
  agreed+=" $(PYTHONPATH=$peer "$python" -c 'import importlib.metadata as m; print(m.version("transformers"))')"
done
echo "exports agree with transformers$agreed"
