# hotplug.sh - a disk (NODE) comes and goes twice; what was written the first time is there the second.
modprobe -q virtio_pci || true
modprobe -q virtio_blk || true
modprobe -q nvme || true
dd if=/dev/urandom of=/tmp/data bs=64k count=32 2> /dev/null
expected=$(sha256sum < /tmp/data)

for round in 1 2; do
  gone "$NODE"
  echo "PLUG $round"
  until_true [ -b "$NODE" ]
  [ $round = 2 ] || dd if=/tmp/data of="$NODE" bs=64k oflag=direct 2> /dev/null
  [ "$(hash_of "$NODE" 32)" = "$expected" ]
  grep -i -e virtio -e nvme /proc/interrupts
  echo "USED $round"
  until_true gone "$NODE"
done
