#!/bin/bash
# deps_bundle.sh DIR: unpacks the packages of kind `library` (packages.txt) and the libraries they are the headers of into
# DIR/usr, for builds with FARSKIP_DEPS=DIR on a machine without root, apt or network. Needs apt and the network, not root.
set -euo pipefail
bundle=$(realpath -m "$1")
cd "$(dirname "$0")/.."
limit_mib=40
marker=farskip-bundle.txt  # lists the packages; a folder without it is not ours to replace
if [ -e "$bundle" ] && [ ! -f "$bundle/$marker" ]; then
  echo "$bundle exists and is not a bundle; give another folder: make deps-bundle BUNDLE=DIR" >&2
  exit 1
fi

mapfile -t wanted < <(awk '!/^#/ && $2 == "library" {print $1}' packages.txt)
# A -dev package depends on its library, and gtest's on its sources, with the very same version "(= ...)".
same_version_depends() {
  apt-cache show --no-all-versions "$@" | sed -n 's/^Depends: //p' | tr ',' '\n' | sed -n 's/^ *\([^ :]*\)[^ ]* (= .*)$/\1/p'
}
frontier=("${wanted[@]}")
while [ ${#frontier[@]} -gt 0 ]; do
  mapfile -t found < <(same_version_depends "${frontier[@]}" | sort -u | grep -vxF -f <(printf '%s\n' "${wanted[@]}") || true)
  wanted+=("${found[@]}")
  frontier=("${found[@]}")
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/debs" "$work/root"
echo "Unpacking ${wanted[*]}"
if ! (cd "$work/debs" && apt-get -o APT::Sandbox::User= download "${wanted[@]}" >"$work/log" 2>&1); then
  tail -n 20 "$work/log" >&2
  echo "apt-get download failed; has \`apt-get update\` been run on this machine?" >&2
  exit 1
fi
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
rm -rf "$work/root/usr/src" "$work/root/usr/share/man"  # sources of gtest, manuals; licences in usr/share/doc stay

(cd "$work/debs" && printf '%s\n' *.deb) >"$work/root/$marker"

size_kib=$(du -sk "$work/root" | cut -f1)
if [ "$size_kib" -gt $((limit_mib * 1024)) ]; then
  echo "the bundle has $((size_kib / 1024)) MiB, more than $limit_mib" >&2
  exit 1
fi
mkdir -p "$(dirname "$bundle")"
rm -rf "$bundle.old" && { [ ! -e "$bundle" ] || mv "$bundle" "$bundle.old"; }
mv "$work/root" "$bundle" && rm -rf "$bundle.old"
chmod 755 "$bundle"
echo "$bundle: $((size_kib / 1024)) MiB. Build with: make build FARSKIP_DEPS=$bundle TORCH_DIR=<folder of a torch wheel>"
