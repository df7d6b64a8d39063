"""PyG's attention layers with the kernel inside: same constructor, same weights, same numbers."""
