# block-reset.sh - keeps /dev/vda busy in a first boot until somebody resets the machine; the second boot recovers the
# file system and checks the files that had been synchronized before.
set -e

if e2fsck -p /dev/vda > /tmp/check 2>&1 || [ $? = 1 ]; then
  echo "SECOND-BOOT"
  cat /tmp/check
  mount -t ext4 /dev/vda /mnt
  (cd /mnt && sha256sum -c -s sums)
  umount /mnt
  e2fsck -f -n /dev/vda
else
  echo "FIRST-BOOT"
  mkfs.ext4 -q -F /dev/vda
  mount -t ext4 /dev/vda /mnt
  for number in $(seq 8); do
    dd if=/dev/urandom "of=/mnt/file-$number" bs=64k count=$number 2> /dev/null
  done
  (cd /mnt && sha256sum file-* > sums)
  sync
  (while true; do dd if=/mnt/file-8 of=/mnt/scratch bs=64k conv=fsync 2> /dev/null; done) &
  while true; do dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct 2> /dev/null; echo "BUSY"; done
fi
