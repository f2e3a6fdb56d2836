#!/usr/bin/env bash
# Times to first token of the three presets with the shares that the paper's models have (docs/ttft.md), on two ranks:
# an emulated link, then (as root) Gloo over a rate-limited veth pair. Writes NAME.json, NAME.html and NAME.txt to a folder.
#
#   bench/ttft.sh FOLDER [ROUNDS]         emulated link, the default; 40 rounds, some minutes a model
#   bench/ttft.sh --gloo FOLDER [ROUNDS]  over the network; 20 rounds
#   bench/ttft.sh --overhead FOLDER       what the engine costs against a plain loop of the same kernels
#
# The machine should do nothing else. Where it does, `chrt -f 10 bench/ttft.sh ...` keeps the ranks on their cores (not with
# --gloo: the transport's threads would have to wait for them).
set -euo pipefail
cd "$(dirname "$0")/.."
what=link
case ${1:-} in
  --gloo) what=gloo; shift ;;
  --overhead) what=overhead; shift ;;
esac
folder=${1:?a folder for the results; see the head of bench/ttft.sh}
mkdir -p "$folder"

run() { # NAME COMMAND...
  local name=$1
  shift
  "$@" >"$folder/$name.txt" || { echo "ttft.sh: $name failed" >&2; exit 1; }
  echo "$folder/$name.txt"
}

# Rate: bytes of the all-reduces of a prefill in about the time of the share, see the emulated run's "link".
rate_of() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["link"].split("mbit")[0].split("=")[1].split(".")[0] + "mbit")' "$1"; }

for row in "small-llama-4-scout 0.10" "small-deepseek-v2 0.15" "small-deepseek-v3 0.26"; do
  read -r model share <<<"$row"
  arguments=(bench ttft "$model" --layout tp=2 --batch 4 --input 128 --output 16)
  case $what in
    link)
      run "$model" build/farskip "${arguments[@]}" --link "share=$share" --rounds "${2:-40}" \
        --json "$folder/$model.json" --html "$folder/$model.html"
      ;;
    gloo)
      [ -f "$folder/$model.json" ] || { echo "ttft.sh: run it without --gloo first: its link tells the rate" >&2; exit 1; }
      run "$model-gloo" scripts/veth.sh --rate "$(rate_of "$folder/$model.json")" -- build/farskip "${arguments[@]}" \
        --transport gloo --link none --rounds "${2:-20}" --json "$folder/$model-gloo.json" --html "$folder/$model-gloo.html"
      ;;
    overhead)
      run "$model-overhead" build/bench/inference_overhead "model=$model"
      ;;
  esac
done
