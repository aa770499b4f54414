# block-pause.sh - four writers and readers of /dev/vda while the machine is paused and goes on again and again; PACKED is 1
# when the ring must be packed, BLOCKS how many blocks each goes through.
set -e

features=$(cat /sys/block/vda/device/features)
[ "$(echo "$features" | cut -c35)" = "$PACKED" ]
for writer in 0 1 2 3; do
  (
    for block in $(seq 1 "$BLOCKS"); do
      dd if=/dev/urandom of=/tmp/data-$writer bs=16k count=1 2> /dev/null
      place=$((writer * 256 + block))
      dd if=/tmp/data-$writer of=/dev/vda bs=16k count=1 seek=$place oflag=direct 2> /dev/null
      dd if=/dev/vda of=/tmp/back-$writer bs=16k count=1 skip=$place iflag=direct 2> /dev/null
      cmp /tmp/data-$writer /tmp/back-$writer
      echo "PROGRESS $writer $block"
    done
    touch /tmp/done-$writer
  ) &
done
wait
for writer in 0 1 2 3; do [ -f /tmp/done-$writer ]; done
[ "$(dmesg | grep -c 'I/O error')" = 0 ]
