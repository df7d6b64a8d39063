"""Ten molecules with a label each."""

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN(C)C", "C1CCCCC1", "CCCl", "OCCO", "CC#N", "c1ccncc1O", "CCCCCCC"]
LABELS = [-0.3, 2.1, -0.2, 0.3, 3.4, 1.4, -1.4, -0.3, 0.6, 4.7]
