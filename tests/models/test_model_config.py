import dataclasses
import subprocess
import sys

import pytest

from graphformer import GraphformerError
from graphformer.models import GraphTransformerConfig


def test_importing_the_config_imports_neither_torch_nor_pyg():
    code = (
        "import sys; from graphformer.models import GraphTransformerConfig; GraphTransformerConfig();"
        "print(sorted({'torch', 'torch_geometric'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_config_is_plain_and_frozen():
    config = GraphTransformerConfig(layers=2)
    assert GraphTransformerConfig(**dataclasses.asdict(config)) == config
    assert all(type(value) in (int, float, str, bool) for value in dataclasses.asdict(config).values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.layers = 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 60}, "channels must be a multiple of heads = 8; got 60"),
        ({"layers": 0}, "layers must be at least 1; got 0"),
        ({"walk_steps": -1}, "walk_steps must not be negative; got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\); got 1.0"),
        ({"norm": "bach"}, "norm must be one of batch, layer; got 'bach'. Did you mean batch?"),
        ({"pooling": "max"}, "pooling must be one of sum, mean; got 'max'"),
    ],
    ids=str,
)
def test_config_refuses_bad_settings(settings, message):
    with pytest.raises(GraphformerError, match=message):
        GraphTransformerConfig(**settings)
