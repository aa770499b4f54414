# test-card.sh - talks to the registers of the PCI test card from user space: BARs by message and by mapping, sizes,
# DMA into a page that the kernel was told to leave alone (PAGE), function level reset.
set -e
for candidate in /sys/bus/pci/devices/*; do
  [ "$(cat "$candidate/vendor"):$(cat "$candidate/device")" != 0xf00d:0x7e57 ] || card=$candidate
done
[ -n "$card" ]
[ "$(cat "$card/class")" = 0xff0000 ]
echo 1 > "$card/enable"
# memory and DMA on
printf '\006\000' | dd of="$card/config" bs=1 seek=4 conv=notrunc 2> /dev/null

start() { awk "NR == $1 + 1 { print \$1 }" "$card/resource"; }
size() { awk "NR == $1 + 1 { print \$1, \$2 }" "$card/resource" | { read -r a b; echo $((b - a + 1)); }; }
[ "$(size 0)" = 4096 ]
[ "$(size 1)" = 32 ]
[ "$(size 2)" = 16384 ]
[ "$(size 4)" = 2097152 ]
[ "$(size 5)" = 4096 ]
bar0=$(start 0) bar2=$(start 2) bar4=$(start 4)
get() { devmem $(($1)) "${2:-32}"; }
put() { devmem $(($1)) "${3:-32}" "$2"; }
same() {
  if [ $(($1)) != $(($2)) ]; then
    echo "$3: $1, and $2 was expected"
    exit 1
  fi
}

same "$(get bar0)" 0x54554656 id
put bar0+8 0x123456789abcdef0 64
same "$(get bar0+8 64)" 0x123456789abcdef0 scratch
same "$(get bar0+0xc)" 0x12345678 "half of scratch"

# the same memory by message (page 0) and by mapping (page 1)
put bar2 0x11223344
same "$(get bar2)" 0x11223344 "buffer by message"
put bar2+0x1000 0x55667788
same "$(get bar2+0x1000)" 0x55667788 "buffer by mapping"
put bar4+0x1ffffc 0xcafebabe
same "$(get bar4+0x1ffffc)" 0xcafebabe "large memory"
echo "registers and memory: ok"

wait_dma() {
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    status=$(get bar0+0x50)
    [ "$status" = 0xFFFFFFFF ] || break
    sleep 1
  done
}

dma() { # command guest-address length buffer
  put bar0+0x40 "$2" 64
  put bar0+0x48 "$3"
  put bar0+0x54 "$4"
  put bar0+0x4c "$1"
  wait_dma
}

put PAGE 0xa1b2c3d4
put PAGE+0xffc 0x0badf00d
dma 1 $((PAGE)) 4096 0x1000
same "$status" 0 "status of a read"
same "$(get bar2+0x1000)" 0xa1b2c3d4 "read, first"
same "$(get bar2+0x1ffc)" 0x0badf00d "read, last"
put bar2+0x3000 0x99aabbcc
dma 2 $((PAGE + 0x800)) 4 0x3000
same "$status" 0 "status of a write"
same "$(get PAGE+0x800)" 0x99aabbcc "write"
dma 1 0x7fff00000000 16 0
same "$status" 2 "status where nothing is"
echo "dma: ok"

before=$(get bar0+0x30)
echo 1 > "$card/reset"
printf '\006\000' | dd of="$card/config" bs=1 seek=4 conv=notrunc 2> /dev/null
same "$(get bar0+0x30)" $((before + 1)) "function level resets"
same "$(get bar0+8 64)" 0 "scratch after a reset"
same "$(get bar4+0x1ffffc)" 0xcafebabe "large memory after a reset"
echo "reset: ok"
