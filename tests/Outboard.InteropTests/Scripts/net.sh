# net.sh - the card is there with as many queues as expected (QUEUES), the host (HOST) answers, and a file crosses in
# both directions with the checksum SUM.
set -e
modprobe virtio_net 2> /dev/null || true
ip link set lo up
ip address add "$GUEST/24" dev eth0
ip link set eth0 up
[ "$(cat /sys/class/net/eth0/address)" = 52:54:00:77:00:02 ]
[ "$(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)" = "$QUEUES" ]
[ "$(cat /sys/class/net/eth0/mtu)" = "$MTU" ]

ping -c 3 -w 20 "$HOST"
ping -c 2 -w 20 -s 8000 "$HOST"
echo "ping: ok"

# several connections at once, so that all queues carry packets
for connection in 1 2 3 4; do
  nc "$HOST" 5001 < /dev/null > "/tmp/down-$connection" &
done
wait
for connection in 1 2 3 4; do
  sum=$(sha256sum < "/tmp/down-$connection")
  [ "${sum%% *}" = "$SUM" ]
done
echo "from the host: ok"

# the host answers each connection with the checksum of what it got
for connection in 1 2 3 4; do
  nc "$HOST" 5002 < /tmp/down-1 > "/tmp/up-$connection" &
done
wait
for connection in 1 2 3 4; do
  read -r sum rest < "/tmp/up-$connection"
  [ "$sum" = "$SUM" ]
done
echo "to the host: ok"
ifconfig eth0
