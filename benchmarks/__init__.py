"""How fast graphformer is beside its peers: ``python -m benchmarks``. Not part of the installed package."""
