#!/bin/bash
# bench.sh - measures "outboard block" side by side with qemu-storage-daemon; writes docs/BENCHMARKS.md and its plots.
#
#   eng/bench.sh [--duration SECONDS] [--pairs N] [--folder FOLDER] [--program PATH] [--out FOLDER] [--only WHAT]
#
# The same load generator (outboard bench block) runs strictly alternately on both, A B B A A B ..., on the same file.
# qemu-storage-daemon runs once for each of its aio modes, and the best of them counts, load by load. As a cross-check a
# foreign load generator (qemu-img bench, on libblkio) runs alternately, too.
#   --duration  measured seconds of each run [0.4]        --pairs    runs of each, for each load [5]
#   --folder    where the disk image goes [/var/tmp]      --out      where the report goes [docs]
#   --program   the program instead of a Release build    --only     null, file, direct, start or check, repeatedly
# With the defaults it takes some eight minutes. Needs what eng/peers.sh needs, two processors, and 1 GiB of disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

DURATION=0.4 PAIRS=5 FOLDER=/var/tmp OUT=docs PROGRAM= ONLY=
WARM_UP=0.15 IMAGE_MIB=1024 START_RUNS=15 LISTEN_LIMIT_S=30
BACKEND_CPU=0 OTHER_CPU=1
EXPORT=type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix
COMMAND=$(echo "eng/bench.sh $*" | sed 's/ *$//')

fail() { printf 'bench: %s; remedy: %s\n' "$1" "$2" >&2; exit 1; }
say() { printf '[%4d s] %s\n' "$SECONDS" "$*" >&2; }

while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 has no value" "see the head of eng/bench.sh"
  case $1 in
    --duration) DURATION=$2 ;;
    --pairs) PAIRS=$2 ;;
    --folder) FOLDER=$2 ;;
    --program) PROGRAM=$2 ;;
    --out) OUT=$2 ;;
    --only) ONLY="$ONLY $2" ;;
    *) fail "unknown argument '$1'" "see the head of eng/bench.sh" ;;
  esac
  shift 2
done
wanted() { [ -z "$ONLY" ] || [[ " $ONLY " = *" $1 "* ]]; }

[ "$(nproc)" -ge 2 ] || fail "this machine has one processor" "use one with two"
# A high priority for this session, if the machine gives it: then other programs disturb less.
{ echo -17 > /proc/self/autogroup; } 2>/dev/null || true

eng/peers.sh > /dev/null
if [ -z "$PROGRAM" ]; then
  say "building"
  dotnet build tools/Outboard.Cli -c Release -v quiet >&2
  PROGRAM=tools/Outboard.Cli/bin/Release/net10.0/outboard
fi
LOAD=tools/Outboard.Cli/bin/Release/net10.0/outboard
[ -x "$LOAD" ] || LOAD=$PROGRAM
export DOTNET_ROOT=${DOTNET_ROOT:-$(dirname "$(readlink -f "$(command -v dotnet)")")}

WORK=$(mktemp -d "$FOLDER/outboard-bench.XXXXXX")
RESULTS=$WORK/results.tsv
PIDS=()
stop_all() {
  local pid
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
  PIDS=()
}
finish() {
  stop_all
  rm -rf "$WORK"
  { echo 0 > /proc/self/autogroup; } 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM

# start NAME COMMAND...: a back-end that listens at $WORK/NAME; its process id goes to PID_NAME.
start() {
  local name=$1 deadline=$((SECONDS + LISTEN_LIMIT_S))
  shift
  taskset -c $BACKEND_CPU "$@" > "$WORK/$name.log" 2>&1 &
  PIDS+=($!)
  declare -g "PID_$name=$!"
  until grep -q " $WORK/$name\$" /proc/net/unix; do
    kill -0 $! 2>/dev/null || fail "$name ended: $(tail -n 3 "$WORK/$name.log")" "see its options in eng/bench.sh"
    [ "$SECONDS" -lt "$deadline" ] || fail "$name does not listen" "see its options in eng/bench.sh"
    sleep 0.05
  done
}

start_outboard() { start ours "$PROGRAM" block "--socket-path=$WORK/ours" --quiet "$@"; }

# start_daemon NAME BLOCKDEV: qemu-storage-daemon with an I/O thread of its own, which is its faster way.
start_daemon() {
  start "$1" eng/peer.sh qemu-storage-daemon --object iothread,id=thread --blockdev "$2,node-name=disk" \
    --export "$EXPORT,addr.path=$WORK/$1,iothread=thread"
}

# The program sees one processor when it is pinned to one, and never polls then; on two processors it may know of both.
both_cpus() { [ "$1" = one ] && unset DOTNET_PROCESSOR_COUNT || export DOTNET_PROCESSOR_COUNT=2; }

start_null() {
  start_outboard --null-size=1G
  start_daemon qsd driver=null-co,size=1073741824,read-zeroes=off
  NAMES=(ours qsd)
}

start_file() {
  start_outboard "--blk-file=$WORK/image" --io=auto
  start_daemon qsd_threads "driver=file,filename=$WORK/image,locking=off,aio=threads"
  start_daemon qsd_io_uring "driver=file,filename=$WORK/image,locking=off,aio=io_uring"
  NAMES=(ours qsd_threads qsd_io_uring)
}

start_direct() {
  local file=driver=file,filename=$WORK/image,locking=off,cache.direct=on
  start_outboard "--blk-file=$WORK/image" --direct
  start_daemon qsd_native "$file,aio=native"
  start_daemon qsd_io_uring "$file,aio=io_uring"
  NAMES=(ours qsd_native qsd_io_uring)
}

# field KEY: a number of the load generator's JSON, which is one key a line.
field() { sed -n "s/^ *\"$1\": \([0-9.eE+-]*\),*\$/\1/p" "$WORK/json" | head -n 1; }

# measure STORAGE PLACE MODE LOAD NAME ROUND ARGUMENT...: one run, one line of results.
measure() {
  local storage=$1 place=$2 mode=$3 load=$4 name=$5 round=$6 cpu=$OTHER_CPU pid
  shift 6
  [ "$place" = one ] && cpu=$BACKEND_CPU
  pid=PID_$name
  timeout 60 "$LOAD" bench block "--socket-path=$WORK/$name" "--mode=$mode" "--duration=$DURATION" \
    "--warm-up=$WARM_UP" "--cpu=$cpu" "--distance-to=$BACKEND_CPU" "--backend-pid=${!pid}" --json "$@" \
    > "$WORK/json" 2> "$WORK/errors" ||
    { say "FAILED: $storage $place $mode $load $name: $(head -n 1 "$WORK/errors")"; return 0; }
  printf '%s\t' load "$storage" "$place" "$mode" "$load" "$name" "$round" "$(field medianWindowIops)" "$(field p50)" \
    "$(field p99)" "$(sed -n '/"backend"/,/}/s/^ *"cpuUsPerIo": \([0-9.]*\),*$/\1/p' "$WORK/json")" \
    "$(field peakRssKiB)" >> "$RESULTS"
  printf '%s\n' "$(field cpuDistanceNs)" >> "$RESULTS"
}

# alternate STORAGE PLACE MODE LOAD ARGUMENT...: all back-ends in turn, then in reverse, and so on.
alternate() {
  local storage=$1 place=$2 mode=$3 load=$4 round i order
  shift 4
  say "$storage, $place CPU, $mode: $load"
  for round in $(seq "$PAIRS"); do
    order=("${NAMES[@]}")
    if [ $((round % 2)) = 0 ]; then
      order=()
      for ((i = ${#NAMES[@]} - 1; i >= 0; i--)); do order+=("${NAMES[i]}"); done
    fi
    for name in "${order[@]}"; do measure "$storage" "$place" "$mode" "$load" "$name" "$round" "$@"; done
  done
}

random_loads() {
  local depth
  for depth in 1 32 128; do
    alternate "$1" "$2" "$3" "4 KiB random read, depth $depth" "--queue-depth=$depth"
    [ "$1" = null ] ||
      alternate "$1" "$2" "$3" "4 KiB random write, depth $depth" "--queue-depth=$depth" --read-percent=0
  done
}

sequential_loads() {
  local shape=(--block-size=128K --queue-depth=8 --sequential)
  alternate "$1" "$2" "$3" "128 KiB sequential read, depth 8" "${shape[@]}"
  alternate "$1" "$2" "$3" "128 KiB sequential write, depth 8" "${shape[@]}" --read-percent=0
}

# Polling on one processor would only wait for its end; a disk is too slow to be polled for.
modes_of() {
  case $1-$2 in
    *-one | direct-*) echo irq ;;
    *) echo irq poll ;;
  esac
}

measure_storage() {
  local storage=$1 place mode
  for place in one two; do
    both_cpus "$place"
    "start_$storage"
    for mode in $(modes_of "$storage" "$place"); do
      random_loads "$storage" "$place" "$mode"
      [ "$storage" != file ] || [ "$mode" != irq ] || sequential_loads "$storage" "$place" "$mode"
    done
    stop_all
  done
}

# The other load generator: requests a second, from the time that it says it took.
cross_check() {
  local name round count=200000 order seconds
  both_cpus two
  start_file
  say "cross-check with qemu-img bench"
  for round in $(seq "$PAIRS"); do
    order="ours qsd_io_uring qsd_threads"
    [ $((round % 2)) = 1 ] || order="qsd_threads qsd_io_uring ours"
    for name in $order; do
      seconds=$(taskset -c $OTHER_CPU eng/peer.sh qemu-img bench -c $count -d 32 -s 4096 -t none --image-opts \
        "driver=virtio-blk-vhost-user,path=$WORK/$name,cache.direct=on" |
        sed -n 's/.*completed in \([0-9.]*\) sec.*/\1/p')
      printf 'check\t%s\t%s\t%s\n' "$name" "$round" "$(awk "BEGIN { print $count / $seconds }")" >> "$RESULTS"
    done
  done
  stop_all
}

# start_times NAME RUNNER COMMAND...: from exec until the socket listens, measured inside the runner's world.
start_times() {
  local name=$1 runner=$2
  shift 2
  $runner bash -c '
    path=$1 runs=$2; shift 2
    for ((run = 0; run < runs; run++)); do
      rm -f "$path"
      from=${EPOCHREALTIME/./}
      "$@" > /dev/null 2>&1 &
      until while read -r _ _ _ flags _ _ _ where; do
          [ "$where" = "$path" ] && [ "$flags" = 00010000 ] && break
        done < /proc/net/unix; do :; done
      to=${EPOCHREALTIME/./}
      sleep 0.05
      read -r _ pages _ < "/proc/$!/statm" && read -r _ resident _ < "/proc/$!/statm"
      echo "$((to - from)) $((resident * 4))"
      kill $!; wait $! 2> /dev/null
    done' start "$WORK/start" "$START_RUNS" "$@" |
    while read -r us kib; do printf 'start\t%s\t%s\t%s\n' "$name" "$us" "$kib"; done >> "$RESULTS"
}

measure_start() {
  say "start-up"
  unset DOTNET_PROCESSOR_COUNT
  start_times "outboard block" "" "$PROGRAM" block "--socket-path=$WORK/start" "--blk-file=$WORK/image" --quiet
  [ ! -x artifacts/aot/outboard ] || start_times "outboard block, ahead-of-time compiled" "" \
    artifacts/aot/outboard block "--socket-path=$WORK/start" "--blk-file=$WORK/image" --quiet
  start_times qemu-storage-daemon eng/peer.sh qemu-storage-daemon \
    --blockdev "driver=file,filename=$WORK/image,locking=off,aio=io_uring,node-name=disk" \
    --export "$EXPORT,addr.path=$WORK/start"
}

say "making an image of $IMAGE_MIB MiB in $WORK"
head -c "${IMAGE_MIB}M" /dev/zero | tr '\0' '\125' > "$WORK/image"
sync "$WORK/image"
: > "$RESULTS"
! wanted start || measure_start
for storage in null file direct; do
  ! wanted "$storage" || measure_storage "$storage"
done
! wanted check || cross_check

say "writing the report"
mkdir -p "$OUT"
{
  printf 'info\tmachine\t%s, %s processors, Linux %s\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)"
  printf 'info\tfile system\t%s\n' "$(stat -f -c %T "$WORK")"
  printf 'info\tdate\t%s\n' "$(date -u +%F)"
  printf 'info\tcommand\t%s\n' "$COMMAND"
  printf 'info\trun\t%s s measured after %s s, %s runs of each\n' "$DURATION" "$WARM_UP" "$PAIRS"
  printf 'info\tpeer\t%s\n' "$(eng/peer.sh qemu-storage-daemon --version | head -n 1)"
  printf 'info\tprogram\t%s\n' "$("$PROGRAM" --version)"
} >> "$RESULTS"
cp "$RESULTS" "$OUT/benchmarks.tsv"
dotnet run --file eng/bench-report.cs -- "$OUT/benchmarks.tsv" "$OUT"
say "done: $OUT/BENCHMARKS.md"
