# bridge-fs.sh - mounts the folder with the tag "home"; the file in it has the checksum SUM, and is copied into it.
set -e
modprobe virtio_pci 2> /dev/null || true
modprobe virtiofs
mkdir -p /mnt
mount -t virtiofs home /mnt
same() { [ "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$SUM" ]; }
same /mnt/from-host
echo "from the host: ok"
mkdir /mnt/folder
cp /mnt/from-host /mnt/folder/half-way
sync
mv /mnt/folder/half-way /mnt/folder/from-guest
ln -s from-guest /mnt/folder/link
touch /mnt/removed
rm /mnt/removed
umount /mnt
mount -t virtiofs home /mnt
same /mnt/folder/link
[ "$(ls /mnt/folder | wc -l)" = 2 ]
umount /mnt
echo "to the host and back: ok"
