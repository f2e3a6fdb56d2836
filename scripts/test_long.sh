#!/bin/bash
# test_long.sh [PATTERN]: runs the executable scripts tests/long/*.sh in order (those whose name contains PATTERN), each
# within the seconds of its line "# time limit: N" (else half an hour), and sums up. Status 77 of a script means skipped,
# with its last line as the reason. Logs: build-long/NAME.log.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=build-long
mkdir -p $logs
passed=0 failed=0 skipped=0
for script in tests/long/*"${1:-}"*.sh; do
  [ -x "$script" ] || continue
  name=$(basename "$script" .sh)
  limit=$(sed -n 's/^# time limit: *\([0-9]*\).*/\1/p' "$script" | head -n 1)
  printf '%-28s' "$name"
  begin=$SECONDS status=0
  timeout --kill-after=30 "${limit:-1800}" "$script" >"$logs/$name.log" 2>&1 </dev/null || status=$?
  took="$((SECONDS - begin)) s"
  case $status in
    0) passed=$((passed + 1)); echo "passed in $took: $(tail -n 1 "$logs/$name.log")" ;;
    77) skipped=$((skipped + 1)); echo "skipped: $(tail -n 1 "$logs/$name.log")" ;;
    *) failed=$((failed + 1))
       [ $status = 124 ] && took="more than ${limit:-1800} s"
       echo "FAILED after $took (status $status), $logs/$name.log ends:"
       tail -n 20 "$logs/$name.log" | sed 's/^/    /' ;;
  esac
done
if [ $((passed + failed + skipped)) = 0 ]; then
  echo "no script matches tests/long/*${1:-}*.sh" >&2
  exit 1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
