#!/bin/bash
# peer.sh - runs a program of the peers tree, which is made first when it is missing.
#
#   eng/peer.sh [--die-with-parent] PROGRAM [ARGUMENT...]
#
# The program sees this machine's files at their own paths; only /usr (and with it /bin and /lib) is the tree's, in a
# mount namespace that ends with the program. Every step is an exec: the process id, standard streams, inherited file
# descriptors, signals and exit status are the program's own. Without root a user namespace is used; then the program
# believes to be root, but has the caller's rights. Exit status 126 means that the program could not be started.
# With --die-with-parent the kernel kills the program when the thread that started it ends, however that happens.
set -euo pipefail

fail() {
  printf 'peer: cannot run %s: %s; remedy: %s\n' "$PROGRAM" "$1" "$2" >&2
  exit 126
}

leash=()
if [ "${1:-}" = --die-with-parent ]; then
  leash=(setpriv --pdeathsig KILL)
  shift
fi
PROGRAM=${1:?usage: peer.sh [--die-with-parent] PROGRAM [ARGUMENT...]}
ENG=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
FOLDER=$("$ENG/peers.sh" < /dev/null) || exit 126
TREE=$FOLDER/tree

# only a merged /usr can be exchanged by one mount
for link in /bin /lib /lib64; do
  [ -L "$link" ] || fail "$link of this machine is no link into /usr" "use a machine with a merged /usr"
done

namespace=(unshare --mount)
[ "$(id -u)" = 0 ] || namespace=(unshare --user --map-root-user --mount)
"${namespace[@]}" true 2> /dev/null ||
  fail "no mount namespace may be made here" "run as root, or allow user namespaces"

unset LD_LIBRARY_PATH LD_PRELOAD
export PATH=/usr/sbin:/usr/bin:/usr/libexec
# the host's loader cache names libraries that the tree lacks: without it the loader searches its own folders
exec "${namespace[@]}" "${leash[@]}" /bin/sh -c '
  tree=$1; shift
  [ ! -e /etc/ld.so.cache ] || mount --bind /dev/null /etc/ld.so.cache || exit 126
  mount --bind "$tree/usr" /usr || exit 126
  exec "$@"' peer "$TREE" "$@"
