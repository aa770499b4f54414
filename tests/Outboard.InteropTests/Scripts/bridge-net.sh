# bridge-net.sh - the card gets the address ADDRESS from whoever is behind it.
set -e
modprobe virtio_pci 2> /dev/null || true
modprobe virtio_net 2> /dev/null || true
[ "$(cat /sys/class/net/eth0/address)" = 52:54:00:77:00:09 ]
ip link set eth0 up
cat > /tmp/lease << 'END'
#!/bin/sh
[ "$1" != bound ] || { ip address add "$ip/24" dev eth0; }
END
chmod +x /tmp/lease
udhcpc -i eth0 -f -n -q -t 20 -T 1 -s /tmp/lease
ip address show eth0 | grep "inet $ADDRESS/24"
echo "lease: ok"
