# appliance.sh - an appliance: a machine that serves devices of another one. Each comes through a virtio-vhost-user
# device, number N at 00:1N.0, which is handed to our program with the arguments PROGRAM_N; LAST is the last number.
# IOMMU says whether the machine has one. Commands come by the console: KILL N ends a program as a crash would, STOP N
# asks it to end, START N starts it, END ends the machine.
set -e
numbers=$(seq 0 "$LAST")
if [ "$IOMMU" = on ]; then
  modprobe vfio_iommu_type1 allow_unsafe_interrupts=1
  [ -d /sys/class/iommu/dmar0 ]
else
  modprobe vfio enable_unsafe_noiommu_mode=1
  [ -z "$(ls /sys/class/iommu)" ]
fi
modprobe vfio-pci
pages=$((2 * (LAST + 1)))
echo $pages > /proc/sys/vm/nr_hugepages
[ "$(cat /proc/sys/vm/nr_hugepages)" = $pages ]

for number in $numbers; do
  device=/sys/bus/pci/devices/0000:00:1$number.0
  [ ! -e "$device/driver" ] || echo "0000:00:1$number.0" > "$device/driver/unbind"
  echo vfio-pci > "$device/driver_override"
  echo "0000:00:1$number.0" > /sys/bus/pci/drivers_probe
  group=$(basename "$(readlink "$device/iommu_group")")
  [ "$IOMMU" = on ] && ls "/dev/vfio/$group" || ls "/dev/vfio/noiommu-$group"
done

# the tap's side of a network: its address, and servers as net.sh wants them
serve_network() {
  tries=0
  until [ -e /sys/class/net/outboard0 ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ]
    sleep 0.1
  done
  ip address add "$HOST/24" dev outboard0
  ip link set outboard0 up
  nc -ll -p 5001 -e cat /test/data &
  nc -ll -p 5002 -e sha256sum &
}

start() {
  eval "arguments=\$PROGRAM_$1"
  (
    sh -c "echo \$\$ > /run/program-$1; exec /outboard $arguments --virtio-vhost-user=0000:00:1$1.0" || status=$?
    echo "APPLIANCE-ENDED $1 ${status:-0}"
    echo "${status:-0}" > "/run/status-$1"
  ) &
}
modprobe tun
ip link set lo up
truncate -s "$DISK_BYTES" /dev/shm/disk.img
for number in $numbers; do
  start "$number"
done
[ -z "$HOST" ] || serve_network
echo APPLIANCE-READY
while read -r command number < /dev/console; do
  case $command in
    KILL) kill -9 "$(cat "/run/program-$number")" ;;
    STOP) kill "$(cat "/run/program-$number")" ;;
    START) start "$number" ;;
    END) break ;;
  esac
done
for number in $numbers; do
  rm -f "/run/status-$number"
  kill "$(cat "/run/program-$number")"
  tries=0
  until [ -s "/run/status-$number" ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ]
    sleep 0.1
  done
  [ "$(cat "/run/status-$number")" = 0 ]
done
echo "appliance: ended"
