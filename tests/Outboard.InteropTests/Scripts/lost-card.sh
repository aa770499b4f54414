# lost-card.sh - the test card is plugged in and its server dies: the machine reads ones of it, drops writes to it, and
# works on.
find_card() {
  for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/vendor"):$(cat "$device/device")" != 0xf00d:0x7e57 ] || card=$device
  done
  [ -n "$card" ]
}
ready() { [ $(($(start))) != 0 ] && echo 1 > "$card/enable"; }
start() { awk 'NR == 1 { print $1 }' "$card/resource"; }
class() { od -An -tx1 -j 8 -N 4 "$card/config" | tr -d ' '; }
get() { devmem $(($1)) 32; }

echo PLUG
until_true find_card
[ "$(class)" != ffffffff ]
until_true ready
bar0=$(start)
[ "$(get bar0)" = 0x54554656 ]
echo KILL
hear KILLED
[ "$(class)" = ffffffff ]
[ "$(get bar0)" = 0xFFFFFFFF ]
devmem $((bar0 + 8)) 32 0x12345678
[ "$(get bar0+8)" = 0xFFFFFFFF ]
echo "the card reads as ones"

# a server is there again, and QEMU does not ask it
echo RESTART
hear RESTARTED
[ "$(get bar0)" = 0xFFFFFFFF ]
