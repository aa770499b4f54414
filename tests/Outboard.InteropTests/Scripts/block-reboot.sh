# block-reboot.sh - writes files in a first boot, restarts the machine and checks them in a second one.
# The first boot is the one that finds no file system on /dev/vda.
set -e

if mount -t ext4 /dev/vda /mnt 2> /dev/null; then
  echo "SECOND-BOOT"
  (cd /mnt && sha256sum -c -s sums)
  umount /mnt
  e2fsck -f -n /dev/vda
else
  echo "FIRST-BOOT"
  mkfs.ext4 -q -F /dev/vda
  mount -t ext4 /dev/vda /mnt
  for number in $(seq 20); do
    dd if=/dev/urandom "of=/mnt/file-$number" bs=64k count=$number 2> /dev/null
  done
  (cd /mnt && sha256sum file-* > sums)
  umount /mnt
  reboot -f
  sleep 60
fi
