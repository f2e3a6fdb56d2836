#!/bin/bash
# Two ranks over Gloo train for MINUTES (`60_soak.sh MINUTES`, default 10) under faults, and undisturbed beside it the same
# steps. Ranks stand still for moments (SIGSTOP), a connection between them is dropped, a rank is killed; the run
# goes on from its last checkpoint after those. Expected: nothing hangs (a fault that ends the run ends it within
# $exit_limit seconds, and a started run trains within $start_limit: START_LIMIT where other work takes the processors),
# memory does not grow (anonymous memory of each rank, in the median of the run's lives by at most $slope_limit bytes a
# step, first minutes left out: a leak shows in each life, a pool that grows once does not), and each loss and gradient
# norm has the digits of the undisturbed run.
# time limit: 9000
set -eEuo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
. tests/long/small_model.sh
minutes=${1:-10}
exit_limit=40 start_limit=${START_LIMIT:-90} slope_limit=2048 log_interval=100
farskip=${FARSKIP:-$PWD/build/farskip}
[ -x "$farskip" ] || { echo "make build comes first"; exit 77; }
work=$(mktemp -d /tmp/farskip_soak.XXXXXX)
launcher= undisturbed=
cleanup() {
  for l in $launcher $undisturbed; do kill -9 $(pgrep -P "$l") "$l" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
trap 'echo "line $LINENO failed; the last run said:"; tail -n 20 "$work/run.log" 2>/dev/null' ERR
die() { echo "$*"; tail -n 20 "$work/run.log"; exit 1; }

for i in $(seq 400); do echo "In the beginning number $i was the word, and it was told again."; echo; done >"$work/text.txt"
"$farskip" prepare "$work/text.txt" -o "$work/data" --document-separator '\n\n' 2>"$work/prepare.log"
small_model 64 >"$work/model.json"
# More steps than the time allows; both runs are ended by a signal.
cat >"$work/recipe.yaml" <<YAML
model: $work/model.json
connectivity: farskip
layout: ep=2
data_path: $work/data_text_document
seq_length: 64
micro_batch_size: 2
global_batch_size: 8
train_iters: $((minutes * 60 * 200))
lr: 1.0e-3
lr_decay_style: constant
eval_interval: 500
eval_iters: 2
schedule: search
save_interval: 250
auto_resume: true
log_interval: $log_interval
report_interval: 1
timeout: 20
YAML

steps() { if [ -f "$1.jsonl" ]; then grep -c lm_loss "$1.jsonl" || true; else echo 0; fi; }
launch() { # NAME: in the background
  "$farskip" train "$work/recipe.yaml" --nproc 2 transport=gloo save="$work/$1" log_file="$work/$1.jsonl" \
    report="$work/$1.html" >>"$work/$1.log" 2>&1 &
}
start() { # the disturbed run, in $launcher and ${ranks[@]}; returns when it trains
  local begin=$SECONDS
  : >"$work/run.log"
  launch run
  launcher=$!
  until grep -q "^ iteration" "$work/run.log"; do
    kill -0 "$launcher" 2>/dev/null || die "a started run ended at once"
    [ $((SECONDS - begin)) -lt $start_limit ] || die "no $log_interval steps within $start_limit s of a start"
    sleep 0.2
  done
  ranks=($(pgrep -P "$launcher"))
  [ ${#ranks[@]} = 2 ] || die "${#ranks[@]} processes of two ranks"
}
await_end() { # SECONDS: until the launcher has ended; its status in $status
  local begin=$SECONDS
  while kill -0 "$launcher" 2>/dev/null; do
    [ $((SECONDS - begin)) -lt "$1" ] || return 1
    sleep 0.1
  done
  status=0
  wait "$launcher" || status=$?
  launcher=
}
anonymous_kib() { awk '/^RssAnon:/ { print $2 }' "/proc/$1/status"; }
# Least squares over lines "SECONDS STEPS KIB", the first minute left out (pools fill, pages of malloc settle): bytes a step.
slope() {
  awk 'NR == 1 { begin = $1; first = $2 } $1 >= begin + 60 { t = $2 - first; n++; x += t; y += $3; xx += t * t; xy += t * $3 }
    END { d = n * xx - x * x; if (n < 30 || d == 0) exit 1; printf "%.0f\n", 1024 * (n * xy - x * y) / d }' "$1"
}

life_s=150 lives=$((minutes * 60 / 150)); [ $lives -ge 3 ] || lives=3
stalls=0 drops=0 kills=0 longest=0 no_drop=
launch whole
undisturbed=$!
for life in $(seq $lives); do
  start
  end=$((SECONDS + life_s)) tick=0
  rm -f "$work"/memory.*
  while [ $SECONDS -lt $end ]; do
    sleep 1
    tick=$((tick + 1))
    done_steps=$(($(steps "$work/run") * log_interval))
    for r in 0 1; do echo "$SECONDS $done_steps $(anonymous_kib "${ranks[$r]}")" >>"$work/memory.$r"; done
    if [ $((tick % 7)) = 0 ]; then
      victim=${ranks[$((RANDOM % 2))]}
      kill -STOP "$victim"
      sleep "$((RANDOM % 3)).$((RANDOM % 10))"
      kill -CONT "$victim"
      stalls=$((stalls + 1))
    fi
    kill -0 "$launcher" 2>/dev/null || die "a rank that stood still for a moment ended the run"
  done
  for r in 0 1; do
    found=$(slope "$work/memory.$r")
    echo "life $life, rank $r: $(tail -n 1 "$work/memory.$r" | cut -d ' ' -f 3) KiB, $found bytes a step"
    echo "$found" >>"$work/slopes.$r"
  done
  begin=$SECONDS
  if [ $life = $lives ]; then
    kill -TERM "$launcher" # the whole run: checkpoint and end
    await_end $exit_limit || die "it did not end within $exit_limit s of SIGTERM"
    [ "$status" = 143 ] || die "ended with status $status after SIGTERM, expected 143"
    break
  fi
  # By turns a dropped connection and a killed rank. One connection more where the run can do without it.
  if [ $((life % 2)) = 1 ] && [ -z "$no_drop" ]; then
    n=$RANDOM code=0
    while told=$("${PYTHON:-python3}" tests/long/drop_connection.py "${ranks[@]}" $n 2>&1) || { code=$?; false; }; do
      n=$((n + 1)) drops=$((drops + 1))
      echo "dropped $told"
      if await_end 5; then break; fi
      [ $((SECONDS - begin)) -lt $exit_limit ] || die "the run did not end within $exit_limit s of a dropped connection"
    done
    case $code in
      0) ;;
      3) no_drop=$told; echo "no connection can be dropped here: $told" ;;
      *) await_end $exit_limit || die "the run did not end within $exit_limit s of its last dropped connection" ;;
    esac
  fi
  if [ -n "$launcher" ]; then
    kill -9 "${ranks[$((life / 2 % 2))]}"
    kills=$((kills + 1))
    await_end $exit_limit || die "the run did not end within $exit_limit s of a killed rank"
  fi
  [ "$status" != 0 ] || die "a run that lost a rank ended with status 0"
  [ $((SECONDS - begin)) -le $longest ] || longest=$((SECONDS - begin))
done
reached=$(steps "$work/run")
grown=$(for r in 0 1; do sort -n "$work/slopes.$r" | sed -n "$(((lives + 1) / 2))p"; done | sort -n | tail -n 1)
[ "$grown" -le $slope_limit ] || die "memory grows by $grown bytes a step, more than $slope_limit"

while [ "$(steps "$work/whole")" -lt "$reached" ]; do
  kill -0 "$undisturbed" 2>/dev/null || die "the undisturbed run ended"
  sleep 1
done
launcher=$undisturbed undisturbed=
kill -TERM "$launcher"
await_end $exit_limit || die "the undisturbed run did not end within $exit_limit s of SIGTERM"
digits() { grep -o '"grad_norm":[^,]*\|"lm_loss":[^,]*' "$1" | head -n $((2 * reached)); }
cmp <(digits "$work/whole.jsonl") <(digits "$work/run.jsonl") || die "the curves differ"
echo "$minutes minutes, $reached steps: $stalls stalls, $drops dropped connections${no_drop:+ (not possible here)}, $kills killed ranks, over after at most $longest s; memory grows by $grown bytes a step at most; all digits equal to the undisturbed run's"
