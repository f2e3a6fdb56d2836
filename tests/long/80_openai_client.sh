#!/bin/bash
# OpenAI's own Python package, unchanged, against `farskip serve`: a small model trained here, on one rank and on two; all
# calls of both APIs whole and streamed, logprobs, errors, many clients at once, slow, silent and vanishing ones, and then
# REQUESTS (`80_openai_client.sh REQUESTS`, default 400) requests of which some are malformed or given up half-way, after which
# the server's memory must not have grown. The package comes from PyPI; FARSKIP names another program (one with sanitizers).
# time limit: 1800
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
requests=${1:-400}
farskip=${FARSKIP:-$PWD/build/farskip}
[ -x "$farskip" ] || { echo "make build comes first"; exit 77; }
python=.venv/bin/python
[ -x $python ] || { echo "the project's venv is not there (TORCH_DIR is set?)"; exit 77; }
packages=build-long/openai
$python -m pip install --quiet --target "$packages" --upgrade openai ||
  { echo "openai cannot be fetched (no network?)"; exit 77; }
. tests/long/served_model.sh
train_tokenizer '<bos>' '<eos>'
# OLMoE's template, one of those that are known by their text.
$python - "$work" <<'PY'
import json, sys
work = sys.argv[1]
template = ("{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
            "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
            "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
            "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")
json.dump({"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": template},
          open(work + "/model/tokenizer_config.json", "w"))
PY
train_small_model 120
for layout in "" "--layout tp=2"; do
  start_server --served-model-name small other --api-key secret --max-num-seqs 8 --max-num-waiting 64 \
    --max-connections 64 --shutdown-timeout 20 $layout
  echo "server ${layout:-of one rank}, port $port"
  PYTHONPATH="$packages" $python tests/long/openai_client.py "$port" secret "$server" "$requests"
  stop_server
  if grep -E 'ERROR: AddressSanitizer|runtime error:|LeakSanitizer' "$work/server.err"; then exit 1; fi
done
echo "the openai package's calls, $requests rough requests and an end by SIGTERM, on one rank and on two"
