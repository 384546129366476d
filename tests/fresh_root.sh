#!/bin/bash
# Tries the README's commands as a new user would, in a freshly made Debian or Ubuntu root directory.
#
#   tests/fresh_root.sh [--keep DIR] [--user] [bookworm|trixie|noble] [COMMAND...]
#
# Needs root, debootstrap and a network. The root gets a minimal system, a copy of this checkout (in a path with a space)
# and this machine's apt and pip settings; the commands run in it in namespaces of their own, except for the network.
# COMMAND... instead of `./spraylab run quick` and `./spraylab test` is one command, run in the checkout. --user: not as
# root but as a user with sudo. MIRROR=URL: where the packages come from, if not from where this machine has its own.
# --keep DIR: the root is made in DIR and stays there; if it is there already, it gets a new copy of this checkout.
# Exit status 0 if every command succeeded; but for DIR, nothing stays behind.
set -euo pipefail

die() { printf 'fresh_root: %s\n' "$*" >&2; exit 2; }

# The second half runs in its own mount and process namespaces, which take its mounts and processes with them.
if [ "${1-}" = --inside ]; then
    root=$2 user=$3
    shift 3
    trap 'exit 130' INT # the first process of a PID namespace gets no signal that it does not ask for
    mount --bind "$root" "$root" # pivot_root(8) needs a mount point
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --rbind --make-rslave /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    # The root of the namespace and not a chroot in it: entering a mount namespace leads to its own root.
    cd "$root"
    pivot_root . .
    umount --lazy .
    cd /
    root=/

    home=/root
    [ "$user" = root ] || home=/home/$user
    settings=(HOME="$home" USER="$user" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        TERM="${TERM:-dumb}" LANG=C.UTF-8)
    while IFS= read -r name; do
        settings+=("$name=${!name}")
    done < <(compgen -e | grep -E '^(PIP_.*|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY)$')

    TIMEFORMAT="== %R s"
    failed=0
    try() {
        printf '\n== %s\n' "$*"
        # shellcheck disable=SC2016  # expanded by the shell inside
        time timeout --foreground --kill-after=10 3600 chroot --userspec="$user" --groups="$user" "$root" \
            env -i "${settings[@]}" sh -c 'cd "$HOME/my work/spraylab" && exec "$@"' sh "$@" </dev/null || {
            printf '== failed with exit status %s\n' $?
            failed=1
        }
    }
    if [ $# -gt 0 ]; then
        try "$@"
    else
        try ./spraylab run quick
        try ./spraylab test
    fi
    if [ "$user" != root ]; then
        foreign=$(find "$root$home/my work" ! -user "$(stat -c %u "$root$home")" | head)
        [ -z "$foreign" ] || { printf '== left behind, but not as the user:\n%s\n' "$foreign"; failed=1; }
    fi
    exit "$failed"
fi

keep=
[ "${1-}" != --keep ] || { keep=${2-}; [ -n "$keep" ] || die "--keep needs a directory."; shift 2; }
user=root
[ "${1-}" != --user ] || { user=alice; shift; }
suite=${1:-bookworm}
[ $# -eq 0 ] || shift
case $suite in
    bookworm | trixie) label=Debian components=main ;;
    noble) label=Ubuntu components=main,universe ;;
    *) die "knows bookworm, trixie and noble, not '$suite'." ;;
esac
[ "$(id -u)" -eq 0 ] || die "needs root: chroot, mounts and namespaces."
command -v debootstrap >/dev/null || die "needs debootstrap (package debootstrap)."
[ -e "/usr/share/debootstrap/scripts/$suite" ] || die "this machine's debootstrap does not know $suite."
# shellcheck disable=SC2016  # apt-get expands these
mirror=${MIRROR:-$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Identifier: Packages' |
    sed -n "s/^$label //p" | head -n 1)}
[ -n "$mirror" ] || die "knows no $label mirror: run apt-get update, or set MIRROR."

checkout=$(dirname "$(dirname "$(readlink -f "$0")")")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/fresh-root.XXXXXX")
trap 'rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
log=$scratch/log
root=$scratch/root
[ -z "$keep" ] || root=$(readlink -m "$keep")
home=$root/root
[ "$user" = root ] || home=$root/home/$user

make_root() {
    SECONDS=0
    timeout --foreground 1800 debootstrap --variant=minbase --components="$components" "$suite" "$root" "$mirror" \
        >"$log" 2>&1 ||
        { tail -n 8 "$log" >&2; die "debootstrap failed: above, its last words."; }
    chmod 755 "$root" # "/" of everyone in it
    printf '== a fresh %s root in %s s\n' "$suite" "$SECONDS"

    # As in every container image: a package that is installed starts no service.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # This machine's ways to its registries. `cp --parents` keeps the whole path; what is not there is not needed.
    for setting in /etc/hosts /etc/resolv.conf /etc/pip.conf /etc/apt/apt.conf /etc/apt/apt.conf.d /etc/apt/auth.conf \
        /etc/apt/auth.conf.d /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates; do
        [ ! -e "$setting" ] || cp -rL --parents "$setting" "$root"
    done

    if [ "$user" != root ]; then
        { chroot "$root" apt-get update && chroot "$root" apt-get install --yes --no-install-recommends sudo &&
            chroot "$root" useradd --create-home --shell /bin/bash "$user"; } >"$log" 2>&1 ||
            { tail -n 8 "$log" >&2; die "could not make a user with sudo: above, the last words."; }
        printf '%s ALL=(ALL) NOPASSWD: ALL\n' "$user" >"$root/etc/sudoers.d/$user"
    fi
    for setting in .config/pip .pip; do
        [ ! -e "$HOME/$setting" ] || (cd "$HOME" && cp -rL --parents "$setting" "$home")
    done
}

if [ -z "$(ls -A "$root" 2>/dev/null)" ]; then
    make_root
elif [ -d "$home/my work" ] && grep -q "^VERSION_CODENAME=$suite\$" "$root/etc/os-release"; then
    find "$home/my work/spraylab" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
else
    die "$root is there, and is no $suite root with this user that was made here: remove it, or name another."
fi
mkdir -p "$home/my work/spraylab"
# The files that a clone would have, as they are now.
(cd "$checkout" && git ls-files -z --cached --others --exclude-standard --deduplicate |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --create --null --files-from=- --file=-) |
    tar --extract --no-same-owner --directory="$home/my work/spraylab"
[ "$user" = root ] || chroot "$root" chown -R "$user:" "/home/$user"

setpriv --pdeathsig KILL -- unshare --mount --propagation private --pid --fork --kill-child --ipc --uts \
    bash "$0" --inside "$root" "$user" "$@"
