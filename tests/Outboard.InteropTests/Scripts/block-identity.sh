# block-identity.sh - checks what a disk says about itself. SERIAL is its serial number, READ_ONLY is 0 or 1.
set -e

serial=$(cat /sys/block/vda/serial)
echo "serial: '$serial'"
[ "$serial" = "$SERIAL" ]
echo "read-only: $(cat /sys/block/vda/ro)"
[ "$(cat /sys/block/vda/ro)" = "$READ_ONLY" ]
dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2> /dev/null
if [ "$READ_ONLY" = 1 ]; then
  if dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct 2> /dev/null; then
    echo "a read-only disk was written"
    exit 1
  fi
fi
