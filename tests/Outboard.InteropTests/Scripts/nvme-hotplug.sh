# nvme-hotplug.sh - a controller is plugged into a running machine, which then uses its disk.
set -e
modprobe -q nvme
echo PLUG
tries=0
until [ -b /dev/nvme0n1 ]; do
  tries=$((tries + 1))
  [ $tries -lt 300 ]
  sleep 0.2
done
dd if=/dev/urandom of=/tmp/random bs=1M count=4 2> /dev/null
expected=$(sha256sum < /tmp/random)
dd if=/tmp/random of=/dev/nvme0n1 bs=64k oflag=direct 2> /dev/null
[ "$(dd if=/dev/nvme0n1 bs=64k count=64 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
echo "plugged: ok"
