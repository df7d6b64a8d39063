"""OGB's data sets for graphs (ogbg-*), nodes (ogbn-*) and links (ogbl-*), read and measured by ogb itself.

Whatever ogb would ask or fetch is settled before it is called: the files are looked for first, so ogb never asks on
standard input, and it downloads only where the caller said so, into a folder of its own that is moved into place
when it is whole.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphformer.data.task import Task

NAMES = (
    "ogbg-molbace",
    "ogbg-molbbbp",
    "ogbg-molchembl",
    "ogbg-molclintox",
    "ogbg-molesol",
    "ogbg-molfreesolv",
    "ogbg-molhiv",
    "ogbg-mollipo",
    "ogbg-molmuv",
    "ogbg-molpcba",
    "ogbg-molsider",
    "ogbg-moltox21",
    "ogbg-moltoxcast",
    "ogbg-ppa",
    "ogbg-code2",
    "ogbn-arxiv",
    "ogbn-mag",
    "ogbn-products",
    "ogbn-proteins",
    "ogbl-citation2",
    "ogbl-collab",
    "ogbl-ddi",
    "ogbl-ppa",
)


def load_ogb(name: str, root: str | os.PathLike[str], download: bool = False) -> Task:
    """An OGB data set with its official split and evaluator.

    Args:
        name: One of :data:`NAMES`.
        root: Folder that holds (or shall hold) the data set's own folder, ``ogbg_molesol`` for "ogbg-molesol". ogb
            writes a ``processed`` folder into it on the first use.
        download: Fetch the data if they are not there. False (default) raises instead.

    Raises:
        DataError: The files are not there (or not all of them) and `download` is False; the download failed; the
            files cannot be read or contradict each other; the folder cannot be written.
        MissingPackageError: ogb is not installed.
    """
    from graphformer.data.ogb.graph import load_graphs
    from graphformer.data.ogb.layout import layout
    from graphformer.data.ogb.link import load_links
    from graphformer.data.ogb.node import load_nodes
    from graphformer.data.ogb.reading import open_release, readable
    from graphformer.data.ogb.subtokens import load_subtokens

    release = open_release(layout(name), root, download)
    loaders = {"graph": load_graphs, "node": load_nodes, "link": load_links}
    load = load_subtokens if name == "ogbg-code2" else loaders[release.layout.level]
    with readable(release.layout, release.folder):
        return load(release)
