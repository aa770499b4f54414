# pci-hotplug.sh - what scripts have in common whose devices come and go.
set -e
until_true() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ]
    sleep 0.1
  done
}

# what is said by the console comes from the test: a server is killed while nobody talks to it (see the documentation)
hear() { read -r -t 120 line < /dev/console && [ "$line" = "$1" ]; }
gone() { [ ! -e "$1" ]; }
hash_of() { dd if="$1" bs=64k count="$2" iflag=direct 2> /dev/null | sha256sum; }
