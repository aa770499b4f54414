#!/bin/bash
# peers.sh - makes the tree of foreign programs that the interoperability tests run against, and prints its folder.
#
#   eng/peers.sh [--with SET[,SET...]]
#
# The tree holds QEMU, qemu-storage-daemon, qemu-io, qemu-img, libblkio and a guest kernel from Debian's packages,
# unpacked side by side without being installed: nothing on the machine changes, no root is needed, nothing is mounted.
# Run a program of it with eng/peer.sh. The first call downloads and unpacks; later calls only print the folder.
#
# Optional sets: valgrind; rust (a compiler and the crates of rust-vmm, for the benchmarks); guest-tools (small programs
# that guest/build.sh then puts into the test machine); and programs at the other end of a socket: dpdk (55 MB),
# virtiofsd, passt, vsock (vhost-device-vsock, from Debian's unstable release), gpu (QEMU's vhost-user-gpu, 50 MB); and
# uefi: the firmware OVMF, for QEMU.
# Environment:
#   OUTBOARD_PEERS          folder of the cache (otherwise outboard/peers in the user's cache folder)
#   OUTBOARD_DEBIAN_MIRROR  Debian archive to take packages from (otherwise the one in this machine's own apt sources)
# Needs bash, apt-get, dpkg-deb, flock and Debian's archive keyring: a Debian machine has them.
set -euo pipefail

RELEASE=trixie
BACKPORTS=$RELEASE-backports
FROM_BACKPORTS='qemu-* seabios'
UNSTABLE=sid
FROM_UNSTABLE=vhost-device-vsock
KERNEL=linux-image-amd64
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

BASE_PACKAGES=(
  base-files bash dash coreutils findutils grep sed mawk libc-bin
  qemu-system-x86 qemu-utils qemu-block-extra seabios libblkio1
  busybox-static kmod cpio zstd xz-utils e2fsprogs
)

set_packages() {
  case $1 in
    dpdk) echo dpdk dpdk-dev ;;
    virtiofsd) echo virtiofsd ;;
    passt) echo passt ;;
    vsock) echo vhost-device-vsock ;;
    gpu) echo libvirglrenderer1 libgbm1 libepoxy0 ;;
    uefi) echo ovmf ;;
    valgrind) echo valgrind ;;
    rust) echo cargo rustfmt gcc libc6-dev librust-libc-dev librust-log-dev librust-io-uring-dev librust-vhost-dev \
      librust-vhost-user-backend-dev librust-virtio-queue-dev librust-virtio-bindings-dev librust-vm-memory-dev \
      librust-vmm-sys-util-dev ;;
    guest-tools) echo nvme-cli i2c-tools gpiod alsa-utils evtest socat iperf3 ;;
    *) fail "there is no set '$1'" "choose from dpdk, virtiofsd, passt, vsock, gpu, uefi, valgrind, rust, guest-tools" ;;
  esac
}

say() { printf 'peers: %s\n' "$*" >&2; }

fail() {
  printf 'peers: cannot make the peers tree: %s; remedy: %s\n' "$1" "$2" >&2
  exit 1
}

parse_arguments() {
  SETS=()
  while [ $# -gt 0 ]; do
    case $1 in
      --with) [ $# -ge 2 ] || fail "--with has no value" "name the sets, for example --with dpdk"
        IFS=, read -ra SETS <<< "$2"; shift 2 ;;
      --with=*) IFS=, read -ra SETS <<< "${1#--with=}"; shift ;;
      *) fail "unknown argument '$1'" "call it as: peers.sh [--with SET,SET]" ;;
    esac
  done
}

locate_folder() {
  local script_hash
  script_hash=$(sha256sum < "${BASH_SOURCE[0]}")
  CACHE=${OUTBOARD_PEERS:-${XDG_CACHE_HOME:-${HOME:?neither OUTBOARD_PEERS nor HOME is set}/.cache}/outboard/peers}
  case $CACHE in
    /*) ;;
    *) CACHE=$PWD/$CACHE ;;
  esac
  FOLDER=$CACHE/${script_hash:0:12}
  TREE=$FOLDER/tree
  STAMPS=$FOLDER/stamps
}

complete() {
  local set
  for set in base "${SETS[@]}"; do
    [ -e "$STAMPS/$set" ] || return 1
  done
}

check_machine() {
  local program
  [ "$(uname -m)" = x86_64 ] || fail "this is a $(uname -m) machine" "run it on x86_64"
  for program in apt-get apt-cache dpkg-deb flock; do
    command -v "$program" > /dev/null || fail "$program is missing" "use a Debian or Ubuntu machine or container"
  done
  [ -e "$KEYRING" ] || install_keyring
}

install_keyring() {
  [ "$(id -u)" = 0 ] || fail "Debian's archive keyring is missing" "run as root: apt-get install debian-archive-keyring"
  say "installing debian-archive-keyring"
  { apt-get -qq update && apt-get -qq -y install --no-install-recommends debian-archive-keyring; } >&2 ||
    fail "apt-get could not install debian-archive-keyring" "install that package by hand"
}

# apt with a state of its own: it sees an empty machine and leaves the real one alone
private_apt() {
  local program=$1
  shift
  DEBIAN_FRONTEND=noninteractive LC_ALL=C "$program" \
    -o Dir::State="$APT" -o Dir::State::lists="$APT/lists" -o Dir::State::status="$APT/status" \
    -o Dir::Cache="$APT" -o Dir::Cache::archives="$ARCHIVES" \
    -o Dir::Etc::sourcelist="$APT/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences="$APT/preferences" -o Dir::Etc::preferencesparts=/dev/null \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root \
    -o APT::Install-Recommends=false -o APT::Get::List-Cleanup=false \
    -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# the archives this machine already trusts, the most promising first
candidate_mirrors() {
  if [ -n "${OUTBOARD_DEBIAN_MIRROR:-}" ]; then
    echo "$OUTBOARD_DEBIAN_MIRROR"
    return
  fi
  apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2> /dev/null | sort -u |
    while read -r label uri; do
      [ -n "$uri" ] || { uri=$label; label=unknown; }
      case $uri in
        mirror+file:*) uri=$(grep -m 1 -o '^[a-z]*://[^[:space:]]*' "/${uri#mirror+file:/}" || true) ;;
      esac
      case $label:$uri in
        *security*) ;;
        Debian:*) echo "1 $uri" ;;
        *debian*) echo "2 $uri" ;;
      esac
    done | sort -u | cut -d ' ' -f 2-
}

update_lists() {
  local mirror
  mkdir -p "$APT/lists/partial" "$ARCHIVES/partial"
  : > "$APT/status"
  printf 'Package: %s\nPin: release n=%s\nPin-Priority: %s\n\n' \
    "$FROM_BACKPORTS" "$BACKPORTS" 600 "$FROM_UNSTABLE" "$UNSTABLE" 600 '*' "$UNSTABLE" -1 > "$APT/preferences"
  for mirror in $(candidate_mirrors); do
    say "reading the package lists of $RELEASE"
    printf "deb [arch=amd64 signed-by=$KEYRING] $mirror %s main\n" "$RELEASE" "$BACKPORTS" > "$APT/sources.list"
    case " ${SETS[*]} " in
      *' vsock '*) echo "deb [arch=amd64 signed-by=$KEYRING] $mirror $UNSTABLE main" >> "$APT/sources.list" ;;
    esac
    if private_apt apt-get -qq -o APT::Update::Error-Mode=any update >&2; then
      return
    fi
  done
  fail "no Debian archive with $RELEASE and $BACKPORTS was found through this machine's apt sources" \
    "set OUTBOARD_DEBIAN_MIRROR to the address of a Debian mirror"
}

# prints NAME_VERSION_ARCHITECTURE.deb for each package that the given ones need
resolve() {
  private_apt apt-get -qq --simulate install "$@" |
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) [^[]*\[\([a-z0-9]*\)\]).*/\1_\2_\3.deb/p' | sed 's/:/%3a/g'
}

unpack() {
  local archive=$1
  grep -qxF "$archive" "$FOLDER/packages" && return
  dpkg-deb -x "$ARCHIVES/$archive" "$TREE" ||
    fail "$archive could not be unpacked" "check the free space of $CACHE and call again"
  echo "$archive" >> "$FOLDER/packages"
}

# a package without what it depends on
unpack_alone() {
  local package=$1 archive
  (cd "$ARCHIVES" && private_apt apt-get -qq download "$package" >&2) ||
    fail "$package could not be downloaded" "see apt's message above, then call again"
  archive=$(cd "$ARCHIVES" && ls -t "$package"_*.deb | head -n 1)
  unpack "$archive"
}

unpack_kernel() {
  local archive
  archive=$(resolve "$KERNEL" | grep '^linux-image-[0-9]') || fail "$KERNEL is not in the archive" "see apt's message"
  say "downloading the guest kernel ${archive%%_*}"
  unpack_alone "${archive%%_*}"
}

make_tree() {
  local packages=("${BASE_PACKAGES[@]}") set archives archive
  APT=$FOLDER/apt
  ARCHIVES=$CACHE/archives
  mkdir -p "$TREE" "$STAMPS"
  touch "$FOLDER/packages"
  for set in "${SETS[@]}"; do
    read -ra archives <<< "$(set_packages "$set")"
    packages+=("${archives[@]}")
  done
  update_lists
  mapfile -t archives < <(resolve "${packages[@]}")
  [ ${#archives[@]} -gt 0 ] || fail "apt finds no way to install ${packages[*]}" "see apt's message above"
  say "downloading ${#archives[@]} packages"
  private_apt apt-get -qq -y --download-only install "${packages[@]}" > /dev/null ||
    fail "packages could not be downloaded" "see apt's message above, then call again"
  say "unpacking"
  printf '%s\n' "${archives[@]}" | grep -E '^(base-files|libc6)_' |
    while read -r archive; do unpack "$archive"; done
  for archive in "${archives[@]}"; do unpack "$archive"; done
  unpack_kernel
  case " ${SETS[*]} " in
    *' gpu '*) unpack_alone qemu-system-gui ;;
  esac
  rm -rf "$APT"
  for set in base "${SETS[@]}"; do touch "$STAMPS/$set"; done
  say "ready: $FOLDER ($(du -sh "$FOLDER" | cut -f 1))"
}

parse_arguments "$@"
locate_folder
if ! complete; then
  for set in "${SETS[@]}"; do set_packages "$set" > /dev/null; done
  check_machine
  mkdir -p "$CACHE" || fail "$CACHE cannot be made" "set OUTBOARD_PEERS to a folder that can be written"
  exec 9> "$CACHE/lock"
  flock 9
  complete || make_tree
fi
echo "$FOLDER"
