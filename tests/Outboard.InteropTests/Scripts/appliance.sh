# appliance.sh - an appliance: a machine that serves a disk to another one, through a virtio-vhost-user device that is
# handed to our program. TYPE is the device type. Commands come by the console: KILL ends the program as a crash would,
# START starts it, END ends the machine.
set -e
modprobe vfio_iommu_type1 allow_unsafe_interrupts=1
modprobe vfio-pci
echo 2 > /proc/sys/vm/nr_hugepages
[ "$(cat /proc/sys/vm/nr_hugepages)" = 2 ]
[ -d /sys/class/iommu/dmar0 ]

address=
for device in /sys/bus/pci/devices/*; do
  if [ "$(cat "$device/vendor")" = 0x1af4 ] && [ $(($(cat "$device/device"))) = $((0x1040 + TYPE)) ]; then
    address=$(basename "$device")
    [ ! -e "$device/driver" ] || echo "$address" > "$device/driver/unbind"
    echo vfio-pci > "$device/driver_override"
    echo "$address" > /sys/bus/pci/drivers_probe
  fi
done
[ -n "$address" ]
echo "APPLIANCE-DEVICE $address"

truncate -s "$DISK_BYTES" /dev/shm/disk.img
program=
start() {
  /outboard block "--virtio-vhost-user=$address" --blk-file=/dev/shm/disk.img --num-queues=2 $OPTIONS &
  program=$!
}
start
echo APPLIANCE-READY
while read -r command < /dev/console; do
  case $command in
    KILL) kill -9 "$program"; wait "$program" || true; echo APPLIANCE-KILLED ;;
    START) start; echo APPLIANCE-STARTED ;;
    END) break ;;
  esac
done
kill "$program"
wait "$program"
echo "appliance: ended"
