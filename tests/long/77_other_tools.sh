#!/bin/bash
# Tools that cannot run a connectivity refuse its export instead of running the wrong graph, and take the same model as
# standard: llama.cpp's converter (in llama-cpp-python's sources) and vLLM's choice and construction of a model, with and
# without trust_remote_code. vLLM's wheel comes without its GPU libraries: nothing is run on a model.
# time limit: 1800
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
golden=${FARSKIP_GOLDEN:-$PWD/../shared/golden}
python=.venv/bin/python
[ -x build/farskip ] || { echo "make build comes first"; exit 77; }
[ -x $python ] || { echo "the project's venv is not there (TORCH_DIR is set?)"; exit 77; }
[ -f "$golden/mixtral/config.json" ] || { echo "no golden models at $golden (FARSKIP_GOLDEN says where)"; exit 77; }
peer=$PWD/build-long/other_tools
mkdir -p "$peer"
# fetch FOLDER PACKAGE...: without what they depend on.
fetch() { $python -m pip install --quiet --target "$peer/$1" --upgrade --no-deps "${@:2}" || absent "${*:2}"; }
absent() { echo "$* cannot be fetched (no network?)"; exit 77; }

llama=$peer/llama_cpp_python-0.3.36
if [ ! -d "$llama" ]; then
  $python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$peer" llama-cpp-python==0.3.36 ||
    absent llama-cpp-python
  tar -xzf "$llama.tar.gz" -C "$peer"
fi
# Of what vLLM needs, what choosing and constructing a model imports. Not torch: the venv has it.
if [ ! -f "$peer/complete" ]; then
  fetch vllm vllm==0.33.0 openai-harmony oss-harmony mcp==2.2.* anthropic mistral_common gguf compressed-tensors==0.17.0 \
    opentelemetry-api prometheus-fastapi-instrumentator xgrammar==0.2.8 apache-tvm-ffi==0.1.11 llguidance==1.7.* \
    outlines_core==0.2.14 lm-format-enforcer==0.11.3 interegular uvloop
  $python -m pip install --quiet --target "$peer/needs" --upgrade 'transformers>=5.16.1,<5.21' regex cachetools psutil \
    requests tqdm blake3 py-cpuinfo protobuf 'fastapi<0.137' openai 'pydantic>=2.12' orjson prometheus_client pillow tiktoken \
    partial-json-parser pyzmq msgspec pyyaml einops cloudpickle python-json-logger pybase64 cbor2 setproctitle jsonschema \
    aiohttp sentencepiece lark==1.2.2 watchfiles ijson || absent "what vLLM needs"
  touch "$peer/complete"
fi
work=$(mktemp -d /tmp/farskip_tools.XXXXXX)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 HF_HOME=$work/hf VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR PYTHONPATH=$peer/vllm:$peer/needs
export_as() { build/farskip convert "$golden/$1" "$work/models/$1-$2" --connectivity "$2" >/dev/null 2>&1; }
for case in qwen3_moe olmoe mixtral deepseek_v2_lite deepseek_v3; do
  export_as $case standard
  export_as $case farskip
done
export_as qwen3_moe last=1
export_as instella_full farskip

# The converter ends with an error that names the model, and leaves no file; standard models are written.
refused=0 taken=0
for model in "$work"/models/*; do
  name=$(basename "$model") status=0
  $python bench/to_gguf.py "$llama/vendor/llama.cpp" "$model" --outfile "$work/$name.gguf" --outtype f32 >"$work/log" 2>&1 ||
    status=$?
  case $name in
    *-standard)
      [ $status = 0 ] && [ -s "$work/$name.gguf" ] || { cat "$work/log"; echo "llama.cpp refused $name"; exit 1; }
      taken=$((taken + 1)) ;;
    *)
      grep "Model .*MoEForCausalLM is not supported\|Model FarSkip.* is not supported" "$work/log" ||
        { cat "$work/log"; echo "llama.cpp did not say that it refuses $name"; exit 1; }
      [ $status != 0 ] && [ ! -e "$work/$name.gguf" ] || { echo "llama.cpp wrote $name"; exit 1; }
      refused=$((refused + 1)) ;;
  esac
done
echo "llama.cpp: $taken standard models taken, $refused others refused"
$python tests/long/vllm_choice.py "$work"/models/*
echo "llama.cpp and vLLM refuse $refused exports and take $taken"
