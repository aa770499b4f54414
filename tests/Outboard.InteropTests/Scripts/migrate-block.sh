# migrate-block.sh - writes random blocks to /dev/vda and reads each one back, while the machine moves from host to host;
# at the end all blocks must read as they were written. BLOCKS is how many blocks of 16 KiB. PACKED is 1 when the ring
# must be packed. A read through a buffer that the migration lost, or a write of one, shows as another checksum.
set -e
features=$(cat /sys/block/vda/device/features)
[ "$(echo "$features" | cut -c35)" = "$PACKED" ]
for block in $(seq 0 $((BLOCKS - 1))); do
  dd if=/dev/urandom of=/tmp/block bs=16k count=1 2> /dev/null
  cat /tmp/block >> /tmp/all
  dd if=/tmp/block of=/dev/vda bs=16k seek=$block oflag=direct 2> /dev/null
  dd if=/dev/vda of=/tmp/back bs=16k count=1 skip=$block iflag=direct 2> /dev/null
  cmp /tmp/block /tmp/back
  [ $((block % 10)) != 0 ] || echo "PROGRESS $block"
done
expected=$(sha256sum < /tmp/all)
[ "$(dd if=/dev/vda bs=16k count=$BLOCKS iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
[ "$(dmesg | grep -c 'I/O error')" = 0 ]
echo "SUM ${expected%% *}"
