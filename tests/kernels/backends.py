"""The backends that tests of the contract go through."""

from __future__ import annotations

import os

import torch

# With its interpreter on, Triton takes tensors on the CPU, slowly, and on a CUDA device no other backend of ours does:
# tests/kernels/test_triton_processes.py runs these tests so, in processes of their own.
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device(os.environ.get("GRAPHFORMER_TEST_DEVICE", "cpu"))
BACKENDS = ["triton"] if IS_INTERPRETED or DEVICE.type == "cuda" else ["reference", "native"]
