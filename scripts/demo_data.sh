#!/usr/bin/env bash
# demo_data.sh FOLDER: the demo's text as FOLDER/kjv_text_document, in the tokens of a vocabulary learned from it, and
# FOLDER/model, the shape of a model with this vocabulary. The text is the King James Bible, or, with TEXT=file, another
# one (with blank lines between its documents).
set -euo pipefail
farskip=$(dirname "$0")/../build/farskip
out=$1
if [ -n "${TEXT:-}" ]; then
  [ -r "$TEXT" ] || { echo "TEXT=$TEXT cannot be read" >&2; exit 1; }
  text=$TEXT documents=(--document-separator '\n\n')
else
  command -v bible >/dev/null || { echo "the program bible is missing: run 'make deps', or give TEXT=file" >&2; exit 1; }
  text=$out/kjv.txt documents=(--document-start '^([1-3] )?[A-Z][A-Za-z ]* [0-9]+$')
  bible "gen1:1-rev22:21" > "$text"
fi
vocab_size=1024
"$farskip" tokenizer train "$text" --vocab-size $vocab_size -o "$out/tokenizer/tokenizer.json"
"$farskip" prepare "$text" -o "$out/kjv" --tokenizer "$out/tokenizer" "${documents[@]}"
mkdir -p "$out/model"
sed -e "s/\"vocab_size\": [0-9]*/\"vocab_size\": $vocab_size/" -e 's/"eos_token_id": [0-9]*/"eos_token_id": 0/' \
  "$(dirname "$0")"/../presets/small-moonlight/config.json >"$out/model/config.json"
