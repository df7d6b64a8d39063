"""``python -m benchmarks gpu``: our kernels on a GPU beside their closest rivals, from one command.

It needs torch, triton and torch-geometric and this source tree, no compiler and no network. What is measured runs in a
process of its own (:mod:`benchmarks.gpu.worker`), so that a kernel that takes the device along ends one row and not
the run.
"""
