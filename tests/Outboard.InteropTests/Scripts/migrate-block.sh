# migrate-block.sh - works on /dev/vda while the machine moves from host to host, in two ways at once. BLOCKS is how many
# blocks of 16 KiB are written in front; PACKED is 1 when the ring must be packed.
#  * Random blocks are written and read back; at the end all of them must read as they were written.
#  * 16 MiB are read into the page cache and a moment later compared from there, again and again: memory that only the
#    device wrote. A page that a migration forgot shows here. (The kernel must not clear pages before they are read into:
#    init_on_alloc=0.)
set -e
features=$(cat /sys/block/vda/device/features)
[ "$(echo "$features" | cut -c35)" = "$PACKED" ]
dd if=/dev/urandom of=/tmp/region bs=1M count=16 2> /dev/null
dd if=/tmp/region of=/dev/vda bs=1M seek=16 oflag=direct 2> /dev/null
(
  passes=0
  while [ ! -f /tmp/stop ]; do
    echo 1 > /proc/sys/vm/drop_caches
    dd if=/dev/vda of=/dev/null bs=1M skip=16 count=16 2> /dev/null
    sleep 1
    dd if=/dev/vda bs=1M skip=16 count=16 2> /dev/null | cmp - /tmp/region || { echo "STALE"; exit 1; }
    passes=$((passes + 1))
  done
  echo $passes > /tmp/passes
) &
for block in $(seq 0 $((BLOCKS - 1))); do
  dd if=/dev/urandom of=/tmp/block bs=16k count=1 2> /dev/null
  cat /tmp/block >> /tmp/all
  dd if=/tmp/block of=/dev/vda bs=16k seek=$block oflag=direct 2> /dev/null
  dd if=/dev/vda of=/tmp/back bs=16k count=1 skip=$block iflag=direct 2> /dev/null
  cmp /tmp/block /tmp/back
  [ $((block % 10)) != 0 ] || echo "PROGRESS $block"
done
touch /tmp/stop
wait
[ -f /tmp/passes ]
expected=$(sha256sum < /tmp/all)
[ "$(dd if=/dev/vda bs=16k count=$BLOCKS iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
[ "$(dmesg | grep -c 'I/O error')" = 0 ]
echo "PASSES $(cat /tmp/passes)"
echo "SUM ${expected%% *}"
