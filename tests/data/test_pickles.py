from __future__ import annotations

import os
import pickle
import pickletools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from graphformer.data.pyg.pickles import StoredMatrix, read_pickle


def written(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pickle"


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.arange(6.0).reshape(2, 3).T,  # in Fortran's order
        np.array([1.5, 2.5], dtype=">f4"),
        np.array([True, False]),
        np.zeros((0, 3), dtype=np.uint8),
        np.float32(2.5),
    ],
    ids=["int32", "fortran", "big endian", "bool", "empty", "scalar"],
)
def test_arrays_are_read_as_they_were(path, array, protocol):
    found = read_pickle(written(path, array, protocol)).array()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", [2, 4])
def test_sparse_matrices_are_read_as_they_were(path, protocol):
    matrix = scipy.sparse.random(4, 7, density=0.4, format="csr", dtype=np.float32, random_state=0)
    np.testing.assert_array_equal(read_pickle(written(path, matrix, protocol)).array(), matrix.toarray())


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_read_as_they_were(path, protocol):
    tensors = [torch.arange(12).view(3, 4)[1:].T, torch.rand(2), torch.tensor(3, dtype=torch.uint8), torch.empty(0, 2)]
    for found, tensor in zip(read_pickle(written(path, tensors, protocol)), tensors, strict=True):
        assert found.tensor().dtype == tensor.dtype
        assert torch.equal(found.tensor(), tensor)


def test_dictionaries_of_lists_are_plain(path):
    neighbours = defaultdict(list, {0: [1, 2], 3: []})
    assert read_pickle(written(path, neighbours)) == {0: [1, 2], 3: []}


def test_names_of_old_numpy_and_scipy_are_known(path):
    """As Python 2 wrote Cora: the old places of the classes, and bytes as text."""
    content = pickle.dumps(scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32)), protocol=2)
    old = content.replace(b"cscipy.sparse._csr\n", b"cscipy.sparse.csr\n").replace(b"cnumpy._core.", b"cnumpy.core.")
    names = {name for code, name, _ in pickletools.genops(old) if code.name == "GLOBAL"}
    assert {"scipy.sparse.csr csr_matrix", "numpy.core.multiarray _reconstruct"} <= names
    path.write_bytes(old)
    np.testing.assert_array_equal(read_pickle(path).array(), np.eye(3))
    numbers = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\ntcnumpy\ndtype\n"
    path.write_bytes(numbers + b"(S'u1'\ntRI00\nS'\\x01\\xff\\x03'\ntb.")
    assert read_pickle(path).array().tolist() == [1, 255, 3]


class Evil:
    """A pickle that makes a folder when it is read with trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_what_a_pickle_names_is_not_run(path, tmp_path):
    written(path, [1, Evil(tmp_path / "made")])
    with pytest.raises(pickle.UnpicklingError, match=r"it asks for (posix|nt)\.mkdir, which no data need"):
        read_pickle(path)
    assert not (tmp_path / "made").exists()
    pickle.loads(path.read_bytes())  # the pickle is a dangerous one
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content", [np.load, torch.load, eval, print, scipy.sparse.load_npz], ids=["np", "torch", "eval", "print", "scipy"]
)
def test_other_names_of_the_same_packages_are_refused(path, content):
    with pytest.raises(pickle.UnpicklingError, match=r"it asks for .*, which no data need"):
        read_pickle(written(path, content))


def test_a_tensor_inside_does_not_run_what_its_storage_names(path, tmp_path):
    content = pickle.dumps(torch.arange(3), protocol=4)
    found = read_pickle(written(path, torch.arange(3)))
    assert found.storage in content
    found.storage = pickle.dumps(Evil(tmp_path / "made"), protocol=2)
    with pytest.raises(pickle.UnpicklingError):
        found.tensor()
    assert not (tmp_path / "made").exists()


def test_tensors_and_matrices_stay_within_their_numbers(path):
    found = read_pickle(written(path, torch.arange(6).view(2, 3)))
    found.size = (4, 3)
    with pytest.raises(RuntimeError, match="out of bounds"):
        found.tensor()
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    matrix.indices[1] = 1000
    with pytest.raises(ValueError, match="indices"):
        read_pickle(written(path, matrix)).array()


def test_arrays_of_objects_are_refused(path):
    found = read_pickle(written(path, np.array([1, "a"], dtype=object)))
    with pytest.raises(ValueError, match="an array of object holds no numbers"):
        found.array()


def test_a_pickle_cannot_change_the_reader(path):
    """BUILD with a pair of states sets attributes of what was named, here of the class that stands for a matrix."""
    path.write_bytes(b"cscipy.sparse.csr\ncsr_matrix\n(N}S'array'\nNstb.")
    before = StoredMatrix.array
    assert read_pickle(path).array is None
    assert StoredMatrix.array is before
    assert callable(read_pickle(written(path, scipy.sparse.csr_matrix(np.eye(2)))).array)
