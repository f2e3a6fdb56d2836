#!/bin/bash
# embedding.sh SOURCE BUILD CMAKE CXX: what `cmake --install` leaves is enough for other programs. It is installed, moved,
# found by the examples and by a file that includes every public header (docs/embedding.md), and the examples say what
# the program says.
set -euo pipefail
source=$1 build=$2 cmake=$3 cxx=$4
work=$build/tmp/embedding
rm -rf "$work"
mkdir -p "$work"
cd "$work"
trap 'rm -rf "$work"' EXIT  # the libraries are large
has_torch=$(grep -c '^FARSKIP_TORCH:BOOL=ON' "$build/CMakeCache.txt" || true)

fail() { echo "embedding.sh: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "$3 differ:"$'\n'"$1"$'\n'"$2"; }

"$cmake" --install "$build" --prefix "$work/first" >install.log
mv first prefix
farskip=prefix/bin/farskip
(cd / && "$work/$farskip" show small-moonlight --format graph >/dev/null)  # the presets are found

# FOLDER: built as a project of its own.
embedded() {
  "$cmake" -S "$1" -B "$2" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_PREFIX_PATH="$work/prefix" \
    >"$2.log" 2>&1 || { cat "$2.log"; fail "cmake does not configure $1"; }
  "$cmake" --build "$2" >"$2.log" 2>&1 || { cat "$2.log"; fail "$1 does not build"; }
}

embedded "$source/examples/simulate" simulate
export FARSKIP_PRESETS=$work/prefix/share/farskip/presets
simulate/simulate deepseek-v2-lite ep=8 farskip | tee simulated.txt
"$farskip" show deepseek-v2-lite --layout ep=8 --connectivity farskip >show.txt
[ "$(wc -l <simulated.txt)" = 3 ] || fail "simulate prints other than three lines"
while read -r name seconds _ _ hidden _; do
  grep -qE "^$name +$seconds s .* $hidden %" show.txt || fail "farskip show does not say $seconds s and $hidden % for $name"
done <simulated.txt
status=0
simulate/simulate no-such-model ep=8 farskip 2>error.txt || status=$?
[ $status = 1 ] && grep -q 'nor a preset; the presets are: .*small-moonlight' error.txt || fail "status $status, $(cat error.txt)"

# Every header that the documentation calls public, in a file of its own.
mkdir headers
targets=core
[ "$has_torch" = 0 ] || targets="core farskip"
for target in $targets; do
  echo "add_library($target OBJECT $target.cc)
target_link_libraries($target PRIVATE farskip::$target)
target_compile_options($target PRIVATE -Wall -Wextra -Werror)"
  sed -n "/^## .*farskip::$target/,/^## /s/^| .*\`\(farskip\/[a-z_/]*\.h\)\`.*/#include \"\1\"/p" "$source/docs/embedding.md" >headers/$target.cc
  [ "$(wc -l <headers/$target.cc)" -ge 5 ] || fail "docs/embedding.md names fewer than five headers for farskip::$target"
done >headers/targets.txt
{ echo "cmake_minimum_required(VERSION 3.25)"
  echo "project(headers LANGUAGES CXX)"
  echo "find_package(farskip REQUIRED)"
  cat headers/targets.txt; } >headers/CMakeLists.txt
embedded headers headers_build

if [ "$has_torch" = 0 ]; then
  if "$cmake" -S "$source/examples/generate" -B generate -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" >generate.log 2>&1; then
    fail "a package without libtorch offers the component torch"
  fi
  grep -q "it has no component torch" generate.log || { cat generate.log; fail "another reason was expected"; }
  exit 0
fi

# A model small enough to be trained here, its tokenizer too.
for document in "$source"/docs/*.md; do cat "$document"; printf '\n\n'; done >text.txt
"$farskip" tokenizer train text.txt --vocab-size 320 -o vocabulary/tokenizer.json 2>/dev/null
"$farskip" prepare text.txt -o data --tokenizer vocabulary --document-separator '\n\n' 2>/dev/null
mkdir tiny
cat >tiny/config.json <<'CONFIG'
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 320, "hidden_size": 32,
 "num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1, "intermediate_size": 64,
 "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
 "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": null, "kv_lora_rank": 16,
 "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "rope_interleave": true, "rope_theta": 50000.0,
 "rope_scaling": null, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
 "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
 "routed_scaling_factor": 2.446, "aux_loss_alpha": 0.001, "seq_aux": true, "tie_word_embeddings": false,
 "attention_bias": false, "initializer_range": 0.02, "torch_dtype": "float32"}
CONFIG
printf '%s\n' "model: tiny" "data_path: data_text_document" "seq_length: 32" "micro_batch_size: 4" "global_batch_size: 4" \
  "train_iters: 20" "lr: 1.0e-2" "eval_iters: 0" "connectivity: farskip" "export: trained" >recipe.yaml
"$farskip" train recipe.yaml >train.log 2>&1 || { cat train.log; fail "the tiny model does not train"; }

embedded "$source/examples/generate" generate
"$build/farskip" generate trained --tokenizer trained --prompt "The layer" --max-tokens 40 >expected.txt
generate/generate trained "The layer" 40 | tee generated.txt
same "$(cat generated.txt)" "$(cat expected.txt)" "the example and farskip generate"
[ "$(wc -c <generated.txt)" -gt 20 ] || fail "nothing was generated"
status=0
generate/generate tiny "The layer" 2>error.txt || status=$?
[ $status = 1 ] && grep -q '^generate: tiny holds no vocabulary' error.txt || fail "status $status, $(cat error.txt)"
