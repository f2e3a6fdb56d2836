#!/usr/bin/env bash
# The demo: real text, one model with standard and with FarSkip connectivity on two expert-parallel ranks, the table, the
# report, and a prompt continued. TEXT=file takes another text (one with blank lines between its documents).
set -euo pipefail
cd "$(dirname "$0")/.."
farskip=build/farskip
out=out/demo
mkdir -p "$out"

if [ -n "${TEXT:-}" ]; then
  [ -r "$TEXT" ] || { echo "TEXT=$TEXT cannot be read" >&2; exit 1; }
  "$farskip" prepare "$TEXT" -o "$out/kjv" --document-separator '\n\n'
  prompt=$(head -c 20 "$TEXT" | tr '\n' ' ')
else
  command -v bible >/dev/null || { echo "the program bible is missing: run 'make deps', or give TEXT=file" >&2; exit 1; }
  bible "gen1:1-rev22:21" > "$out/kjv.txt"
  "$farskip" prepare "$out/kjv.txt" -o "$out/kjv" --document-start '^([1-3] )?[A-Z][A-Za-z ]* [0-9]+$'
  prompt='And the LORD said unto '
fi

# 0.25: the communication share of DeepSeek-V3's layers on MI325X or H100 nodes at EP16, between V2-Lite on one node
# (0.15) and V3 on four (0.36).
rm -rf "$out/standard" "$out/farskip"
"$farskip" compare recipes/demo.yaml --nproc 2 --link share=0.25 --rounds 24 -o "$out" "$@"

echo
echo "The FarSkip model continues: $prompt"
"$farskip" generate "$out/farskip" --prompt "$prompt" --max-tokens 160 --temperature 0.7
