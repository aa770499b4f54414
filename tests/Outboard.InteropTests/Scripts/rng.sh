# rng.sh - takes bytes from /dev/hwrng, which only the device under test feeds.
# BLOCKS is how many times 64 bytes are taken, twice.
set -e
modprobe virtio-rng 2> /dev/null || true
grep -q virtio_rng /sys/class/misc/hw_random/rng_current
dd if=/dev/hwrng of=/tmp/one bs=64 count="$BLOCKS" iflag=fullblock 2> /dev/null
dd if=/dev/hwrng of=/tmp/two bs=64 count="$BLOCKS" iflag=fullblock 2> /dev/null
[ "$(wc -c < /tmp/one)" = $((64 * BLOCKS)) ]
if cmp -s /tmp/one /tmp/two; then
  echo "the same bytes twice"
  exit 1
fi
# random bytes do not compress
[ "$(gzip -c /tmp/one | wc -c)" -gt $((60 * BLOCKS)) ]
echo "random: ok"
