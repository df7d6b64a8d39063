"""The layers in two processes."""

import os
import subprocess
import sys

import pytest
import torch
from drop_in_cases import NAMES, C, D, E, F, N, some_edges

from graphformer import nn as ours
from graphformer.testing import assert_close

pytestmark = pytest.mark.usefixtures("float64")


TWO = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from graphformer import nn as ours
rank, path, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
layers, parts = torch.load(out + "/given.pt", weights_only=False)
found = []
for layer in layers:
    model = DistributedDataParallel(layer)
    x, edge_index, edge_attr = parts[rank]
    for _ in range(2):  # gradients of two steps, with buckets made anew after the first
        model(x, edge_index, edge_attr).square().sum().backward()
    found.append([weight.grad for weight in layer.parameters()])
torch.save(found, f"{out}/found{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    layers = [getattr(ours, name)(C, D, heads=2, edge_dim=F) for name in NAMES]
    parts = [(torch.randn(N, C), some_edges(), torch.randn(E, F)) for _ in range(2)]
    torch.save((layers, parts), tmp_path / "given.pt")
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    arguments = str(tmp_path / "meeting"), str(tmp_path)
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), *arguments], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    found = [torch.load(tmp_path / f"found{rank}.pt") for rank in range(2)]
    x, edge_attr = torch.cat([part[0] for part in parts]), torch.cat([part[2] for part in parts])
    edge_index = torch.cat((parts[0][1], parts[1][1] + N), 1)
    for number, layer in enumerate(layers):
        layer(x, edge_index, edge_attr).square().sum().backward()
        for rank in range(2):
            for weight, grad in zip(layer.parameters(), found[rank][number], strict=True):
                assert_close(grad, weight.grad)  # a mean over two processes, summed over two steps
