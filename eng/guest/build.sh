#!/bin/bash
# build.sh - makes the test machine from the programs of the peers tree and prints its folder, which then holds
#   vmlinux      the kernel, unpacked: QEMU starts it directly (PVH), which saves its decompression under emulation
#   initrd.cpio  busybox, init, the kernel modules named below, file system tools and, when the tree has them, others
# Needs what eng/peer.sh needs. Takes a few seconds; later calls only print the folder.
set -euo pipefail

MODULES=(
  virtio_pci virtio_mmio virtio_blk virtio_net virtio_scsi sd_mod sg virtio_console virtio-rng virtio_balloon
  virtio_input evdev virtio-gpu virtio_snd virtio_crypto virtio_iommu virtio_pmem virtio_mem
  9p 9pnet_virtio virtiofs fuse vsock vmw_vsock_virtio_transport vsock_loopback
  nvme ext4 ext2 vfat nls_cp437 nls_ascii nls_iso8859-1 overlay crc32c crc32c_generic
  tun vfio vfio-pci vfio_iommu_type1 uio_pci_generic gpio-pci-idio-16 qemu_fw_cfg i2c-core i2c-smbus i2c-dev e1000e algif_hash
)
# the last ones come with the optional set guest-tools
TOOLS=(
  mkfs.ext4 e2fsck
  nvme i2cdetect i2cget i2cset gpiodetect gpioinfo gpioget gpioset aplay arecord evtest socat iperf3
)

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

copy_modules() {
  local root=$1 version=$2 tree_modules=$3 module path
  # modprobe finds the dependencies in a scratch copy of the index
  local index=$WORK/index
  mkdir -p "$index/lib/modules"
  ln -s "$tree_modules" "$index/lib/modules/$version"
  [ -e "$tree_modules/modules.dep" ] || depmod -b "$index" "$version"
  for module in "${MODULES[@]}"; do
    modprobe -d "$index" -S "$version" -D --ignore-install "$module" 2> /dev/null ||
      printf 'guest: this kernel has no module %s\n' "$module" >&2
  done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u > "$WORK/modules"
  mkdir -p "$root/lib/modules/$version"
  while read -r path; do
    module=$(basename "$path")
    case $module in
      *.xz) xz -dc "$path" > "$root/lib/modules/$version/${module%.xz}" ;;
      *.zst) zstd -qdc "$path" > "$root/lib/modules/$version/${module%.zst}" ;;
      *) cp "$path" "$root/lib/modules/$version/" ;;
    esac
  done < "$WORK/modules"
  cp "$tree_modules"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
  depmod -b "$root" "$version"
}

copy_tools() {
  local root=$1 tool program library
  mkdir -p "$root/usr/bin"
  for tool in "${TOOLS[@]}"; do
    program=$(command -v "$tool") || continue
    cp -L "$program" "$root/usr/bin/"
    for library in $(ldd "$program" | grep -oE '/[^ ]+\.so[^ ]*'); do
      mkdir -p "$root$(dirname "$library")"
      [ -e "$root$library" ] || cp -L "$library" "$root$library"
    done
  done
  [ ! -d /usr/share/alsa ] || { mkdir -p "$root/usr/share"; cp -r /usr/share/alsa "$root/usr/share/"; }
}

make_root() {
  local root=$1 applet
  mkdir -p "$root"/{bin,dev,etc,lib,lib64,mnt,proc,root,run,sys,test,tmp,usr}
  ln -s bin "$root/sbin"
  cp /bin/busybox "$root/bin/"
  for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
  done
  cp "$HERE/init" "$root/init"
  chmod 755 "$root/init"
  echo root:x:0:0:root:/root:/bin/sh > "$root/etc/passwd"
  echo root:x:0: > "$root/etc/group"
  : > "$root/etc/mke2fs.conf"
}

# a bzImage carries the kernel as a zstd stream
unpack_kernel() {
  local image=$1 result=$2 offset
  offset=$(LC_ALL=C grep -m 1 -abo -P '\x28\xb5\x2f\xfd' "$image" | LC_ALL=C sed -n '1s/:.*//p')
  # bytes follow the stream, which makes zstd report an error after it has written everything
  tail -c "+$((offset + 1))" "$image" | zstd -qdc > "$result" 2> /dev/null || true
  [ "$(head -c 4 "$result" | tail -c 3)" = ELF ] || { echo "guest: $image holds no zstd-packed ELF" >&2; return 1; }
}

# runs inside the tree: every program used here is one of its programs
build_inside() {
  local tree=$1 folder=$2 root version
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
  root=$WORK/root
  version=$(basename /usr/lib/modules/*)
  make_root "$root"
  copy_modules "$root" "$version" "/usr/lib/modules/$version"
  copy_tools "$root"
  unpack_kernel "$tree/boot/vmlinuz-$version" "$folder/vmlinux"
  (cd "$root" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet) > "$folder/initrd.cpio"
}

main() {
  local peers folder hash
  peers=$("$HERE/../peers.sh")
  hash=$(cat "$HERE/build.sh" "$HERE/init" "$peers/packages" | sha256sum)
  folder=$peers/guest-${hash:0:12}
  if [ ! -e "$folder/complete" ]; then
    exec 9> "$peers/guest.lock"
    flock 9
    if [ ! -e "$folder/complete" ]; then
      echo "guest: building the test machine" >&2
      rm -rf "$folder"
      mkdir "$folder"
      "$HERE/../peer.sh" bash "$HERE/build.sh" --inside "$peers/tree" "$folder" 9>&-
      touch "$folder/complete"
      echo "guest: ready: $folder ($(du -sh "$folder" | cut -f 1))" >&2
    fi
  fi
  echo "$folder"
}

if [ "${1:-}" = --inside ]; then
  build_inside "$2" "$3"
else
  main
fi
