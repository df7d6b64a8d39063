import importlib

import pytest


@pytest.mark.parametrize("package", ["graphformer.nn", "graphformer.models"])
def test_every_public_name_is_there_and_no_other(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
        assert name in dir(module)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        _ = module.Nothing
