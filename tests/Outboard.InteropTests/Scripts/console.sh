# console.sh - writes to the console of the device under test and to its second port, and reads a line.
# LINES is how many lines are written to each, PORT the second port's name.
set -e
modprobe virtio_console 2> /dev/null || true
wait_for() {
  tries=0
  until [ -c "$1" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "no $1"; exit 1; }
    sleep 0.1
  done
}
wait_for /dev/hvc0
exec 3<> /dev/hvc0
stty raw -echo <&3
echo ready >&3
read -r line <&3
[ "$line" = "from outside" ] || { echo "read: $line"; exit 1; }
echo "input: ok"
seq 1 "$LINES" >&3
port=
for entry in /sys/class/virtio-ports/*; do
  if [ "$(cat "$entry/name" 2> /dev/null)" = "$PORT" ]; then
    port=/dev/$(basename "$entry")
  fi
done
[ -n "$port" ] || { echo "no port $PORT"; exit 1; }
wait_for "$port"
seq 1 "$LINES" | cat > "$port"
echo "output: ok"
