# nvme.sh - exercises an NVMe controller with the kernel's driver. SECTORS is the size of the first namespace in units
# of 512 bytes, BLOCK its logical block size, SECTORS2 the size of the second namespace (0: there is none), VECTORS
# whether MSI-X must be in use, SHADOW whether doorbells must be kept in memory.
set -e

for second in $(seq 30); do [ -b /dev/nvme0n1 ] && break; sleep 1; done
echo "model: $(cat /sys/class/nvme/nvme0/model), serial: $(cat /sys/class/nvme/nvme0/serial)"
[ "$(cat /sys/class/nvme/nvme0/state)" = live ]
[ "$(cat /sys/block/nvme0n1/size)" = "$SECTORS" ]
[ "$(cat /sys/block/nvme0n1/queue/logical_block_size)" = "$BLOCK" ]
[ "$(cat /sys/block/nvme0n1/queue/write_cache)" = "write back" ]
[ "$(ls /sys/block/nvme0n1/mq | wc -l)" = "$(nproc)" ]
vectors=$(grep -c nvme0q /proc/interrupts)
echo "vectors: $vectors"
[ "$VECTORS" = 0 ] || [ "$vectors" = $(($(nproc) + 1)) ]

check_disk() {
  disk=$1
  dd if=/dev/urandom of=/tmp/random bs=1M count=8 2> /dev/null
  expected=$(sha256sum < /tmp/random)
  dd if=/tmp/random of=$disk bs=64k seek=16 oflag=direct 2> /dev/null
  [ "$(dd if=$disk bs=64k skip=16 count=128 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
  [ "$(dd if=$disk bs=1M skip=1 count=8 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
  echo "$disk: raw access ok"

  mkfs.ext4 -q -F $disk
  mount -t ext4 $disk /mnt
  writers=$(($(nproc) + 2))
  for writer in $(seq $writers); do
    (
      for number in $(seq 8); do
        dd if=/dev/urandom "of=/mnt/file-$writer-$number" bs=32k count=$number 2> /dev/null
      done
    ) &
  done
  wait
  (cd /mnt && sha256sum file-* > /tmp/sums)
  sync
  umount /mnt
  mount -t ext4 $disk /mnt
  (cd /mnt && sha256sum -c -s /tmp/sums)
  [ "$(wc -l < /tmp/sums)" = $((writers * 8)) ]
  rm /mnt/file-1-*
  fstrim /mnt && echo "$disk: trim ok"
  umount /mnt
  e2fsck -f -n $disk
}

check_disk /dev/nvme0n1
if [ "$SECTORS2" != 0 ]; then
  [ "$(cat /sys/block/nvme0n2/size)" = "$SECTORS2" ]
  check_disk /dev/nvme0n2
fi

# the controller is reset while somebody reads
if [ -n "$RESETS" ]; then
  dd if=/dev/nvme0n1 of=/tmp/before bs=1M count=8 iflag=direct 2> /dev/null
  for round in $(seq "$RESETS"); do
    dd if=/dev/nvme0n1 of=/dev/null bs=64k count=512 iflag=direct 2> /dev/null &
    echo 1 > /sys/class/nvme/nvme0/reset_controller
    wait
    [ "$(cat /sys/class/nvme/nvme0/state)" = live ]
  done
  dd if=/dev/nvme0n1 of=/tmp/after bs=1M count=8 iflag=direct 2> /dev/null
  cmp /tmp/before /tmp/after
  echo "resets: $RESETS ok"
fi
grep nvme /proc/interrupts
dmesg | grep -iE "nvme|nobody cared" || true

# no interrupt was lost (the driver looks for itself after 30 seconds), none came without end
! dmesg | grep -qiE "nvme.*timeout|nobody cared"
