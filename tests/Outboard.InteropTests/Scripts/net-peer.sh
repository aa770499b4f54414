# net-peer.sh - behind the card is QEMU's own network: HOST answers, port 5001 of SERVER gives a file of BYTES bytes with
# the checksum SUM, and port 5002 gives back what it gets.
set -e
modprobe virtio_net 2> /dev/null || true
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ping -c 3 -w 20 "$HOST"
echo "ping: ok"
for pass in 1 2; do
  nc "$SERVER" 5001 < /dev/null > /tmp/down
  sum=$(sha256sum < /tmp/down)
  [ "${sum%% *}" = "$SUM" ]
done
echo "from the peer: ok"
mkfifo /tmp/up
nc "$SERVER" 5002 < /tmp/up | head -c "$BYTES" > /tmp/back &
exec 3> /tmp/up
cat /tmp/down >&3
until [ "$(wc -c < /tmp/back)" = "$BYTES" ]; do sleep 1; done
exec 3>&-
sum=$(sha256sum < /tmp/back)
[ "${sum%% *}" = "$SUM" ]
echo "to the peer and back: ok"
