#!/bin/bash
# corpus.sh OUT [VOCAB_SIZE [TRAIN_MB]]: the text of the experiments on FCSD, from Debian packages: books, documentation,
# dictionaries. Writes to OUT
#   train.jsonl valid.jsonl calib.jsonl test.jsonl   documents, each in one part alone
#   tokenizer/                                       a BPE vocabulary (4096 ids unless given) learned from train.jsonl
#   train_text_document.bin, .idx and those of valid, calib and test
#   corpus.json                                      packages with versions, sizes, tokens
# `test` is for figures that are reported, and no choice is made on it. Packages come by `apt-get download` (a mirror is
# needed; nothing is installed), the King James Bible by the program `bible` (make deps). FARSKIP names another program.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
[ $# -ge 1 ] || { sed -n '2,9s/^# //p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd) vocab_size=${2:-4096} train_mb=${3:-10.5}
farskip=${FARSKIP:-$PWD/build/farskip}
[ -x "$farskip" ] || { echo "make build comes first" >&2; exit 1; }
command -v bible >/dev/null || { echo "the program bible is missing: run 'make deps'" >&2; exit 1; }
packages="anarchism debian-policy debian-reference-en developers-reference dict-devil dict-foldoc dict-gcide dict-jargon
  fortunes git-doc perl-doc postgresql-doc-15 python3.11-doc"
mkdir -p "$out/packages"
for package in $packages; do
  [ -d "$out/packages/$package" ] && continue
  (cd "$out/packages" && apt-get download -q "$package" >/dev/null 2>"$package.log") ||
    { cat "$out/packages/$package.log" >&2; echo "$package cannot be downloaded" >&2; exit 1; }
  dpkg -x "$out/packages/$package"_*.deb "$out/packages/$package.new"
  mv "$out/packages/$package.new" "$out/packages/$package"
done
bible "gen1:1-rev22:21" >"$out/packages/bible.txt"
python3 bench/fcsd/corpus.py "$out" "$train_mb"
"$farskip" tokenizer train "$out/train.txt" --vocab-size "$vocab_size" -o "$out/tokenizer/tokenizer.json"
for part in train valid calib test; do
  "$farskip" prepare "$out/$part.jsonl" -o "$out/$part" --tokenizer "$out/tokenizer"
done
python3 bench/fcsd/corpus.py "$out" --count
