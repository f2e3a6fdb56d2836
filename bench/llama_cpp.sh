#!/bin/bash
# llama_cpp.sh [KEY=VALUE...]: build/bench/generate_speed against llama.cpp, whose sources come with llama-cpp-python (PyPI)
# and are built for this machine in out/llama_cpp. Arguments are generate_speed's; models and dtypes default to 150m and
# bf16,fp32. llama.cpp's converter needs transformers, sentencepiece and numpy beside the project's venv: PYTHONPATH says where.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
python=.venv/bin/python
version=0.3.36
folder=out/llama_cpp
source=$folder/llama_cpp_python-$version/vendor/llama.cpp
speed=build/bench/generate_speed
[ -x $speed ] || { echo "$speed is missing: ninja -C build generate_speed" >&2; exit 1; }
mkdir -p $folder
if [ ! -d $source ]; then
  $python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $folder llama-cpp-python==$version
  tar -xzf $folder/llama_cpp_python-$version.tar.gz -C $folder
fi
if [ ! -x $folder/build/bin/llama-bench ] || [ ! -x $folder/build/bin/llama-quantize ]; then
  cmake -S $source -B $folder/build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >$folder/build.log
  cmake --build $folder/build --target llama-bench llama-quantize -j "$(nproc)" >>$folder/build.log
fi

models=150m dtypes=bf16,fp32 work=out/generate_speed
for argument in "$@"; do
  case $argument in
    models=*) models=${argument#*=} ;;
    dtypes=*) dtypes=${argument#*=} ;;
    work=*) work=${argument#*=} ;;
  esac
done
# With no peer to start and no form of ours to compare, it makes the models.
$speed models="$models" dtypes="$dtypes" work="$work" settings= quantizations= >/dev/null
for model in ${models//,/ }; do
  for dtype in ${dtypes//,/ }; do
    to=$work/$model-$dtype
    plain=f32
    [ "$dtype" = fp32 ] || plain=bf16
    [ -f "$to/$plain.gguf" ] || $python bench/to_gguf.py $source "$to" --outfile "$to/$plain.gguf" --outtype $plain >/dev/null 2>&1
    for type in q8_0 q4_0; do
      [ -f "$to/$type.gguf" ] || $folder/build/bin/llama-quantize "$to/$plain.gguf" "$to/$type.gguf" $type >/dev/null 2>&1
    done
  done
done
$speed models="$models" dtypes="$dtypes" work="$work" settings= quantizations= llama_bench=$folder/build/bin/llama-bench "$@"
