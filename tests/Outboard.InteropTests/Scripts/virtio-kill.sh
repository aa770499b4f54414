# virtio-kill.sh - what a machine sees of a virtio disk whose process is killed; then (SECOND) another machine reads the
# data.
set -e
for second in $(seq 30); do [ -b /dev/vda ] && break; sleep 1; done
first_of() { dd if=/dev/vda bs=64k count=16 iflag=direct 2> /dev/null | sha256sum; }
other_of() { dd if=/dev/vda bs=64k count=16 skip=16 iflag=direct 2> /dev/null | sha256sum; }
if [ -n "$SECOND" ]; then
  [ "$(first_of)" = "$(other_of)" ]
  echo "the data is there"
  exit 0
fi

dd if=/dev/urandom of=/tmp/random bs=1M count=1 2> /dev/null
dd if=/tmp/random of=/dev/vda bs=64k oflag=direct conv=fsync 2> /dev/null
dd if=/tmp/random of=/dev/vda bs=64k seek=16 oflag=direct conv=fsync 2> /dev/null
card=$(readlink -f /sys/block/vda/device)/..
class() { od -An -tx1 -j 8 -N 4 "$card/config" | tr -d ' '; }
[ "$(class)" != ffffffff ]
# killed while nobody talks to it: QEMU 11.1.3 ends itself when a message of its is not read any more
echo KILL
read -r line < /dev/console
[ "$(class)" = ffffffff ]
# the driver knows no time limit: nothing fails, and nothing ends
dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct 2> /dev/null &
reader=$!
sleep 3
kill -0 $reader
[ "$(sha256sum < /tmp/random)" != "$(sha256sum < /dev/null)" ]
echo LOST
