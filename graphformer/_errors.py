"""The errors of graphformer: one base, and one child for each thing a user can mend."""


class GraphformerError(Exception):
    """Base of every error that graphformer raises on purpose."""


class InputError(GraphformerError, ValueError):
    """An argument breaks a rule of the call (shape, dtype, device, range, unknown name)."""


class IdError(InputError, IndexError):
    """An id names no row."""


class UnsupportedError(InputError, NotImplementedError):
    """Arguments that are right one by one, and that no path here takes together."""


class OutOfMemoryError(GraphformerError, MemoryError):
    """The compiled library ran out of memory."""


class BackendError(GraphformerError, RuntimeError):
    """The named backend cannot run this case."""


class MissingPackageError(GraphformerError, ImportError):
    """An optional package that this call needs is not installed."""


class DataError(GraphformerError):
    """A data set or a record in it cannot be had or read."""


class RunError(GraphformerError):
    """A training run, its configuration or its checkpoint cannot be used."""
