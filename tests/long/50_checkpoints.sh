#!/bin/bash
# A run of two processes that is killed at 100 random moments, and now and then finds the disk full, ends with the bits of
# an undisturbed one. `50_checkpoints.sh N` kills N times. The disk is a small tmpfs of its own where this is run as root.
# time limit: 2400
set -eEuo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
. tests/long/small_model.sh
kills=${1:-100}
farskip=$PWD/build/farskip
[ -x "$farskip" ] || { echo "make build comes first"; exit 77; }
work=$(mktemp -d /tmp/farskip_kills.XXXXXX)
cleanup() {
  umount "$work/disk" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'echo "line $LINENO failed; the last run said:"; tail -n 20 "$work/run.log" 2>/dev/null' ERR
mkdir "$work/disk"
limited=no
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=3m none "$work/disk" 2>/dev/null; then limited=yes; fi

for i in $(seq 400); do echo "In the beginning number $i was the word, and it was told again."; echo; done >"$work/text.txt"
"$farskip" prepare "$work/text.txt" -o "$work/data" --document-separator '\n\n' 2>"$work/prepare.log"
small_model 32 >"$work/model.json"
cat >"$work/recipe.yaml" <<YAML
model: $work/model.json
connectivity: farskip
layout: ep=2
data_path: $work/data_text_document
seq_length: 32
micro_batch_size: 2
global_batch_size: 8
train_iters: $((kills * 30 + 40))
lr: 1.0e-3
eval_iters: 0
schedule: paper
save_interval: 5
auto_resume: true
log_interval: 1000
timeout: 20
YAML

train() { "$farskip" train "$work/recipe.yaml" --nproc 2 transport=gloo "$@"; }
train save="$work/whole" log_file="$work/whole.jsonl" >"$work/whole.log" 2>&1

steps_logged() { if [ -f "$work/run.jsonl" ]; then wc -l <"$work/run.jsonl"; else echo 0; fi; }
full=0 hits=0
for k in $(seq "$kills"); do
  setsid "$farskip" train "$work/recipe.yaml" --nproc 2 transport=gloo save="$work/disk/run" log_file="$work/run.jsonl" \
    >"$work/run.log" 2>&1 &
  launcher=$!
  if [ $limited = yes ] && [ $((k % 10)) = 0 ]; then
    fallocate -l "$(($(df --output=avail -B1 "$work/disk" | tail -n 1) * 9 / 10))" "$work/disk/filler" && full=$((full + 1))
  fi
  # Most kills hit a run that trains, every fifth one that starts.
  lines=$(steps_logged)
  for _ in $(seq $((k % 5 == 0 ? 0 : 600))); do
    [ "$(steps_logged)" -le "$lines" ] && kill -0 "$launcher" 2>/dev/null || break
    sleep 0.05
  done
  sleep "$(awk -v seed="$k" 'BEGIN { srand(seed); printf "%.3f", 0.8 * rand() }')"
  if kill -0 "$launcher" 2>/dev/null; then hits=$((hits + 1)); fi
  # One rank, both, or the launcher.
  victims=($(pgrep -P "$launcher" || true) "$launcher")
  kill -9 "${victims[$((k % ${#victims[@]}))]}" 2>/dev/null || true
  wait "$launcher" 2>/dev/null || true
  rm -f "$work/disk/filler"
  if grep -q "sound\|not used" "$work/run.log"; then
    echo "a checkpoint was damaged by kill $k:"; cat "$work/run.log"; exit 1
  fi
done
[ "$hits" = "$kills" ] || { echo "only $hits of $kills kills found the run alive: it needs more iterations"; exit 1; }
reached=$(cat "$work/disk/run/latest_checkpointed_iteration.txt")
train save="$work/disk/run" log_file="$work/run.jsonl" >"$work/run.log" 2>&1
last=$(cat "$work/whole/latest_checkpointed_iteration.txt")
[ "$(cat "$work/disk/run/latest_checkpointed_iteration.txt")" = "$last" ]
for file in "$work/whole/iter_$(printf %07d "$last")"/*.safetensors; do
  cmp "$file" "$work/disk/run/iter_$(printf %07d "$last")/$(basename "$file")"
done
losses() { grep -o '"lm_loss":[^,]*' "$1"; }
cmp <(losses "$work/whole.jsonl") <(losses "$work/run.jsonl")
echo "$kills kills (at iteration $reached of $last then), disk full $full times: weights, moments and losses of $last steps have the same bits"
