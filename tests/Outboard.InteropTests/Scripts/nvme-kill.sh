# nvme-kill.sh - what a machine sees whose controller's process is killed; then (SECOND) another machine reads the data.
set -e
for second in $(seq 30); do [ -b /dev/nvme0n1 ] && break; sleep 1; done
if [ -n "$SECOND" ]; then
  [ "$(dd if=/dev/nvme0n1 bs=64k count=16 iflag=direct 2> /dev/null | sha256sum)" = \
    "$(dd if=/dev/nvme0n1 bs=64k count=16 skip=16 iflag=direct 2> /dev/null | sha256sum)" ]
  echo "the data is there"
  exit 0
fi

dd if=/dev/urandom of=/tmp/random bs=1M count=1 2> /dev/null
dd if=/tmp/random of=/dev/nvme0n1 bs=64k oflag=direct conv=fsync 2> /dev/null
dd if=/tmp/random of=/dev/nvme0n1 bs=64k seek=16 oflag=direct conv=fsync 2> /dev/null
# killed while nobody talks to it: QEMU 11.1.3 ends itself when a message of its is not read any more
echo 3 > /sys/module/nvme_core/parameters/io_timeout
echo KILL
read -r line < /dev/console
if dd if=/dev/nvme0n1 of=/dev/null bs=64k count=1 iflag=direct; then exit 1; fi
dmesg | grep nvme | tail -5
echo LOST
