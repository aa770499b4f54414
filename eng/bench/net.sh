# net.sh - the part of eng/bench.sh about packets: DPDK's testpmd, as front-end, sends as fast as it can, to "outboard net"
# and to testpmd's net_vhost, in turn. Neither has huge pages. Lines of the results:
#   net SIZE RING NAME ROUND PACKETS-A-SECOND

NET_RUN_S=6      # one run, of which testpmd needs some two seconds to start
NET_SKIP=2       # a rate is told each second: so many of the first do not count

start_receiver() {
  case $1 in
    ours) DOTNET_PROCESSOR_COUNT=2 start ours "$PROGRAM" net "--socket-path=$WORK/ours" --null --quiet ;;
    dpdk) start dpdk eng/peer.sh dpdk-testpmd --no-huge --single-file-segments -m 256 --no-pci --no-telemetry \
        --lcores "0@$OTHER_CPU,1@$BACKEND_CPU" --file-prefix "bench-be-$$" \
        --vdev "net_vhost0,iface=$WORK/dpdk,queues=1" -- --total-num-mbufs=16384 --forward-mode=rxonly --auto-start \
        --no-mlockall --nb-cores=1 --stats-period 60 ;;
  esac
}

# send NAME SIZE RING ROUND: one run of the sender; the median of its rates.
send() {
  local ring=
  [ "$3" = split ] || ring=,packed_vq=1
  timeout -s INT "$NET_RUN_S" eng/peer.sh dpdk-testpmd --no-huge --single-file-segments -m 256 --no-pci --no-telemetry \
    --lcores "0@$BACKEND_CPU,1@$OTHER_CPU" --file-prefix "bench-fe-$$" \
    --vdev "net_virtio_user0,path=$WORK/$1,queues=1,queue_size=1024$ring" -- --total-num-mbufs=16384 \
    --forward-mode=txonly "--txpkts=$2" --auto-start --stats-period 1 --no-mlockall --nb-cores=1 \
    < /dev/null > "$WORK/sender.log" 2>&1 || true
  rate=$(sed -n 's/^ *Tx-pps: *\([0-9]*\).*/\1/p' "$WORK/sender.log" | tail -n "+$((NET_SKIP + 1))" | sort -n |
    awk '{ rate[NR] = $1 } END { if (NR) print rate[int((NR + 1) / 2)] }')
  [ -n "$rate" ] || { say "FAILED: $1 $2 $3: $(tail -n 1 "$WORK/sender.log")"; return 0; }
  printf 'net\t%s\t%s\t%s\t%s\t%s\n' "$2" "$3" "$1" "$4" "$rate" >> "$RESULTS"
}

measure_net() {
  local size ring round name order
  for ring in split packed; do
    start_receiver ours
    start_receiver dpdk
    for size in 64 1500; do
      say "packets of $size bytes, $ring ring"
      for round in $(seq "$PAIRS"); do
        order="ours dpdk"
        [ $((round % 2)) = 1 ] || order="dpdk ours"
        for name in $order; do
          # DPDK's polls all the time: it stands still while ours is measured
          [ "$name" = dpdk ] || kill -STOP "$PID_dpdk"
          send "$name" "$size" "$ring" "$round"
          kill -CONT "$PID_dpdk"
        done
      done
    done
    stop_all
  done
}
