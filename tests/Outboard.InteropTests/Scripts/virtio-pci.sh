# virtio-pci.sh - what the guest's driver made of the device, before it is used: bit 34 of the features is the packed
# ring; each queue has an interrupt vector of its own.
set -e
features=$(cat /sys/bus/virtio/devices/virtio0/features)
echo "features: $features"
[ "$(echo "$features" | cut -c 35)" = "$PACKED" ]
vectors=$(grep -c virtio0-req /proc/interrupts)
echo "vectors: $vectors"
[ "$vectors" = "$VECTORS" ]
