"""Every host sends to the same place in another leaf with iperf3, in several streams, and all at once:

spraylab exec quick -- python3 iperf_permutation.py --streams 4 --size 1M
"""

import argparse
import json
import os
import subprocess
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shift", type=int, default=4, help="how many ranks further on: the hosts of a leaf")
    parser.add_argument("--streams", type=int, default=4, help="connections")
    parser.add_argument("--size", default="1M", help="of all streams together, as iperf3 takes it")
    parser.add_argument("--wait", type=float, default=2.0, metavar="S", help="for all servers to have started")
    arguments = parser.parse_args()
    rank, hosts = int(os.environ["RANK"]), os.environ["SPRAYLAB_HOSTS"].split(",")
    server = subprocess.Popen(["iperf3", "--server", "--one-off"], stdout=subprocess.DEVNULL)
    time.sleep(arguments.wait)
    peer = hosts[(rank + arguments.shift) % len(hosts)]
    client = subprocess.run(
        ["iperf3", "--json", "--client", peer, "--parallel", str(arguments.streams), "--bytes", arguments.size],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    answer = json.loads(client.stdout)
    if "error" in answer:
        server.kill()
        sys.exit(f"rank {rank}: {answer['error']}")
    received = answer["end"]["sum_received"]
    print(f"{received['bytes']} bytes in {received['seconds']:.2f} s: {received['bits_per_second'] / 1e6:.2f} Mb/s")
    sys.exit(server.wait())


if __name__ == "__main__":
    main()
