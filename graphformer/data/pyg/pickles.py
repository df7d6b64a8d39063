"""Read the pickles of published data sets without running anything that they name.

A pickle is a program that names functions and calls them. Here nothing of numpy, scipy or torch is within its reach:
the few names that arrays, sparse matrices and tensors are made of stand for plain records, and any other is refused.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor


def read_pickle(path: Path) -> Any:
    """What a pickle holds, with arrays, sparse matrices and tensors as records that are read when asked for.

    Args:
        path: The file, written by Python 2 or 3 in a protocol up to 4.

    Returns:
        Numbers, texts, lists, dicts, and :class:`StoredArray`, :class:`StoredMatrix` and :class:`StoredTensor`.

    Raises:
        pickle.UnpicklingError: The file asks for anything else. A file that is no pickle raises what pickle does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.pickle")
        ...     _ = path.write_bytes(pickle.dumps([np.arange(3), torch.ones(2)], protocol=4))
        ...     array, tensor = read_pickle(path)
        >>> array.array(), tensor.tensor()
        (array([0, 1, 2]), tensor([1., 1.]))
    """
    with path.open("rb") as file:
        return _Reader(file, encoding="latin1").load()


class StoredArray:
    """A numpy array as its pickle has it: shape, number type, order and bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.shape, self.dtype, self.is_fortran, self.data = state[1:]

    def array(self) -> np.ndarray:
        """The array itself; of numbers, never of objects.

        Raises:
            ValueError: The bytes are not those of that many numbers.
        """
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        numbers = np.frombuffer(data, self.dtype.dtype())
        return numbers.reshape(self.shape, order="F" if self.is_fortran else "C").copy()


class StoredMatrix:
    """A CSR matrix of scipy as its pickle has it: `data`, `indices`, `indptr` and the shape."""

    def array(self) -> np.ndarray:
        """The matrix, dense.

        Raises:
            ValueError: Its parts do not fit each other.
        """
        parts = vars(self)
        entries = tuple(parts[name].array() for name in ("data", "indices", "indptr"))
        matrix = scipy.sparse.csr_matrix(entries, shape=parts["_shape"])
        matrix.check_format(full_check=True)
        return matrix.toarray()


class StoredTensor:
    """A torch tensor as its pickle has it: the bytes of its storage, its place in there, its shape and strides."""

    def __init__(self, storage: bytes, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def tensor(self) -> Tensor:
        """The tensor itself, on the CPU.

        Raises:
            RuntimeError: It reaches beyond its storage, or has a negative size.
        """
        storage = torch.load(io.BytesIO(self.storage), map_location="cpu", weights_only=True)
        numbers = torch.empty(0, dtype=storage.dtype).set_(storage)
        return numbers.as_strided(tuple(self.size), tuple(self.stride), self.offset)


class _NumberType:
    """A numpy dtype as its pickle has it: a code such as "f4" and a byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        kind = np.dtype(self.code).newbyteorder(self.order)
        if kind.kind not in "biuf":
            raise ValueError(f"an array of {kind} holds no numbers")
        return kind


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _stand_ins().get(f"{module.replace('_core', 'core')}.{name}", self)
        if known is self:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data need")
        return known


def _stand_ins() -> dict[str, Any]:
    """What each name stands for, made anew each time: a pickle can also write to what it was given."""

    def array(*_: Any) -> StoredArray:
        return StoredArray()

    def scalar(dtype: _NumberType, data: bytes) -> StoredArray:
        stored = StoredArray()
        stored.__setstate__((1, (), dtype, False, data))
        return stored

    class Matrix(StoredMatrix):
        pass

    return {
        "numpy.ndarray": None,
        "numpy.dtype": lambda *how: _NumberType(*how),
        "numpy.core.multiarray._reconstruct": array,
        "numpy.core.multiarray.scalar": scalar,
        "scipy.sparse.csr.csr_matrix": Matrix,
        "scipy.sparse._csr.csr_matrix": Matrix,
        "torch._utils._rebuild_tensor_v2": lambda *how: StoredTensor(*how),
        "torch.storage._load_from_bytes": lambda data: data,
        "collections.OrderedDict": OrderedDict,  # a tensor's hooks, always empty
        "collections.defaultdict": lambda *_: {},
        "__builtin__.list": list,
        "builtins.list": list,
        "_codecs.encode": lambda text, _: text.encode("latin1"),  # how protocol 2 writes bytes
        "__builtin__.bytes": lambda: b"",  # the same, none
    }
