# nvme-hotplug.sh - a controller is plugged into a running machine, pulled out while it is read, and plugged in again.
set -e

wait_for() {
  tries=0
  until [ -b /dev/nvme0n1 ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ]
    sleep 0.2
  done
}

modprobe -q nvme
echo PLUG
wait_for
dd if=/dev/urandom of=/tmp/random bs=1M count=4 2> /dev/null
expected=$(sha256sum < /tmp/random)
dd if=/tmp/random of=/dev/nvme0n1 bs=64k oflag=direct 2> /dev/null
(while dd if=/dev/nvme0n1 of=/dev/null bs=64k count=64 iflag=direct 2> /dev/null; do :; done) &
reader=$!
sleep 1
echo UNPLUG
tries=0
while [ -e /sys/class/nvme/nvme0 ]; do
  tries=$((tries + 1))
  [ $tries -lt 300 ]
  sleep 0.2
done
wait $reader || true
echo "unplugged: ok"
sleep 1
echo PLUG AGAIN
wait_for
[ "$(dd if=/dev/nvme0n1 bs=64k count=64 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
echo "plugged again: ok"
