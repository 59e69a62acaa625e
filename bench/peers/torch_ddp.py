#!/usr/bin/env python3
"""The training step of torch_training.py in two processes of one thread each: DistributedDataParallel on Gloo.

    python torch_ddp.py --work vit-tiny --dir DIR

The process that is started is rank 0: it starts rank 1, and obeys the same lines as torch_training.py. Each rank takes its
half of the batch; the loss that is told is the mean over both, found outside the measured time, and the memory is the sum
of both processes. Both share the pages of PyTorch's own code, which are counted twice (some 200 MiB).
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from torch_training import MODELS, Training, load, load_batch, peak_rss_mib, say

RANKS = 2
QUIT, STEP = 0, 1


def command(rank: int) -> int:
    """Rank 0 reads what to do next, the others are told by it."""
    code = torch.zeros(1, dtype=torch.int64)
    if rank == 0:
        line = sys.stdin.readline().strip()
        assert line in ("step", "quit", ""), line
        code[0] = STEP if line == "step" else QUIT
    dist.broadcast(code, 0)
    return code.item()


def run(rank: int, work: str, folder: pathlib.Path, rendezvous: str) -> None:
    # The name of a machine may not resolve, and all traffic is local.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS)
    network = load(work, folder)
    mine = tuple(tensor.chunk(RANKS)[rank] for tensor in load_batch(folder))
    training = Training(DistributedDataParallel(network, gradient_as_bucket_view=True), network, mine, "f32")
    dist.barrier()
    if rank == 0:
        say(**training.ready("f32"), ranks=RANKS)
    while command(rank) == STEP:
        done = training.step()
        loss = torch.tensor([done["loss"]], dtype=torch.float64)
        dist.all_reduce(loss)
        if rank == 0:
            say(**{**done, "loss": loss.item() / RANKS})
    memory = torch.tensor([peak_rss_mib()])
    dist.all_reduce(memory)
    if rank == 0:
        say(peak_rss_mib=memory.item())
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=MODELS, required=True)
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--rendezvous", help="the file at which ranks meet; only rank 1 is given one")
    arguments = parser.parse_args()
    if arguments.rendezvous:
        return run(1, arguments.work, arguments.dir, arguments.rendezvous)
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = f"{folder}/rendezvous"
        other = subprocess.Popen([sys.executable, *sys.argv, "--rendezvous", rendezvous], stdin=subprocess.DEVNULL)
        try:
            run(0, arguments.work, arguments.dir, rendezvous)
            sys.exit(other.wait())
        finally:
            other.kill()


if __name__ == "__main__":
    main()
