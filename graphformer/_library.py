"""The compiled library: graph building and the `native` backend, reached by plain pointers.

It knows neither Python nor torch, so that one build serves every version of both.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from torch._C._functorch import is_functorch_wrapped_tensor

from graphformer._checks import refuse
from graphformer._errors import OutOfMemoryError, UnsupportedError

_OUT_OF_MEMORY = -2  # kOutOfMemory of graphs/csrc/failure.h

# Functions and the types of what they return; a library that lacks one is of another version.
_RETURNS = {
    "gf_instruction_set": ctypes.c_char_p,
    "gf_problem_size": ctypes.c_int64,
    "gf_make_layout": ctypes.c_int32,
    "gf_transpose_layout": ctypes.c_int32,
    "gf_count_tiles": ctypes.c_int64,
    "gf_fill_tiles": None,
    "gf_join_runs": ctypes.c_int64,
    "gf_combine_runs": ctypes.c_int64,
    "gf_count_pairs": None,
    "gf_list_keys": None,
    "gf_forward": ctypes.c_int32,
    "gf_backward": ctypes.c_int32,
}


def _load() -> ctypes.CDLL | None:
    # An editable install keeps sources and compiled files in two folders, both on the package's path.
    for folder in sys.modules[__package__].__path__:
        path = Path(folder) / "_native.so"
        if path.exists():
            try:
                loaded = ctypes.CDLL(str(path))
                for name, kind in _RETURNS.items():
                    getattr(loaded, name).restype = kind
            except (OSError, AttributeError):  # for another processor, or of another version
                continue
            return loaded
    return None


# None where it was not built.
LIBRARY = _load()


def call(function: str, where: str, task: str, *arguments: Any) -> int:
    """What a function of the library returns.

    Raises:
        OutOfMemoryError: It ran out of memory over its task; nothing of what it wrote is of use then.
    """
    found = getattr(LIBRARY, function)(*arguments)
    if found == _OUT_OF_MEMORY:
        remedy = "Take fewer nodes or pairs at a time, or free memory."
        refuse(where, "memory", f"suffice to {task}", "too little", remedy, OutOfMemoryError)
    return found


def instruction_set() -> str | None:
    """The instruction set chosen for this processor: "avx512", "avx2" or "baseline"; None without the library."""
    return None if LIBRARY is None else LIBRARY.gf_instruction_set().decode()


def address(tensor: Any) -> ctypes.c_void_p:
    """Where a contiguous tensor's values lie, as an argument of a function of the library; null for None.

    Raises:
        UnsupportedError: The tensor was made inside one of torch.func's transforms, and has no values of its own.
    """
    if tensor is not None and is_functorch_wrapped_tensor(tensor):
        rule, remedy = "be made of tensors from outside torch.func's transforms", "Make it before the transform."
        refuse("AttentionGraph", "the graph", rule, "one from inside", remedy, UnsupportedError)
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
