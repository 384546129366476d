#!/bin/bash
# Tries spraylab where the kernel forwards: in a virtual machine with Debian's cloud kernel, openvswitch and netem.
#
#   tests/kernel_vm.sh [--keep DIR] [COMMAND...]
#
# Needs root, qemu-system-x86, debootstrap, e2fsprogs and a network, but no KVM: the machine is emulated in software and
# slow, so the rates are low, and of the invariants "machine" may fail. Its root is made by tests/fresh_root.sh, with
# what `./spraylab --setup test` installs, in DIR if it shall be there for the next time; the machine itself has no network.
# COMMAND... instead of the checks below is one command, run in the checkout.
# Exit status 0 if every check succeeded; but for DIR, nothing stays behind.
# shellcheck disable=SC2317,SC2329  # some functions are called by another shell
set -euo pipefail

inside="/root/my work/spraylab/tests/kernel_vm.sh" # where tests/fresh_root.sh copies this to
check_timeout_s=900 command_timeout_s=3000 machine_timeout_s=3600

die() { printf 'kernel_vm: %s\n' "$*" >&2; exit 2; }

# A connection to a port that nobody has is refused after one round trip, and never before.
netem_delays() {
    ip link set lo up
    tc qdisc add dev lo root netem delay 100ms
    tc qdisc show dev lo
    local before=${EPOCHREALTIME/./} took_us
    (: </dev/tcp/127.0.0.1/9) 2>/dev/null || true
    took_us=$((${EPOCHREALTIME/./} - before))
    printf 'a round trip with 100 ms each way took %s ms\n' $((took_us / 1000))
    [ "$took_us" -ge 200000 ]
}

experiment=(quick --set fabric.leaves=2 --set fabric.spines=2 --set fabric.hosts_per_leaf=2
    --set fabric.host_rate=2mbit --set fabric.fabric_rate=2mbit
    --set 'traffic=[{collective: permutation, channels: 2, size: 1MB}]' --set 'seeds=[2, 5]')

# Meanwhile, what the kernel's datapath says of itself in the run's own network namespace.
run_experiment() {
    ./spraylab run --out /root/results "$@" &
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

# ECMP's congestion ratio follows from the hash and the seed alone, on every data plane.
records_are_right() {
    ./spraylab predict --csv /root/predicted.csv "$@" >/dev/null
    .venv/bin/python - <<'PYTHON'
import json
import pandas as pd

fabric = json.load(open("/root/results/manifest.json"))["fabric"]
runs = pd.read_csv("/root/results/runs.csv", keep_default_na=False).set_index("run_id")
print("data plane", fabric["dataplane"], "of Open vSwitch", fabric["openvswitch"], "up after", fabric["setup_s"])
runs["predicted_ratio"] = pd.read_csv("/root/predicted.csv").set_index("run_id").congestion_ratio
columns = ["cct_over_bound", "congestion_ratio", "predicted_ratio", "drops_packets", "cpu_idle_min", "fidelity"]
print(runs[columns].round(3).to_string())
assert fabric["dataplane"] == "ovs-kernel" and set(runs.dataplane) == {"ovs-kernel"}, "another data plane"
assert list(runs.scheme) == 2 * ["ecmp", "spray", "ethereal"], "a run is missing"
assert len(fabric["shaping"]) == 2 * (4 + 4) and all(fabric["shaping"].values()), "a port is not shaped"
exact = runs[runs.scheme != "spray"]
assert (exact.congestion_ratio / exact.predicted_ratio - 1).abs().max() < 0.03, "other paths than predicted"
reasons = [reason for run in runs.fidelity_reasons for reason in run.split("; ") if reason]
assert all(reason.startswith("machine: ") for reason in reasons), reasons
PYTHON
}

# The machine's first process: it runs the checks and leaves its verdict at the second serial port.
if [ "${1-}" = --inside ]; then
    shift
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export HOME=/root LANG=C.UTF-8 TERM=dumb COLUMNS=120
    cd "${inside%/tests/*}"
    ip link set lo up
    printf '== Linux %s is up after %.0f s\n' "$(uname -r)" "$(cut -d ' ' -f 1 /proc/uptime)"

    TIMEFORMAT='== %0R s'
    failed=0 limit_s=$check_timeout_s
    # try WHAT COMMAND...
    try() {
        printf '\n== %s\n' "$1"
        time timeout --kill-after=10 "$limit_s" "${@:2}" </dev/null ||
            { printf '== failed with exit status %s: %s\n' $? "$1"; failed=1; }
    }
    export -f netem_delays run_experiment datapath_forwarded records_are_right
    try 'openvswitch and netem load' modprobe --all openvswitch sch_netem
    if [ $# -gt 0 ]; then
        limit_s=$command_timeout_s
        try "$*" "$@"
    else
        try 'netem delays' unshare --net bash -euc netem_delays
        try 'doctor' ./spraylab doctor
        try 'an experiment' bash -euc 'run_experiment "$@"' bash "${experiment[@]}"
        try "the kernel's datapath forwarded it" bash -euc datapath_forwarded
        try 'what was recorded of it' bash -euc 'records_are_right "$@"' bash "${experiment[@]}"
        try 'the smoke test' ./spraylab test --smoke
    fi

    printf '%s\n' "$failed" >/dev/ttyS1
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
    exit # the kernel panics, which ends the machine as well
fi

keep=
[ "${1-}" != --keep ] || { keep=${2-}; [ -n "$keep" ] || die "--keep needs a directory."; shift 2; }
[ "$(id -u)" -eq 0 ] || die "needs root: chroot, mounts and namespaces."
for program in qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap mke2fs:e2fsprogs; do
    command -v "${program%:*}" >/dev/null || die "needs ${program%:*} (package ${program#*:})."
done

scratch=$(mktemp -d "${TMPDIR:-/tmp}/kernel-vm.XXXXXX")
machine=
trap '[ -z "$machine" ] || { kill "$machine" && wait "$machine"; } 2>/dev/null || :
    rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$scratch/root
[ -z "$keep" ] || root=$(readlink -m "$keep")

"$(dirname "$(readlink -f "$0")")/fresh_root.sh" --keep "$root" bookworm sh -c './spraylab --setup test &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends linux-image-cloud-amd64 >/dev/null'
printf -v command ' %q' "$inside" --inside "$@"
printf '#!/bin/bash\nexec bash%s\n' "$command" >"$root/usr/sbin/init"
chmod 755 "$root/usr/sbin/init"

SECONDS=0
truncate --size 8G "$scratch/disk"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$scratch/disk"
printf '== a disk with it in %s s\n' "$SECONDS"

SECONDS=0
# shellcheck disable=SC2054  # the commas are QEMU's
hardware=(
    -accel tcg,thread=multi -smp 2 -m 3G
    -cpu Nehalem # the oldest that NumPy and PyArrow run on, and the least to emulate
    -nodefaults -no-user-config -display none -no-reboot
    -kernel "$root/vmlinuz" -initrd "$root/initrd.img"
    -append 'root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off'
    -drive "file=$scratch/disk,format=raw,if=virtio,cache=unsafe"
    -device virtio-rng-pci
    -serial stdio -serial "file:$scratch/verdict"
)
# In the background, since bash heeds signals while it waits, and not while something runs before it.
setpriv --pdeathsig KILL -- timeout --kill-after=10 "$machine_timeout_s" \
    setpriv --pdeathsig KILL -- nice -n 19 qemu-system-x86_64 "${hardware[@]}" </dev/null &
machine=$!
status=0
wait "$machine" || status=$?
machine=
printf '== the machine ran for %s s\n' "$SECONDS"
verdict=$(tr -d '\r\n' <"$scratch/verdict" || true)
case $status:$verdict in
    0:[01]) exit "$verdict" ;;
    *) die "the machine ended without a verdict, QEMU with exit status $status." ;;
esac
