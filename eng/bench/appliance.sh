# appliance.sh - the part of eng/bench.sh about a back-end inside another virtual machine. The front-end, which is the
# load generator, finds the same program in three places:
#   host       beside it, as a process of its own
#   device     behind a virtio-vhost-user device and its driver, all in one process: no machine between
#   appliance  inside a machine under QEMU (emulated, as everywhere here), behind "outboard virtio-vhost-user"

APPLIANCE_DISK_MIB=256
APPLIANCE_LIMIT_S=90

# start_host and start_device IMAGE: no image means a disk that keeps nothing.
start_host() {
  local disk=--null-size=1G
  [ -z "$1" ] || disk=--blk-file=$1
  start host "$PROGRAM" block "--socket-path=$WORK/host" "$disk" --quiet
}

start_device() {
  start device dotnet tests/Outboard.Benchmarks/bin/Release/net10.0/Outboard.Benchmarks.dll through-device \
    "$WORK/device" $1
}

# initial_files DISK-ARGUMENT: the test machine's files, our program, and the script that starts it.
initial_files() {
  local guest root=$WORK/machine library=/lib/x86_64-linux-gnu/libm.so.6
  guest=$(eng/guest/build.sh)
  mkdir -p "$root/test" "$root$(dirname $library)"
  cp artifacts/aot/outboard "$root/outboard"
  cp "$guest/../tree$library" "$root$library"
  {
    echo "export LAST=0 IOMMU=on HOST= DISK_BYTES=$((APPLIANCE_DISK_MIB << 20))"
    echo "export PROGRAM_0='block $1'"
    cat tests/Outboard.InteropTests/Scripts/appliance.sh
  } > "$root/test/script"
  cp "$guest/initrd.cpio" "$WORK/initrd"
  (cd "$root" && find . | "$OLDPWD/eng/peer.sh" cpio -o -H newc -R 0:0 --quiet) >> "$WORK/initrd"
  KERNEL=$guest/vmlinux
}

# start_appliance IMAGE: with an image, one of the appliance's own, in its memory as the host's is.
start_appliance() {
  local disk=--null-size=1G deadline=$((SECONDS + APPLIANCE_LIMIT_S))
  [ -z "$1" ] || disk=--blk-file=/dev/shm/disk.img
  initial_files "$disk"
  start appliance "$PROGRAM" virtio-vhost-user "--vhost-user-socket=$WORK/appliance" \
    "--appliance-socket=$WORK/vvu" --rings=1 --window=1G
  taskset -c $BACKEND_CPU eng/peer.sh qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
    -accel tcg,thread=multi -cpu max -m 768M -object memory-backend-memfd,id=memory,size=768M,share=on \
    -machine q35,kernel-irqchip=split,memory-backend=memory -device intel-iommu,intremap=on \
    -kernel "$KERNEL" -initrd "$WORK/initrd" -append \
    "console=ttyS0 panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests \
audit=0 quiet intel_iommu=on" -serial "file:$WORK/serial" -chardev "socket,id=vvu,path=$WORK/vvu" \
    -device vhost-user-test-device-pci,chardev=vvu,virtio-id=22,addr=0x10,num_vqs=5,config_size=24 \
    > "$WORK/machine.log" 2>&1 &
  PIDS+=($!)
  PID_appliance=$!
  until grep -q ': serving ' "$WORK/serial" 2>/dev/null; do
    kill -0 $! 2>/dev/null || fail "the appliance ended: $(tail -n 3 "$WORK/machine.log" "$WORK/serial")" "see above"
    [ "$SECONDS" -lt "$deadline" ] || fail "the appliance does not serve: $(tail -n 3 "$WORK/serial")" "see above"
    sleep 0.2
  done
}

measure_appliance() {
  local depth kind place image both=$BACKEND_CPU,$OTHER_CPU
  [ -x artifacts/aot/outboard ] || eng/aot.sh >&2
  dotnet build tests/Outboard.Benchmarks -c Release -v quiet >&2
  export DOTNET_PROCESSOR_COUNT=2
  for kind in null tmpfs; do
    NAMES=(host device appliance)
    for place in "${NAMES[@]}"; do
      image=
      [ $kind = null ] || { image=/dev/shm/outboard-bench-$place; truncate -s "${APPLIANCE_DISK_MIB}M" "$image"; }
      BACKEND_CPU=$both "start_$place" "$image"
    done
    for depth in 1 32; do
      alternate appliance-$kind two irq "4 KiB random read, depth $depth" "--queue-depth=$depth"
    done
    [ $kind = null ] ||
      alternate appliance-$kind two irq "128 KiB sequential read, depth 8" \
        --block-size=128K --queue-depth=8 --sequential
    stop_all
    rm -f /dev/shm/outboard-bench-{host,device,appliance}
  done
}
