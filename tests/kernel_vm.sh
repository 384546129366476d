#!/bin/bash
# Tries spraylab where the kernel forwards: in a virtual machine with Debian's cloud kernel, openvswitch and netem.
#
#   tests/kernel_vm.sh [--keep DIR]
#
# Needs root, qemu-system-x86, debootstrap, e2fsprogs and a network, but no KVM: the machine is emulated in software and
# slow, so the rates are low, and of the invariants "machine" may fail. In it is a root made by tests/fresh_root.sh, with
# what `./spraylab --setup` installs; there is no network in it.
# --keep DIR: that root is made in DIR and stays there; the next time starts from it.
# Exit status 0 if every check succeeded; but for DIR, nothing stays behind.
# shellcheck disable=SC2317  # functions that a shell of their own calls
set -euo pipefail

die() { printf 'kernel_vm: %s\n' "$*" >&2; exit 2; }

# The second half is the machine's first process: it runs the checks and leaves its verdict at the second serial port.
if [ "${1-}" = --inside ]; then
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb COLUMNS=120
    cd "$(dirname "$(dirname "$0")")"
    ip link set lo up

    # A connection to a port that nobody has is refused after one round trip, and never before.
    netem_delays() {
        ip link set lo up
        tc qdisc add dev lo root netem delay 100ms
        tc qdisc show dev lo
        local before=${EPOCHREALTIME/./}
        (: </dev/tcp/127.0.0.1/9) 2>/dev/null || true
        local took_us=$((${EPOCHREALTIME/./} - before))
        printf 'a round trip with 100 ms each way took %s ms\n' $((took_us / 1000))
        [ "$took_us" -ge 200000 ]
    }

    # The experiment; meanwhile, what the kernel's datapath says of itself in the run's own network namespace.
    experiment() {
        ./spraylab run quick --out /root/results --set fabric.leaves=2 --set fabric.spines=2 \
            --set fabric.hosts_per_leaf=2 --set fabric.host_rate=2mbit --set fabric.fabric_rate=2mbit \
            --set 'traffic=[{collective: permutation, channels: 2, size: 250KB}]' --set 'seeds=[1]' &
        local run=$! switch seen
        while kill -0 "$run" 2>/dev/null; do
            sleep 2
            switch=$(pidof -s ovs-vswitchd) || continue
            seen=$(nsenter --target "$switch" --net ovs-dpctl show 2>/dev/null) || continue
            printf '%s\n' "$seen" >/root/datapath
        done
        wait "$run"
    }

    datapath_forwarded() {
        head -n 4 /root/datapath
        grep -q '^system@ovs-system:' /root/datapath
        grep -Eq 'lookups: hit:[1-9]' /root/datapath
    }

    record_is_right() {
        .venv/bin/python - <<'PYTHON'
import json, pathlib
import pandas as pd

results = pathlib.Path("/root/results")
fabric = json.loads((results / "manifest.json").read_text())["fabric"]
runs = pd.read_csv(results / "runs.csv", keep_default_na=False)
print(f"data plane {fabric['dataplane']}, Open vSwitch {fabric['openvswitch']}, fabric up in {fabric['setup_s']}")
columns = ["scheme", "cct_over_bound", "congestion_ratio", "retransmitted_segments", "drops_packets", "cpu_idle_min"]
print(runs[[*columns, "fidelity", "fidelity_reasons"]].to_string(index=False))
assert fabric["dataplane"] == "ovs-kernel", fabric["dataplane"]
assert len(fabric["shaping"]) == 2 * (4 + 4) and all(fabric["shaping"].values()), fabric["shaping"]
assert list(runs.scheme) == ["ecmp", "spray", "ethereal"], runs.scheme
assert set(runs.dataplane) == {"ovs-kernel"}, runs.dataplane
assert runs.set_index("scheme").congestion_ratio["ethereal"] <= 1.05
reasons = [reason for run in runs.fidelity_reasons for reason in run.split("; ") if reason]
assert all(reason.startswith("machine: ") for reason in reasons), reasons
PYTHON
    }

    TIMEFORMAT='== %0R s'
    failed=0
    # try SECONDS WHAT COMMAND...
    try() {
        printf '\n== %s\n' "$2"
        time timeout --kill-after=10 "$1" "${@:3}" </dev/null ||
            { printf '== failed with exit status %s: %s\n' $? "$2"; failed=1; }
    }
    export -f netem_delays experiment datapath_forwarded record_is_right
    printf '== Linux %s is up after %.0f s\n' "$(uname -r)" "$(cut -d ' ' -f 1 /proc/uptime)"
    try 60 'openvswitch and netem load' modprobe --all openvswitch sch_netem
    try 60 'netem delays' unshare --net bash -euc netem_delays
    try 300 'doctor' ./spraylab doctor
    try 900 'an experiment' bash -euc experiment
    try 60 'the datapath in the kernel forwarded it' bash -euc datapath_forwarded
    try 120 'what was recorded of it' bash -euc record_is_right
    try 900 'the smoke test' ./spraylab test --smoke

    printf '%s\n' "$failed" >/dev/ttyS1
    sync
    mount -o remount,ro / || true
    echo o >/proc/sysrq-trigger
    sleep 60
    exit # the kernel panics, which ends the machine as well
fi

keep=
[ "${1-}" != --keep ] || { keep=${2:?"--keep needs a directory"}; shift 2; }
[ $# -eq 0 ] || die "does not know '$1'."
[ "$(id -u)" -eq 0 ] || die "needs root: chroot, mounts and namespaces."
for program in qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap mke2fs:e2fsprogs; do
    command -v "${program%:*}" >/dev/null || die "needs ${program%:*} (package ${program#*:})."
done

self=$(readlink -f "$0")
scratch=$(mktemp -d "${TMPDIR:-/tmp}/kernel-vm.XXXXXX")
trap 'rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$scratch/root
[ -z "$keep" ] || root=$(readlink -m "$keep")

# shellcheck disable=SC2016  # expanded by the shell inside
"${self%/*}/fresh_root.sh" --keep "$root" bookworm sh -euc '
    ./spraylab --setup
    export DEBIAN_FRONTEND=noninteractive
    [ -e /vmlinuz ] || apt-get -qq install --yes --no-install-recommends linux-image-cloud-amd64 >/dev/null
    printf "%s\n" "#!/bin/sh" "exec bash \"$PWD/tests/kernel_vm.sh\" --inside" >/sbin/init
    chmod 755 /sbin/init'

SECONDS=0
truncate --size 8G "$scratch/disk"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$scratch/disk"
printf '== a disk in %s s\n' "$SECONDS"

SECONDS=0
# shellcheck disable=SC2054  # commas are qemu's
machine=(
    -accel tcg,thread=multi -smp 2 -m 3G
    -cpu Nehalem # the oldest that NumPy and PyArrow run on, and the least to emulate
    -nodefaults -no-user-config -display none -no-reboot
    -kernel "$root/vmlinuz" -initrd "$root/initrd.img"
    -append 'root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off'
    -drive "file=$scratch/disk,format=raw,if=virtio,cache=unsafe"
    -device virtio-rng-pci
    -serial stdio -serial "file:$scratch/verdict"
)
setpriv --pdeathsig KILL -- timeout --kill-after=10 3600 \
    setpriv --pdeathsig KILL -- nice -n 19 qemu-system-x86_64 "${machine[@]}" </dev/null ||
    die "the machine ended with exit status $? after $SECONDS s."
printf '== the machine ran for %s s\n' "$SECONDS"
verdict=$(tr -d '\r\n' <"$scratch/verdict")
[ -n "$verdict" ] || die "the machine ended without a verdict."
exit "$verdict"
