# migrate-net.sh - fetches a file (checksum SUM) from the host (HOST) again and again while the machine moves; then keeps
# silent until a line comes on the console, and pings.
set -e
modprobe virtio_net 2> /dev/null || true
ip address add "$GUEST/24" dev eth0
ip link set eth0 up
# nothing but our own traffic may tell the bridge where this machine is
echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6 2> /dev/null || true
ping -c 2 -w 30 "$HOST" > /dev/null
for round in $(seq "$ROUNDS"); do
  sum=$(nc "$HOST" 5001 < /dev/null | sha256sum)
  [ "${sum%% *}" = "$SUM" ]
  echo "PROGRESS $round"
done
echo "IDLE"
read -r line < /dev/console
ping -c 3 -w 30 "$HOST"
