#!/usr/bin/env bash
# Trains the demo's model from scratch with standard and with FarSkip connectivity, for several seeds each, and prints the
# validation losses and their paired difference as a markdown table:
#
#   bench/seeds.sh [--seeds "1 2 3"] [--output FILE] [--recipe FILE] [SETTING=VALUE ...]
#
# The same seed gives both connectivities the same initial weights and the same batches, so differences are taken seed by
# seed. FILE: default bench/results/DATE-seeds.md. TEXT=file takes another text, as for scripts/demo.sh. Logs stay in
# out/seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
farskip=build/farskip
out=out/seeds
seeds="1 2 3" recipe=recipes/demo.yaml output=bench/results/$(date +%F)-seeds.md settings=()
die() { echo "seeds.sh: $*" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --seeds|--output|--recipe) [ $# -ge 2 ] || die "$1 needs a value"; printf -v "${1#--}" %s "$2"; shift 2 ;;
    -h|--help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *=*) settings+=("$1"); shift ;;
    *) die "unknown argument $1; settings are NAME=VALUE" ;;
  esac
done
[ -x "$farskip" ] || die "make build comes first"
[ "$(wc -w <<<"$seeds")" -ge 2 ] || die "--seeds \"$seeds\": a spread needs at least two"
mkdir -p "$out" "$(dirname "$output")"
scripts/demo_data.sh "$out"

# The whole validation part, once, at the end.
run=("$recipe" --nproc 2 model="$out/model" data_path="$out/kjv_text_document" eval_interval=0 eval_iters=1000000 report= save= export= "${settings[@]}")
validation_loss() { sed -n 's/.*"validation_loss":\([0-9.e+-]*\).*/\1/p' "$1" | tail -n 1; }
for seed in $seeds; do
  for connectivity in standard farskip; do
    log=$out/$connectivity-$seed
    "$farskip" train "${run[@]}" seed="$seed" connectivity=$connectivity log_file="$log.jsonl" >"$log.txt" 2>&1 ||
      { tail -n 5 "$log.txt" >&2; die "training failed, see $log.txt"; }
    loss=$(validation_loss "$log.jsonl")
    [ -n "$loss" ] || die "$log.jsonl has no validation loss: the text is too short for its validation part"
    echo "seed $seed, $connectivity: $loss" >&2
  done
done

table() {
  for seed in $seeds; do
    echo "$seed $(validation_loss "$out/standard-$seed.jsonl") $(validation_loss "$out/farskip-$seed.jsonl")"
  done | awk '
    # Quantiles of the t distribution, 97.5 %, for 1 to 30 degrees of freedom; then the normal one.
    BEGIN { split("12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 2.201 2.179 2.160 2.145 2.131 2.120 " \
                  "2.110 2.101 2.093 2.086 2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042", t, " ")
            print "| seed | standard | FarSkip | difference |"; print "|---|---|---|---|" }
    { d = $3 - $2; n++; s += $2; f += $3; ds += d; ss += $2 * $2; ff += $3 * $3; dd += d * d
      printf "| %s | %.4f | %.4f | %+.4f |\n", $1, $2, $3, d }
    function spread(squares, sum,   v) { v = (squares - sum * sum / n) / (n - 1); return v > 0 ? sqrt(v) : 0 }
    END { e = spread(dd, ds) / sqrt(n); q = n - 1 <= 30 ? t[n - 1] : 1.960; m = ds / n
          printf "| mean | %.4f | %.4f | %+.4f |\n", s / n, f / n, m
          printf "| standard deviation of the seeds | %.4f | %.4f | %.4f |\n\n", spread(ss, s), spread(ff, f), spread(dd, ds)
          printf "FarSkip minus standard: %+.4f nats per token, standard error %.4f, 95 %% interval [%+.4f, %+.4f] (paired by seed, " \
                 "t with %d degrees of freedom).\n", m, e, m - q * e, m + q * e, n - 1 }'
}
{
  echo "# Validation loss over seeds, $(date +%F)"
  echo
  echo "\`bench/seeds.sh --seeds \"$seeds\"${settings[*]:+ ${settings[*]}}\`: $recipe from scratch with each connectivity and"
  echo "seed, the same initial weights and batches for both; loss of the whole validation part after the last step, in nats per"
  echo "token (of the demo's vocabulary, learned from the King James Bible, unless TEXT says otherwise)."
  echo
  table
} >"$output.part"
mv "$output.part" "$output"
cat "$output"
