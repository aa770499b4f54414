# console-kill.sh - writes numbered lines to the console and to the second port of the device under test, whose back-end
# is killed and started again meanwhile. LINES is how many, in PASSES passes; PORT the second port's name.
set -e
modprobe virtio_console 2> /dev/null || true
tries=0
port=
until [ -c /dev/hvc0 ] && [ -n "$port" ]; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || { echo "no console, or no port $PORT"; exit 1; }
  for entry in /sys/class/virtio-ports/*; do
    if [ "$(cat "$entry/name" 2> /dev/null)" = "$PORT" ]; then
      port=/dev/$(basename "$entry")
    fi
  done
  sleep 0.1
done
exec 3<> /dev/hvc0 4> "$port"
stty raw -echo <&3
pass=1
while [ $pass -le "$PASSES" ]; do
  line=1
  while [ $line -le "$LINES" ]; do
    echo "pass $pass line $line" >&3
    echo "$pass.$line" >&4
    [ $((line % 100)) -ne 50 ] || echo "PROGRESS $pass $line"
    line=$((line + 1))
  done
  pass=$((pass + 1))
done
echo "output: ok"
