#!/usr/bin/env bash
# The demo: real text, a vocabulary learned from it, one model with standard and with FarSkip connectivity on two
# expert-parallel ranks, the table, the report, and a prompt continued. TEXT=file takes another text (one with blank
# lines between its documents).
set -euo pipefail
cd "$(dirname "$0")/.."
farskip=build/farskip
out=out/demo
mkdir -p "$out"

scripts/demo_data.sh "$out"
prompt='And the LORD said unto'
[ -z "${TEXT:-}" ] || prompt=$(head -c 20 "$TEXT" | tr '\n' ' ')

# 0.25: the communication share of DeepSeek-V3's layers on MI325X or H100 nodes at EP16, between V2-Lite on one node
# (0.15) and V3 on four (0.36).
rm -rf "$out/standard" "$out/farskip"
"$farskip" compare recipes/demo.yaml --nproc 2 --link share=0.25 --rounds 24 -o "$out" "$@"

echo
echo "The FarSkip model continues: $prompt"
"$farskip" generate "$out/farskip" --prompt "$prompt" --max-tokens 80 --temperature 0.7
