#!/bin/bash
# Our tokenizers give the ids and texts of Hugging Face's tokenizers, of tiktoken and of SentencePiece: on thousands of strings
# of many scripts, emoji, code, white space, random and broken bytes, with small vocabularies trained here in each family's
# way, and with GPT-2's own where ../shared/data has it. The packages come from PyPI. `tokenizer train` learns what their
# trainer learns.
# time limit: 900
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x build/farskip ] || { echo "make build comes first"; exit 77; }
python=.venv/bin/python
[ -x $python ] || { echo "the project's venv is not there (TORCH_DIR is set?)"; exit 77; }
peer=build-long/tokenizers
$python -m pip install --quiet --no-deps --target "$peer/packages" --upgrade tokenizers tiktoken regex sentencepiece ||
  { echo "tokenizers cannot be fetched (no network?)"; exit 77; }
export PYTHONPATH=$PWD/$peer/packages
text=../shared/data
if [ -d $text ]; then gpt2=$text/gpt2; else text=docs gpt2=; fi
$python tests/tokenizer/peer.py build/farskip "$peer/vocabularies" $text 4000 $gpt2 | tee "$peer/out"
$python tests/tokenizer/train_peer.py build/farskip "$peer/trained" $text | tee -a "$peer/out"
echo "$(grep -c ': equal\|same' "$peer/out") vocabularies agree"
