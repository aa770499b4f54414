# doorbell.sh - a driver that notifies by a page of the device's own. What it asks for then is not served; that is not
# what this is about.
set -e
modprobe virtio-rng 2> /dev/null || true
dd if=/dev/hwrng of=/dev/null bs=16 count=1 2> /dev/null
echo READY
for attempt in $(seq 60); do
  timeout 1 dd if=/dev/hwrng of=/dev/null bs=256 count=4 2> /dev/null || true
  [ ! -e /tmp/end ] || break
  read -r -t 1 line < /dev/console && [ "$line" = RUNG ] && break
done
echo "doorbell: ok"
