#!/bin/bash
# The long kill run: 'outboard block' is killed 1,000 times under a verified load with split virtqueues and 1,000 times
# with packed ones, over page cache, io_uring with O_DIRECT and threads, with one and with several queues. Prints a line
# for each part, and ends with status 1 if a request was lost or doubled or a block was wrong. About half an hour.
#
#   eng/kill-run.sh [SHARE]     SHARE divides the numbers of kills: 25 makes it a run of some 80
#   OUTBOARD=PROGRAM            the program; built and taken from tools/ otherwise
#   KILL_RUN_FOLDER=PATH        where disk images are made; artifacts/kill-run otherwise (O_DIRECT needs a real disk)
set -eu
cd "$(dirname "$0")/.."

share=${1:-1}
folder=${KILL_RUN_FOLDER:-artifacts/kill-run}
program=${OUTBOARD:-}
if [ -z "$program" ]; then
  dotnet build tools/Outboard.Cli -c Release -v q -nologo
  program=tools/Outboard.Cli/bin/Release/net10.0/outboard
fi
mkdir -p "$folder"

field() { sed -n "s/^ *\"$1\": \(.*[^,]\),\{0,1\}\$/\1/p"; }

status=0
total=0
part() {
  local kills=$(($1 / share))
  shift
  local result
  result=$("$program" bench kill --kills="$kills" --folder="$folder" --json "$@") || status=1
  total=$((total + $(echo "$result" | field kills)))
  printf '%s\n' "$(date -u +%H:%M) kills $(echo "$result" | field kills)" \
    "in flight $(echo "$result" | field requestsInFlightAtKills)" \
    "completed $(echo "$result" | field completed)" \
    "compared $(echo "$result" | field comparedBlocks)" \
    "lost $(echo "$result" | field lost)" \
    "doubled $(echo "$result" | field doubled)" \
    "wrong $(echo "$result" | field wrong)" \
    "seconds $(echo "$result" | field seconds)" "$*" | paste -sd '|' -
}

for ring in '' --packed; do
  part 400 $ring --seed=1
  part 200 $ring --seed=2 --indirect --queues=2
  part 200 $ring --seed=3 --io=io_uring --direct --queues=3
  part 150 $ring --seed=4 --io=threads --direct --queues=2 --indirect
  part 50 $ring --seed=5 --no-inflight --queues=2
done
echo "$total kills, status $status"
exit $status
