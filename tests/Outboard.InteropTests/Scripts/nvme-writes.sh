# nvme-writes.sh - many large writes to an NVMe disk at a time; what was written is read again.
set -e

for second in $(seq 30); do [ -b /dev/nvme0n1 ] && break; sleep 1; done
dd if=/dev/urandom of=/tmp/random bs=1M count=4 2> /dev/null
expected=$(sha256sum < /tmp/random)
for round in 1 2 3; do
  for job in $(seq 0 7); do
    dd if=/tmp/random of=/dev/nvme0n1 bs=1M seek=$((job * 4)) oflag=direct 2> /dev/null &
  done
  wait
  for job in $(seq 0 7); do
    [ "$(dd if=/dev/nvme0n1 bs=1M skip=$((job * 4)) count=4 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
  done
done
[ "$(cat /sys/class/nvme/nvme0/state)" = live ]
