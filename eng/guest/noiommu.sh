#!/bin/bash
# noiommu.sh - makes the module vfio.ko for the test machine's kernel with the no-IOMMU mode of VFIO, which Debian
# leaves out (CONFIG_VFIO_NOIOMMU), and prints its path: Debian's own source of that module, built against the headers
# of that very kernel. The first call downloads 170 MB and takes half a minute; later calls only print the path.
#
#   eng/guest/noiommu.sh
#
# Needs what eng/peers.sh needs, and root or user namespaces: the build sees the compiler and the headers at the paths
# that they expect, by a mount that ends with it. Nothing is installed.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OBJECTS='vfio_main.o group.o container.o virqfd.o'
TOOLS=(gcc-14 make mawk binutils)

# the functions of peers.sh, without what it does: how it reads Debian's archive
eval "$(sed -n '/^[a-z_]*() {$/,/^}$/p; /^[A-Z_]*=[^(]*$/p; /^[a-z_]*() {.*}$/p' "$HERE/../peers.sh")"

# NAME=VERSION of what is missing: the compiler, and the headers and the source of the kernel that the tree has
wanted() {
  local release=$1 version=$2 series
  series=$(cut -d . -f 1,2 <<< "$version")
  private_apt apt-get -qq --simulate install "${TOOLS[@]}" |
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p'
  printf '%s\n' "linux-headers-$release=$version" "linux-headers-${release%-*}-common=$version" \
    "linux-kbuild-${release%-*}=$version" "linux-source-$series=$version"
}

download() {
  local peers=$1 release version packages
  release=$(basename "$peers/tree/usr/lib/modules/"*)
  version=$(sed -n "s/^linux-image-${release}_\(.*\)_amd64.deb$/\1/p" "$peers/packages")
  APT=$FOLDER/apt
  ARCHIVES=$CACHE/archives
  SETS=()
  update_lists
  mapfile -t packages < <(wanted "$release" "$version")
  mkdir -p "$FOLDER/debs"
  say "downloading the source of the module vfio of $release"
  (cd "$FOLDER/debs" && private_apt apt-get -qq download "${packages[@]}" >&2) ||
    fail "the source of Debian's kernel $version could not be downloaded" "see apt's message above"
  for package in "$FOLDER"/debs/*.deb; do
    case $(basename "$package") in
      linux-source-*)
        dpkg-deb --fsys-tarfile "$package" | tar -xO --wildcards './usr/src/*.tar.xz' |
          tar -xJ -C "$FOLDER" --strip-components=3 --wildcards '*/drivers/vfio/*.[ch]' ;;
      *) dpkg-deb -x "$package" "$FOLDER/tree" ;;
    esac
  done
  rm -rf "$APT" "$FOLDER/debs"
}

# runs in a mount namespace of its own: this machine's programs, beside them the compiler and the headers
build_inside() {
  local folder=$1 peers=$2 headers
  mount -t overlay -o "lowerdir=$folder/tree/usr:$peers/tree/usr" overlay /usr
  headers=$(echo /usr/src/linux-headers-*-amd64)
  printf 'obj-m := vfio.o\nvfio-y := %s\nccflags-y := -DCONFIG_VFIO_NOIOMMU=1\n' "$OBJECTS" > "$folder/Makefile"
  make -s -C "$headers" "M=$folder" CONFIG_DEBUG_INFO_BTF_MODULES= modules
  x86_64-linux-gnu-strip --strip-debug "$folder/vfio.ko"
}

main() {
  local peers namespace
  peers=$("$HERE/../peers.sh")
  CACHE=$(dirname "$peers")
  FOLDER=$peers/noiommu-$(sha256sum < "${BASH_SOURCE[0]}" | cut -c 1-12)
  if [ ! -e "$FOLDER/vfio.ko" ]; then
    exec 9> "$peers/noiommu.lock"
    flock 9
    if [ ! -e "$FOLDER/vfio.ko" ]; then
      rm -rf "$FOLDER"
      mkdir -p "$FOLDER"
      download "$peers"
      ln -s mawk "$FOLDER/tree/usr/bin/awk"
      namespace=(unshare --mount)
      [ "$(id -u)" = 0 ] || namespace=(unshare --user --map-root-user --mount)
      "${namespace[@]}" bash "${BASH_SOURCE[0]}" --inside "$FOLDER" "$peers" >&2 9>&-
      rm -rf "$FOLDER/tree"
    fi
  fi
  echo "$FOLDER/vfio.ko"
}

if [ "${1:-}" = --inside ]; then
  build_inside "$2" "$3"
else
  main
fi
