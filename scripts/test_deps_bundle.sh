#!/bin/bash
# Builds with FARSKIP_DEPS as an ordinary user of a machine without network and without the packages themselves: a new
# user, in a network namespace with the loopback only and a mount namespace where every file of the -dev packages reads as
# empty, builds a copy of this clone and runs the core's tests and one test of libtorch. Needs root for the namespaces.
# `test_deps_bundle.sh core` stops after the core.
# time limit: 5400
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
root=$PWD

if [ "$(id -u)" != 0 ]; then echo "needs root to make a user and namespaces"; exit 77; fi
torch=$(TORCH_DIR=${TORCH_DIR:-} scripts/torch_prefix.sh)
TORCH_DIR=$(realpath "$torch/../..")
home=$(mktemp -d /tmp/farskip_bundle.XXXXXX)
user=farskip-$$
cleanup() {
  userdel "$user" 2>/dev/null || true
  rm -rf "$home"
}
trap cleanup EXIT
trap "exit 1" INT TERM
scripts/deps_bundle.sh "$home/bundle" || { echo "the bundle could not be made (no network?)"; exit 77; }
useradd --home-dir "$home" --no-create-home --shell /bin/bash "$user"
mkdir "$home/clone"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$home/clone"
chown -R "$user:" "$home"

# What the user runs. Both builds must find everything in the bundle, and the programs must load from it.
cat >"$home/build.sh" <<'SCRIPT'
set -euo pipefail
cd "$HOME/clone"
if ip -o link | grep -qv ': lo:'; then echo "the network is on" >&2; exit 1; fi
if [ -s /usr/include/yaml-cpp/yaml.h ]; then echo "the system's packages are visible" >&2; exit 1; fi

resolves_in_bundle() {  # FOLDER: what CMake found, what the compiler is given, what the loader loads
  local found loaded
  found=$(grep -E '^(CLI11|nlohmann_json|yaml-cpp|GTest)_DIR|^(FMT|SPDLOG|GLOO|PCRE2|SENTENCEPIECE|UTF8PROC|HTTPLIB)_(INCLUDE|LIBRARY)|^OPENSSL_' "$1/CMakeCache.txt")
  echo "$found"
  if grep -v "=$FARSKIP_DEPS/usr/" <<<"$found"; then echo "$1: found outside the bundle (above)" >&2; exit 1; fi
  grep -q "$FARSKIP_DEPS/usr/include" "$1/compile_commands.json"
  loaded=$(ldd "$1/farskip")
  echo "$loaded"
  if grep -E 'yaml-cpp|gloo|libfmt|spdlog|pcre2|sentencepiece|utf8proc|cpp-httplib' <<<"$loaded" | grep -vF "=> $FARSKIP_DEPS/usr/lib"; then
    echo "$1/farskip loads the system's copy (above)" >&2
    exit 1
  fi
  "$1/farskip" --version
}

cmake --preset core -DFARSKIP_DEPS="$FARSKIP_DEPS" --log-level=NOTICE
cmake --build --preset core
resolves_in_bundle build-core
ctest --preset core -j 2
[ "$1" = all ] || exit 0

make build
resolves_in_bundle build
cmake --build build --target test_nn
ctest --preset release -R '^nn\.' --stop-on-failure
SCRIPT

# As root inside the namespaces: hide the packages' files, then become the user.
cat >"$home/hide.sh" <<'SCRIPT'
set -euo pipefail
dpkg -L $(awk '!/^#/ && $2 == "library" {print $1}' "$1/packages.txt") 2>/dev/null | sort -u |
  while read -r file; do [ ! -f "$file" ] || [ -L "$file" ] || echo "$file"; done >/run/hidden || true
while read -r file; do mount --bind /dev/null "$file"; done < <(grep -v '^/usr/share/doc' /run/hidden)
ip link set lo up
exec setpriv --reuid "$2" --regid "$2" --clear-groups env -i HOME="$3" PATH=/usr/bin:/bin LANG=C.UTF-8 \
  FARSKIP_DEPS="$3/bundle" TORCH_DIR="$4" bash "$3/build.sh" "$5"
SCRIPT
unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private bash -c 'mount -t tmpfs none /run; exec bash "$@"' - \
  "$home/hide.sh" "$root" "$user" "$home" "$TORCH_DIR" "${1:-all}"
echo "built and tested from the bundle without network, packages or root"
