# block-crash.sh - a file system under four writers while the back-end behind it is killed again and again; in the end every
# file must have its checksum and the file system must be clean. PACKED is 1 when the ring must be packed.
set -e

features=$(cat /sys/block/vda/device/features)
[ "$(echo "$features" | cut -c35)" = "$PACKED" ]
mkfs.ext4 -q -F /dev/vda
mount -t ext4 /dev/vda /mnt
for writer in 1 2 3 4; do
  (
    for file in $(seq 1 24); do
      dd if=/dev/urandom of=/mnt/$writer-$file bs=16k count=16 conv=fsync 2> /dev/null
      sha256sum /mnt/$writer-$file >> /tmp/sums-$writer
      [ $((file % 4)) != 0 ] || echo "PROGRESS $writer $file"
    done
    touch /tmp/done-$writer
  ) &
done
wait
for writer in 1 2 3 4; do [ -f /tmp/done-$writer ]; done
sync
umount /mnt
mount -t ext4 /dev/vda /mnt
cat /tmp/sums-* > /tmp/sums
[ "$(wc -l < /tmp/sums)" = 96 ]
sha256sum -c /tmp/sums > /dev/null
umount /mnt
e2fsck -f -n /dev/vda > /dev/null
[ "$(dmesg | grep -c 'I/O error')" = 0 ]
