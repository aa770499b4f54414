# block-restart.sh - writes and reads back /dev/vda block by block while the back-end behind it is ended and started
# again; an I/O error or a wrong byte fails. PASSES is how often 8 MiB are gone through.
set -e

dd if=/dev/urandom of=/tmp/random bs=64k count=128 2> /dev/null
expected=$(sha256sum < /tmp/random)
for pass in $(seq "$PASSES"); do
  for block in $(seq 0 127); do
    dd if=/tmp/random of=/dev/vda bs=64k count=1 skip=$block seek=$((pass * 128 + block)) oflag=direct 2> /dev/null
    [ $((block % 32)) != 0 ] || echo "PROGRESS $pass $block"
  done
  [ "$(dd if=/dev/vda bs=64k skip=$((pass * 128)) count=128 iflag=direct 2> /dev/null | sha256sum)" = "$expected" ]
done
