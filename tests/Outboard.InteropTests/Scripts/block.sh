# block.sh - exercises /dev/vda as a machine would use a disk: raw access, a file system, a remount, a check.
# QUEUES is the number of hardware queues that the disk must have; SECTORS its size in units of 512 bytes.
set -e

queues=$(ls /sys/block/vda/mq | wc -l)
echo "queues: $queues"
[ "$queues" = "$QUEUES" ]
sectors=$(cat /sys/block/vda/size)
echo "sectors: $sectors"
[ "$sectors" = "$SECTORS" ]

# raw, past the page cache, in a part of the disk and in sizes that cross segment limits
dd if=/dev/urandom of=/tmp/random bs=1M count=8 2> /dev/null
expected=$(sha256sum < /tmp/random)
dd if=/tmp/random of=/dev/vda bs=64k seek=16 oflag=direct 2> /dev/null
[ "$(dd if=/dev/vda bs=64k skip=16 count=128 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
[ "$(dd if=/dev/vda bs=1M skip=1 count=8 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
echo "raw access: ok"

# a file system, with as many writers as there are processors and two more
mkfs.ext4 -q -F /dev/vda
mount -t ext4 /dev/vda /mnt
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

mount -t ext4 /dev/vda /mnt
(cd /mnt && sha256sum -c -s /tmp/sums)
[ "$(wc -l < /tmp/sums)" = $((writers * 8)) ]
echo "files: $((writers * 8)) ok"
rm /mnt/file-1-*
fstrim /mnt 2> /dev/null && echo "trim: ok" || echo "trim: not offered"
umount /mnt
e2fsck -f -n /dev/vda
echo "file system: clean"
