#!/bin/bash
# bench.sh - measures "outboard" side by side with its peers; writes docs/BENCHMARKS.md, plots, and docs/bench/*.tsv.
#
#   eng/bench.sh [--duration SECONDS] [--pairs N] [--folder FOLDER] [--keep FOLDER] [--program PATH] [--out FOLDER]
#                [--only PART]...
#
# The same load generator (outboard bench block) runs strictly alternately on all, A B C C B A ..., on the same file.
# qemu-storage-daemon runs once for each of its aio modes, the program on Rust's vhost-user-backend once for each of its
# engines, and the best of each counts, load by load. As a cross-check a foreign load generator (qemu-img bench, on
# libblkio) runs alternately, too; and DPDK's testpmd sends packets to our network device and to DPDK's own.
#   --duration  measured seconds of each run [0.4]        --pairs    runs of each, for each load [5]
#   --folder    where the disk image goes [/var/tmp]      --out      where the report goes [docs]
#   --program   the program instead of a Release build
#   --keep      where the peer, the image and the published forms stay for another call, that then only measures
#   --only      null, file, direct, queues, rings, start, check, net or appliance, repeatedly; the others keep what they
#               had; or forms, which measures nothing and makes what --keep keeps
# All of it takes some 25 minutes. Needs what eng/peers.sh needs, two processors, and 3 GiB of disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

DURATION=0.4 PAIRS=5 FOLDER=/var/tmp OUT=docs PROGRAM= ONLY= KEEP=
WARM_UP=0.3 IMAGE_MIB=1024 START_RUNS=15 LISTEN_LIMIT_S=30 PARTS="null file direct queues rings start check net appliance"
BACKEND_CPU=0 OTHER_CPU=1
EXPORT=type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix
QUEUES=1
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
    --keep) KEEP=$2 ;;
    --only) ONLY="$ONLY $2" ;;
    *) fail "unknown argument '$1'" "see the head of eng/bench.sh" ;;
  esac
  shift 2
done
for part in $ONLY; do [[ " $PARTS forms " = *" $part "* ]] || fail "there is no part '$part'" "choose from: $PARTS"; done

[ "$(nproc)" -ge 2 ] || fail "this machine has one processor" "use one with two"
# A high priority for this session, if the machine gives it: then other programs disturb less.
{ echo -17 > /proc/self/autogroup; } 2>/dev/null || true

eng/peers.sh --with rust,dpdk > /dev/null
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
BUILT=${KEEP:-$WORK}
mkdir -p "$BUILT"
RUST=$BUILT/build/release/rust-blk RUST_SOURCE=tests/Outboard.Benchmarks/Peers/rust-blk/Cargo.toml
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

start_outboard() { start ours "$PROGRAM" block "--socket-path=$WORK/ours" "--num-queues=$QUEUES" --quiet "$@"; }

# start_daemon NAME BLOCKDEV: qemu-storage-daemon with an I/O thread of its own, which is its faster way.
start_daemon() {
  start "$1" eng/peer.sh qemu-storage-daemon --object iothread,id=thread --blockdev "$2,node-name=disk" \
    --export "$EXPORT,num-queues=$QUEUES,addr.path=$WORK/$1,iothread=thread"
}

# start_rust NAME ARGUMENT...: the program on the crates of rust-vmm; with --poll-us it polls as long as ours may.
start_rust() {
  local name=$1
  shift
  start "$name" eng/peer.sh "$RUST" --socket "$WORK/$name" --queues "$QUEUES" "$@"
}

build_rust() {
  local crates=/usr/share/cargo/registry
  [ ! -x "$RUST" ] || return 0
  say "building the program on Rust's crates"
  CARGO_HOME=$WORK/cargo CARGO_TARGET_DIR=$BUILT/build CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=gcc \
    eng/peer.sh cargo build --quiet --release --offline --manifest-path "$RUST_SOURCE" \
    --config 'source.crates-io.replace-with="debian"' --config "source.debian.directory=\"$crates\"" >&2 ||
    fail "the program on Rust's crates does not build" "see above"
}

# The program sees one processor when it is pinned to one, and never polls then; on two processors it may know of both.
both_cpus() { [ "$1" = one ] && unset DOTNET_PROCESSOR_COUNT || export DOTNET_PROCESSOR_COUNT=2; }

start_null() {
  start_outboard --null-size=1G
  start_daemon qsd driver=null-co,size=1073741824,read-zeroes=off
  start_rust rust --engine null
  start_rust rust_polling --engine null --poll-us 50
  NAMES=(ours qsd rust rust_polling)
}

start_file() {
  start_outboard "--blk-file=$BUILT/image" --io=auto
  start_daemon qsd_threads "driver=file,filename=$BUILT/image,locking=off,aio=threads"
  start_daemon qsd_io_uring "driver=file,filename=$BUILT/image,locking=off,aio=io_uring"
  start_rust rust_sync --engine sync --file "$BUILT/image"
  start_rust rust_sync_polling --engine sync --file "$BUILT/image" --poll-us 50
  NAMES=(ours qsd_threads qsd_io_uring rust_sync rust_sync_polling)
}

start_direct() {
  local file=driver=file,filename=$BUILT/image,locking=off,cache.direct=on
  start_outboard "--blk-file=$BUILT/image" --direct
  start_daemon qsd_native "$file,aio=native"
  start_daemon qsd_io_uring "$file,aio=io_uring"
  start_rust rust_uring --engine uring --direct --file "$BUILT/image"
  start_rust rust_uring_polling --engine uring --direct --file "$BUILT/image" --poll-us 50
  NAMES=(ours qsd_native qsd_io_uring rust_uring rust_uring_polling)
}

# field KEY: a number of the load generator's JSON, which is one key a line.
field() { sed -n "s/^ *\"$1\": \([0-9.eE+-]*\),*\$/\1/p" "$WORK/json" | head -n 1; }

# measure STORAGE PLACE MODE LOAD NAME ROUND ARGUMENT...: one run, one line of results.
measure() {
  local storage=$1 place=$2 mode=$3 load=$4 name=$5 round=$6 cpu=$OTHER_CPU pid
  shift 6
  [ "$place" = one ] && cpu=$BACKEND_CPU
  pid=PID_$name
  [[ $name != *_packed ]] || set -- "$@" --packed
  timeout 60 "$LOAD" bench block "--socket-path=$WORK/$name" "--mode=$mode" "--duration=$DURATION" \
    "--warm-up=$WARM_UP" "--cpu=$cpu" "--distance-to=${BACKEND_CPU%,*}" "--backend-pid=${!pid}" --json "$@" \
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
  local depth depths="1 32 128"
  [ "$1" != null ] || depths="1 8 32 128"
  for depth in $depths; do
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

# Several queues, each with a thread of the load's; the back-ends may use both processors, too.
measure_queues() {
  local count mode both=$BACKEND_CPU,$OTHER_CPU
  export DOTNET_PROCESSOR_COUNT=2
  QUEUES=16 BACKEND_CPU=$both start_null
  for mode in irq poll; do
    for count in 1 2 4 8 16; do
      OTHER_CPU=$both alternate queues two $mode "4 KiB random read, depth 32, queues $count" \
        "--queues=$count" --queue-depth=32
    done
  done
  stop_all
}

# Our packed ring against our split one.
measure_rings() {
  local depth mode
  both_cpus two
  start_null
  NAMES=(ours ours_packed)
  PID_ours_packed=$PID_ours
  ln -s ours "$WORK/ours_packed"
  for mode in irq poll; do
    for depth in 1 8 32 128; do
      alternate rings two $mode "4 KiB random read, depth $depth" "--queue-depth=$depth"
    done
  done
  stop_all
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
      kill $!; wait $! 2> /dev/null || true
    done' start "$WORK/start" "$START_RUNS" "$@" |
    while read -r us kib; do printf 'start\t%s\t%s\t%s\n' "$name" "$us" "$kib"; done >> "$RESULTS"
}

# The forms in which the program can be shipped, made from the same sources.
publish_forms() {
  local form
  for form in "jit -p:PublishReadyToRun=false" "shipped" "single-file --self-contained -p:PublishSingleFile=true" \
    "trimmed --self-contained -p:PublishSingleFile=true -p:PublishTrimmed=true" "aot -p:OutboardAot=true"; do
    [ ! -x "$BUILT/${form%% *}/outboard" ] || continue
    say "publishing: $form"
    # a folder for the objects of each: a trimmed program leaves ones that others cannot use
    # shellcheck disable=SC2086
    set -- $form
    rm -rf "$WORK/source" && git -c advice.detachedHead=false clone -q . "$WORK/source"
    (cd "$WORK/source" && dotnet publish tools/Outboard.Cli -c Release -r linux-x64 "${@:2}" -v quiet -o "$BUILT/$1") >&2
  done
}

# first_moments NAME PROGRAM: IOPS in the first tenth of a second of a new process, in the next, and after two seconds.
first_moments() {
  local round moment
  for round in $(seq "$PAIRS"); do
    PROGRAM=$2 start_outboard --null-size=1G
    NAMES=(ours)
    for moment in "first 0.1" "second 0.1" "warm 0.4"; do
      # shellcheck disable=SC2086
      set -- "$1" "$2" $moment
      [ "$3" != warm ] || sleep 2
      DURATION=$4 WARM_UP=0 measure "form-$1" two irq "$3" ours "$round" --queue-depth=32
    done
    stop_all
  done
}

measure_start() {
  local form names=(
    "jit|build output, compiled at run time" "shipped|dotnet publish (compiled ahead in part), needs the runtime"
    "single-file|the same as one file with the runtime" "trimmed|one file, trimmed"
    "aot|ahead-of-time compiled (net9.0)")
  publish_forms
  for form in "${names[@]}"; do
    say "start-up: ${form#*|}"
    unset DOTNET_PROCESSOR_COUNT
    printf 'form\t%s\t%s\t%s\n' "${form%|*}" "${form#*|}" \
      "$(find "$BUILT/${form%|*}" -type f ! -name '*.pdb' ! -name '*.dbg' -printf '%s\n' |
        awk '{ sum += $1 } END { print sum }')" >> "$RESULTS"
    start_times "${form%|*}" "" "$BUILT/${form%|*}/outboard" block "--socket-path=$WORK/start" \
      "--blk-file=$BUILT/image" --quiet
    export DOTNET_PROCESSOR_COUNT=2
    first_moments "${form%|*}" "$BUILT/${form%|*}/outboard"
  done
  unset DOTNET_PROCESSOR_COUNT
  start_times qemu-storage-daemon eng/peer.sh qemu-storage-daemon \
    --blockdev "driver=file,filename=$BUILT/image,locking=off,aio=io_uring,node-name=disk" \
    --export "$EXPORT,addr.path=$WORK/start"
  start_times rust-blk eng/peer.sh "$RUST" --socket "$WORK/start" --engine sync --file "$BUILT/image"
}

. eng/bench/net.sh
. eng/bench/appliance.sh

measure_part() {
  case $1 in
    null | file | direct) measure_storage "$1" ;;
    check) cross_check ;;
    *) "measure_$1" ;;
  esac
}

describe_part() {
  printf 'info\tmachine\t%s, %s processors, Linux %s\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)"
  printf 'info\tfile system\t%s\n' "$(findmnt -n -o FSTYPE -T "$WORK")"
  printf 'info\tdate\t%s\n' "$(date -u +%F)"
  printf 'info\tcommand\t%s\n' "$COMMAND"
  printf 'info\trun\t%s s measured after %s s, %s runs of each\n' "$DURATION" "$WARM_UP" "$PAIRS"
  printf 'info\tpeers\t%s; vhost-user-backend 0.17 (Rust), its program in tests/Outboard.Benchmarks/Peers\n' \
    "$(eng/peer.sh qemu-storage-daemon --version | head -n 1)"
  printf 'info\tprogram\t%s\n' "$("$PROGRAM" --version)"
}

if [ "$ONLY" != " appliance" ]; then
  build_rust
  if [ ! -e "$BUILT/image" ]; then
    say "making an image of $IMAGE_MIB MiB in $BUILT"
    head -c "${IMAGE_MIB}M" /dev/zero | tr '\0' '\125' > "$BUILT/image"
    sync "$BUILT/image"
  fi
fi
if [ "$ONLY" = " forms" ]; then
  publish_forms
  exit
fi
mkdir -p "$OUT/bench"
for part in ${ONLY:-$PARTS}; do
  : > "$RESULTS"
  describe_part >> "$RESULTS"
  measure_part "$part"
  cp "$RESULTS" "$OUT/bench/$part.tsv"
done

say "writing the report"
dotnet run --file eng/bench/report.cs -- "$OUT/bench" "$OUT"
[ ! -s "$OUT/bench/queues.tsv" ] || dotnet run --file eng/bench/curves.cs -- "$OUT"
say "done: $OUT/BENCHMARKS.md"
