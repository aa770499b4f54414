#!/bin/bash
# instructions.sh - counts the processor instructions of the data path's parts, for one operation each, and compares
# them with tests/Outboard.Instructions/instructions.tsv. Unlike times, counts are the same on a busy machine.
#
#   eng/instructions.sh [--update]
#
# The ahead-of-time compiled bodies run under valgrind (from the peers tree), each with few and with many runs; the
# difference is free of the start. More than 3 % above the file fails; --update writes the file anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

FEW=10 MANY=50 TOLERANCE_PERCENT=3
BUDGET=tests/Outboard.Instructions/instructions.tsv
OUT=artifacts/instructions

dotnet publish tests/Outboard.Instructions -c Release -r linux-x64 -p:OutboardAot=true -o "$OUT" -v quiet >&2
# valgrind reads debug information beside the program, and gives up on this one
rm -f "$OUT"/*.dbg
eng/peers.sh --with valgrind > /dev/null

# count BODY RUNS: instructions of the whole process. The runtime's heap must fit into valgrind's address space.
count() {
  DOTNET_GCHeapHardLimit=8000000 eng/peer.sh valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    "$PWD/$OUT/Outboard.Instructions" "$1" "$2" 2>&1 | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

counted=$(mktemp)
trap 'rm -f "$counted"' EXIT
"$OUT/Outboard.Instructions" | while IFS=$'\t' read -r operations body; do
  few=$(count "$body" $FEW)
  many=$(count "$body" $MANY)
  [ -n "$few" ] && [ -n "$many" ] || { echo "instructions: '$body' was not counted" >&2; exit 1; }
  printf '%s\t%s\n' $(((many - few) / ((MANY - FEW) * operations))) "$body"
done > "$counted"

if [ "${1:-}" = --update ]; then
  cp "$counted" "$BUDGET"
  cat "$BUDGET"
  exit
fi

awk -F '\t' -v tolerance=$TOLERANCE_PERCENT '
  NR == FNR { budget[$2] = $1; next }
  {
    allowed = budget[$2] * (1 + tolerance / 100) + 1
    bad = !($2 in budget) || $1 > allowed
    failed += bad
    printf "%6d instructions, budget %6d%s  %s\n", $1, budget[$2], bad ? "  TOO MANY" : "", $2
  }
  END { exit failed > 0 }' "$BUDGET" "$counted" || {
    echo "instructions: a body takes more than $BUDGET allows; make it cheaper, or run eng/instructions.sh --update" >&2
    exit 1
  }
