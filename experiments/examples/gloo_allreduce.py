"""An allreduce by PyTorch's gloo back end, timed: `spraylab exec quick -- python3 gloo_allreduce.py --size 1000000`.

It takes its rank, the number of ranks and where they meet from the environment, as under torchrun.
"""

import argparse
import time

import torch
import torch.distributed as dist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of floats")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    count = arguments.size // 4
    for _ in range(arguments.repetitions):
        values = torch.arange(count, dtype=torch.float32) % 7 + rank
        dist.barrier()
        started = time.monotonic()
        dist.all_reduce(values)
        took = torch.tensor([time.monotonic() - started], dtype=torch.float64)
        dist.all_reduce(took, op=dist.ReduceOp.MAX)
        expected = (torch.arange(count, dtype=torch.float32) % 7) * ranks + ranks * (ranks - 1) / 2
        if not torch.equal(values, expected):
            raise SystemExit(f"rank {rank}: the sums are wrong")
        if rank == 0:
            busbw_bps = count * 32 / took.item() * 2 * (ranks - 1) / ranks
            print(
                f"allreduce of {count * 4} bytes over {ranks} ranks: {took.item():.3f} s, "
                f"busbw {busbw_bps / 1e6:.2f} Mb/s",
                flush=True,
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
