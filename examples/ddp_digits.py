"""Train a small classifier of handwritten digits with DistributedDataParallel.

Plain PyTorch: everything about the job comes from the environment that an elastic launcher
sets (RANK, WORLD_SIZE, MASTER_ADDR, ...). The script may be killed at any moment and started
again, with more or fewer processes: it goes on from the checkpoint.

    torchrun --nproc-per-node 2 examples/ddp_digits.py --checkpoint /tmp/digits.pt
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64, help="samples a step, all ranks")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--checkpoint", type=Path, help="on storage that every rank can read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step-delay", type=float, default=0.0, help="seconds to sleep a step")
    return parser.parse_args()


def say(message: str) -> None:
    """Print one line in one write: the lines of ranks that share a terminal stay whole."""
    print(f"{message}\n", end="", flush=True)


def load_data() -> tuple[TensorDataset, TensorDataset]:
    pixels, labels = load_digits(return_X_y=True)
    # The split has a seed of its own: a test sample must stay one across restarts and --seed.
    split = train_test_split(pixels / 16.0, labels, test_size=0.2, random_state=0, stratify=labels)
    train_x, test_x, train_y, test_y = map(torch.as_tensor, split)
    return TensorDataset(train_x.float(), train_y), TensorDataset(test_x.float(), test_y)


def save_checkpoint(path: Path, state: dict) -> None:
    """Replace the checkpoint in one step: whoever is killed here leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state


def require_same_start(epoch: int) -> None:
    """Fail clearly where the ranks do not see the same checkpoint (a path that is not shared)."""
    bounds = torch.tensor([epoch, -epoch])
    dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
    last, first = bounds[0].item(), -bounds[1].item()
    if first != last:
        raise RuntimeError(f"the ranks would start from different epochs, {first} to {last}")


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader,
    step_delay: float,
) -> float:
    """Returns the mean loss over this rank's samples."""
    model.train()
    total = samples = 0.0
    for images, labels in loader:
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        samples += len(labels)
        time.sleep(step_delay)
    return total / samples


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """Of the whole set, on one rank.

    Not shared out: gloo's threads outlive destroy_process_group, and one that still lets go of a tensor of a collective
    made just before the end aborts the process.
    """
    model.eval()
    images, labels = data.tensors
    correct: Tensor = (model(images).argmax(dim=1) == labels).sum()
    return correct.item() / len(data)


@record
def main() -> None:
    args = parse_args()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    say(f"rank {rank} of {world_size}, restart {restart}")

    torch.set_num_threads(1)  # ranks share the cores of a machine
    torch.manual_seed(args.seed)
    dist.init_process_group("gloo")

    train_data, test_data = load_data()
    sampler = DistributedSampler(train_data, seed=args.seed)
    # The batch of a step is shared out, so that the world size does not change the training.
    loader = DataLoader(train_data, max(1, args.batch_size // world_size), sampler=sampler)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=args.lr)

    epoch = step = 0
    if args.checkpoint and args.checkpoint.exists():
        state = load_checkpoint(args.checkpoint, network, optimizer)
        epoch, step = state["epoch"], state["step"]
    # Also a barrier: nobody trains, so nobody writes, before every rank has read.
    require_same_start(epoch)
    if rank == 0 and epoch:
        say(f"resumed from epoch {epoch}")

    model = DistributedDataParallel(network)
    while epoch < args.epochs:
        sampler.set_epoch(epoch)
        loss = train_epoch(model, optimizer, loader, args.step_delay)
        epoch, step = epoch + 1, step + len(loader)
        if rank == 0:
            if args.checkpoint:
                state = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
                save_checkpoint(args.checkpoint, state | {"epoch": epoch, "step": step})
            say(f"epoch {epoch}/{args.epochs} step {step} loss {loss:.4f}")

    if rank == 0:
        say(f"test accuracy {accuracy(network, test_data):.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
