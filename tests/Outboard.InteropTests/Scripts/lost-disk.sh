# lost-disk.sh - a disk's server dies; the disk is unplugged, and one that is plugged in then has the data.
modprobe -q nvme
echo 3 > /sys/module/nvme_core/parameters/io_timeout
node=/dev/nvme0n1
dd if=/dev/urandom of=/tmp/data bs=64k count=16 2> /dev/null
expected=$(sha256sum < /tmp/data)

echo "PLUG 1"
until_true [ -b $node ]
dd if=/tmp/data of=$node bs=64k oflag=direct conv=fsync 2> /dev/null
echo KILL
hear KILLED
if dd if=$node of=/dev/null bs=64k count=1 iflag=direct; then exit 1; fi
dmesg | grep nvme | tail -3
echo LOST
until_true gone $node
echo "PLUG 2"
until_true [ -b $node ]
[ "$(hash_of $node 16)" = "$expected" ]
echo "the data is there"
