# block-resize.sh - waits until the running machine notices that /dev/vda has a new size, and uses the new part.
# BEFORE and AFTER are the sizes in units of 512 bytes.
set -e

[ "$(cat /sys/block/vda/size)" = "$BEFORE" ]
echo "WAITING-FOR-RESIZE"
until [ "$(cat /sys/block/vda/size)" = "$AFTER" ]; do
  sleep 0.2
done
echo "RESIZED"
dd if=/dev/urandom of=/tmp/random bs=64k count=1 2> /dev/null
dd if=/tmp/random of=/dev/vda bs=512 seek=$((AFTER - 128)) oflag=direct 2> /dev/null
[ "$(dd if=/dev/vda bs=512 skip=$((AFTER - 128)) iflag=direct 2> /dev/null | sha256sum)" = \
  "$(sha256sum < /tmp/random)" ]
