#!/usr/bin/env bash
# demo_data.sh FOLDER: the demo's text as FOLDER/kjv_text_document: the King James Bible, or, with TEXT=file, another one
# (with blank lines between its documents).
set -euo pipefail
farskip=$(dirname "$0")/../build/farskip
out=$1
if [ -n "${TEXT:-}" ]; then
  [ -r "$TEXT" ] || { echo "TEXT=$TEXT cannot be read" >&2; exit 1; }
  exec "$farskip" prepare "$TEXT" -o "$out/kjv" --document-separator '\n\n'
fi
command -v bible >/dev/null || { echo "the program bible is missing: run 'make deps', or give TEXT=file" >&2; exit 1; }
bible "gen1:1-rev22:21" > "$out/kjv.txt"
"$farskip" prepare "$out/kjv.txt" -o "$out/kjv" --document-start '^([1-3] )?[A-Z][A-Za-z ]* [0-9]+$'
