# shared-regions.sh - reads and writes the shared memory of the device under test, which QEMU shows in a BAR.
# DEVICE is the PCI device id; BAR the number of the BAR that holds the regions.
set -e
modprobe virtio-rng 2> /dev/null || true
dd if=/dev/hwrng of=/dev/null bs=16 count=1 2> /dev/null
for device in /sys/bus/pci/devices/*; do
  [ "$(cat "$device/device")" = "$DEVICE" ] && found=$device
done
[ -n "$found" ]
[ "$(cat "$found/enable")" != 0 ] || echo 1 > "$found/enable"
set -- $(sed -n "$((BAR + 1))p" "$found/resource")
base=$(($1))
echo "BAR $1 $2"
[ "$base" != 0 ]

read_word() { devmem "$(printf '0x%x' "$1")" 32; }
wait_for() {
  tries=0
  until [ "$(read_word "$1")" = "$2" ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ]
    sleep 0.1
  done
}

# nothing is mapped yet: holes read as zero, writes are dropped
[ "$(read_word "$base")" = 0x00000000 ]
echo READY
wait_for $((base + 0x1000)) 0x600DF00D
[ "$(read_word "$base")" = 0x00000000 ]
devmem "$(printf '0x%x' $((base + 0x1004)))" 32 0x12345678
echo MAPPED
# another piece at the same place, for reading only
wait_for $((base + 0x1000)) 0x0BADCAFE
echo REMAPPED
wait_for $((base + 0x1000)) 0x00000000
echo "shared regions: ok"
