# Sourced by the tests of the server: a small model trained here, and a server that ends with the script. REQUIRES: $farskip.
# $work is a folder of the script's own; $work/model gets a tokenizer by the script itself.
. "$(dirname "${BASH_SOURCE[0]}")/small_model.sh"
work=$(mktemp -d /tmp/farskip_serve.XXXXXX)
server=
cleanup() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$work"
}
set -E # functions keep the trap
trap cleanup EXIT
trap 'echo "line $LINENO failed:"; tail -n 30 "$work"/log "$work"/server.* 2>/dev/null' ERR
mkdir "$work/model"
for i in $(seq 300); do printf 'The quick fox number %d jumps over the lazy dog.\n\n' "$i"; done >"$work/text.txt"

train_tokenizer() {  # SPECIAL...
  "$farskip" tokenizer train "$work/text.txt" --vocab-size 300 -o "$work/model/tokenizer.json" \
    $(printf -- '--special-tokens %s ' "$@") >"$work/log" 2>&1
}

# Documents end behind a sentence, so the likeliest token behind an answer is often the one that ends texts.
train_small_model() {  # STEPS: $work/run
  small_model 64 >"$work/model/config.json"
  "$farskip" prepare "$work/text.txt" -o "$work/data" --document-separator '\n\n' --tokenizer "$work/model" >>"$work/log" 2>&1
  cat >"$work/recipe.yaml" <<YAML
model: $work/model
connectivity: farskip
data_path: $work/data_text_document
seq_length: 32
micro_batch_size: 4
global_batch_size: 4
train_iters: $1
lr: 1.0e-2
eval_iters: 0
save: $work/run
YAML
  "$farskip" train "$work/recipe.yaml" >>"$work/log" 2>&1
}

start_server() {  # ARGUMENT...: serves $work/run at $port as the process $server
  "$farskip" serve "$work/run" --tokenizer "$work/model" --port 0 "$@" >"$work/server.out" 2>"$work/server.err" &
  server=$!
  until port=$(sed -n 's|^serving .* at http://127.0.0.1:||p' "$work/server.out") && [ -n "$port" ]; do
    kill -0 $server 2>/dev/null || { cat "$work/server.err"; exit 1; }
    sleep 0.2
  done
}

stop_server() {
  kill -TERM $server
  wait $server
  server=
}
