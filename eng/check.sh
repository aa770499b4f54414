#!/usr/bin/env bash
# All checks of this project, as CI runs them: builds everything with warnings as errors, runs the unit tests, brings the
# foreign programs (eng/peers.sh) and runs the tests against them, makes the packages, builds the ahead-of-time compiled
# program, runs the demo with it and counts the data path's instructions. Prints one line of counts at the end; exits
# with 1 when anything failed.
#
#   eng/check.sh            everything
#   eng/check.sh unit       build and unit tests only
set -u -o pipefail
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
scope=${1:-all}
logs=artifacts/check
mkdir -p "$logs"
passed=0 failed=0 skipped=0
begun=$SECONDS

say() { printf '[%4d s] %s\n' "$((SECONDS - begun))" "$*"; }

# step NAME COMMAND...: one check, counted as one.
step() {
  local name=$1 log
  shift
  log="$logs/${name// /-}.log"
  say "$name"
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    say "FAILED: $name ($log)"
    tail -n 60 "$log"
    return 1
  fi
}

# suite NAME PROJECT: a test project, each of its tests counted.
suite() {
  local name=$1 project=$2 log="$logs/$1.log" status=0
  say "tests: $name"
  # measurements and the bodies of child processes are run by hand only; they are no tests
  timeout 2400 dotnet test --project "$project" -c Release --no-build --no-progress \
    --filter-not-class "*Measurements" --filter-not-method "*.Child_*" >"$log" 2>&1 || status=$?
  local total_failed total_passed total_skipped
  total_failed=$(sed -n 's/^ *failed: *\([0-9]*\).*/\1/p' "$log" | tail -n 1)
  total_passed=$(sed -n 's/^ *succeeded: *\([0-9]*\).*/\1/p' "$log" | tail -n 1)
  total_skipped=$(sed -n 's/^ *skipped: *\([0-9]*\).*/\1/p' "$log" | tail -n 1)
  passed=$((passed + ${total_passed:-0}))
  failed=$((failed + ${total_failed:-0}))
  skipped=$((skipped + ${total_skipped:-0}))
  say "tests: $name: ${total_passed:-0} passed, ${total_failed:-0} failed, ${total_skipped:-0} skipped"
  if [ "$status" -ne 0 ] || [ -z "${total_passed:-}" ] || [ "${total_passed:-0}" -eq 0 ]; then
    [ "${total_failed:-0}" -gt 0 ] || failed=$((failed + 1))
    grep -vE '^ *(at |---)' "$log" | tail -n 120
  fi
}

finish() {
  say "done"
  if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
  else
    echo "$passed passed, $failed failed"
  fi
  [ "$failed" -eq 0 ] && exit 0 || exit 1
}

step "build" dotnet build Outboard.slnx -c Release || finish
suite unit tests/Outboard.Tests
[ "$scope" = unit ] && finish

step "foreign programs" bash eng/peers.sh --with dpdk,virtiofsd,passt,vsock,gpu,uefi
step "guest image" bash eng/guest/build.sh
# before the tests that start it inside a virtual machine, or they would build it
step "ahead-of-time build" bash eng/aot.sh
suite interop tests/Outboard.InteropTests
step "demo" dotnet run --project tools/Outboard.Cli -c Release --no-build -- demo
step "packages" dotnet pack Outboard.slnx -c Release --no-build -o artifacts/packages
step "ahead-of-time demo" artifacts/aot/outboard demo
step "kills of devices with state" eng/journal-kills.sh 1200
step "instruction counts" eng/instructions.sh
finish
