#!/bin/bash
# deps.sh KIND...: installs the Debian packages of these kinds (packages.txt) that are missing; says nothing when none is.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${FARSKIP_DEPS:-}" ]; then
  [ -d "$FARSKIP_DEPS/usr/include" ] || { echo "FARSKIP_DEPS=$FARSKIP_DEPS: not a folder made by \`make deps-bundle\`" >&2; exit 1; }
  exit 0
fi

wanted=()
for kind in "$@"; do
  mapfile -t -O "${#wanted[@]}" wanted < <(awk -v kind="$kind" '!/^#/ && $2 == kind {print $1}' packages.txt)
done
if ! command -v dpkg-query >/dev/null; then
  echo "Not a Debian system, so nothing is installed; the build needs the equivalents of: ${wanted[*]}" >&2
  exit 0
fi
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | awk '$1 == "installed" {print $2}' || true)
mapfile -t missing < <(printf '%s\n' "${wanted[@]}" | grep -vxF -f <(printf '%s\n' "$installed") || true)
[ ${#missing[@]} -gt 0 ] || exit 0

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [ "$(id -u)" = 0 ]; then
  as_root=(env)
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
  as_root=(sudo)
else
  cat >&2 <<MESSAGE
Missing Debian packages, and neither root nor sudo to install them. Either let an administrator run
  ${install[*]}
or, on any machine with the network, run \`make deps-bundle\`, copy its folder here and give FARSKIP_DEPS=<that folder>.
MESSAGE
  exit 1
fi
echo "Installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}"; } </dev/null >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "Could not run: ${install[*]}" >&2
  exit 1
fi
