# memory-hotplug.sh - memory is plugged into a running machine that uses its disk; what the disk reads and writes then
# passes through the new memory; then it is unplugged, if the kernel gives it back.
set -e
before=$(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)
echo online_movable > /sys/devices/system/memory/auto_online_blocks || true

dd if=/dev/urandom of=/tmp/data bs=1M count=4 2> /dev/null
expected=$(sha256sum < /tmp/data)
dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2> /dev/null
(
  while [ ! -e /tmp/end ]; do
    dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2> /dev/null
    [ "$(dd if=/dev/vda bs=64k count=64 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ] || echo BROKEN
  done
) &
load=$!

echo READY
tries=0
until [ "$(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)" -gt $((before + 100000)) ]; do
  for block in /sys/devices/system/memory/memory*/state; do
    grep -q offline "$block" && echo online_movable > "$block" || true
  done
  tries=$((tries + 1))
  [ $tries -lt 300 ]
  sleep 0.2
done
echo "PLUGGED $(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"

# fill so much of the machine's memory with disk reads, past what it was born with, that the new part must be used
mkdir /tmp/fill
mount -t tmpfs -o size=95% tmpfs /tmp/fill
free=$(sed -n 's/MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
count=$(((free - 60000) / 4096))
for number in $(seq $count); do
  dd if=/dev/vda "of=/tmp/fill/$number" bs=4M count=1 iflag=direct 2> /dev/null
  [ "$(sha256sum < "/tmp/fill/$number")" = "$expected" ] || { echo "file $number differs"; exit 1; }
done
echo "filled: $count files, ok"
rm -r /tmp/fill/*
umount /tmp/fill
echo UNPLUG
tries=0
while [ "$(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)" -gt $((before + 100000)) ] && [ $tries -lt 150 ]; do
  tries=$((tries + 1))
  sleep 0.2
done
[ $tries -lt 150 ] && echo "unplugged: ok" || echo "unplugged: the kernel keeps it"
sleep 1
touch /tmp/end
wait $load
echo "load: ok"
