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
work=$(mktemp -d /tmp/farskip_serve.XXXXXX)
server=
cleanup() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'echo "line $LINENO failed:"; tail -n 20 "$work"/log "$work"/server.* 2>/dev/null' ERR

for i in $(seq 200); do printf 'The quick fox number %d jumps over the lazy dog.\n\n' "$i"; done >"$work/text.txt"
mkdir "$work/model"
"$farskip" tokenizer train "$work/text.txt" --vocab-size 300 -o "$work/model/tokenizer.json" \
  --special-tokens '<bos>' --special-tokens '<eos>' >"$work/log" 2>&1
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

cat >"$work/model/config.json" <<'JSON'
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 320, "hidden_size": 64,
 "num_hidden_layers": 3, "first_k_dense_replace": 1, "intermediate_size": 128, "moe_intermediate_size": 32,
 "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "num_attention_heads": 2,
 "num_key_value_heads": 2, "q_lora_rank": null, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
 "v_head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "hidden_act": "silu", "scoring_func": "sigmoid",
 "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.446,
 "tie_word_embeddings": false, "rope_theta": 50000.0}
JSON
"$farskip" prepare "$work/text.txt" -o "$work/data" --document-separator '\n\n' --tokenizer "$work/model" >>"$work/log" 2>&1
cat >"$work/recipe.yaml" <<YAML
model: $work/model
connectivity: farskip
data_path: $work/data_text_document
seq_length: 32
micro_batch_size: 4
global_batch_size: 4
train_iters: 120
lr: 1.0e-2
eval_iters: 0
save: $work/run
YAML
"$farskip" train "$work/recipe.yaml" >>"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
for layout in "" "--layout tp=2"; do
  "$farskip" serve "$work/run" --tokenizer "$work/model" --port 0 --served-model-name small other --api-key secret \
    --max-num-seqs 8 --max-num-waiting 64 --max-connections 64 --shutdown-timeout 20 $layout >"$work/server.out" 2>"$work/server.err" &
  server=$!
  until port=$(sed -n 's|^serving .* at http://127.0.0.1:||p' "$work/server.out") && [ -n "$port" ]; do
    kill -0 $server 2>/dev/null || { cat "$work/server.err"; exit 1; }
    sleep 0.2
  done
  echo "server ${layout:-of one rank}, port $port"
  PYTHONPATH="$packages" $python tests/long/openai_client.py "$port" secret "$server" "$requests"
  kill -TERM $server
  status=0
  wait $server || status=$?
  server=
  [ $status = 0 ] || { echo "status $status after SIGTERM"; cat "$work/server.err"; exit 1; }
  if grep -E 'ERROR: AddressSanitizer|runtime error:|LeakSanitizer' "$work/server.err"; then exit 1; fi
done
echo "the openai package's calls, $requests rough requests and an end by SIGTERM, on one rank and on two"
