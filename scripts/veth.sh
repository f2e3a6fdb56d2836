#!/usr/bin/env bash
# Runs a command as rank 0 and as rank 1 in two network namespaces that a rate-limited veth pair joins, with torchrun's
# variables, and takes everything down again:
#
#   scripts/veth.sh --rate 2gbit --latency 50us -- build/farskip bench train --preset small-moonlight \
#     --transport gloo --link none --rounds 20 --json veth.json
#
#   --rate RATE      of each direction, as tc spells it (default 2gbit)
#   --latency TIME   one way, in us, ms or s (default 0us); needs the kernel's netem
#   --burst BYTES    the token bucket (default 64kb); far below a message, or the limit is none
#   --port PORT      of the store (default 29500)
# Needs root, ip and tc (package iproute2). Exit status: that of the first rank that failed, else 0.
set -euo pipefail

rate=2gbit latency=0us burst=64kb port=29500
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }
die() { echo "veth.sh: $*" >&2; exit 1; }
while [ $# -gt 0 ]; do
  case $1 in
    --rate|--latency|--burst|--port) [ $# -ge 2 ] || die "$1 needs a value"; printf -v "${1#--}" %s "$2"; shift 2 ;;
    -h|--help) usage; exit 0 ;;
    --) shift; break ;;
    *) die "unknown option $1; the command comes after --" ;;
  esac
done
[ $# -gt 0 ] || die "no command given; see scripts/veth.sh --help"
[ "$(id -u)" -eq 0 ] || die "network namespaces need root; run it with sudo"
for tool in ip tc; do
  command -v "$tool" >/dev/null || die "'$tool' is missing; install the package iproute2"
done

# Names of this run alone, so that several can run beside each other.
names=(farskip$$a farskip$$b)
ranks=()
clean_up() {
  trap '' INT TERM
  for pid in ${ranks[@]+"${ranks[@]}"}; do kill "$pid" 2>/dev/null || true; done
  for pid in ${ranks[@]+"${ranks[@]}"}; do wait "$pid" 2>/dev/null || true; done
  for name in "${names[@]}"; do ip netns del "$name" 2>/dev/null || true; done # the pair goes with them
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for name in "${names[@]}"; do ip netns add "$name" || die "cannot make the network namespace $name"; done
ip link add "v$$a" netns "${names[0]}" type veth peer name "v$$b" netns "${names[1]}" || die "cannot make a veth pair"
for r in 0 1; do
  device=v$$$([ $r = 0 ] && echo a || echo b)
  inside=(ip netns exec "${names[$r]}")
  "${inside[@]}" ip address add "10.77.0.$((r + 1))/24" dev "$device"
  "${inside[@]}" ip link set lo up
  # Without segmentation offload a packet is at most an MTU, which the bucket can hold.
  "${inside[@]}" ip link set "$device" mtu 9000 gso_max_size 9000 up
  # The queue holds 50 ms: the limit delays, it does not drop.
  "${inside[@]}" tc qdisc add dev "$device" root handle 1: tbf rate "$rate" burst "$burst" latency 50ms ||
    die "tc refused rate '$rate' and burst '$burst'"
  if [[ ! $latency =~ ^0[a-z]*$ ]]; then
    "${inside[@]}" tc qdisc add dev "$device" parent 1: handle 2: netem delay "$latency" limit 100000 ||
      die "tc refused latency '$latency' (netem); give --latency 0us"
  fi
done

for r in 0 1; do
  RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r LOCAL_WORLD_SIZE=2 MASTER_ADDR=10.77.0.1 MASTER_PORT=$port \
    ip netns exec "${names[$r]}" "$@" &
  ranks+=($!)
done
status=0
for pid in "${ranks[@]}"; do wait "$pid" || { code=$?; [ $status -ne 0 ] || status=$code; }; done
ranks=()
exit $status
