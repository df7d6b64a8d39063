"""Which files an OGB data set has on disk, told from ogb's own table of its data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from graphformer.data._quiet_ogb import ogb_module
from graphformer.data.task import Level

PROCESSED = "processed/geometric_data_processed.pt"
_LEVELS: dict[str, Level] = {"ogbg": "graph", "ogbn": "node", "ogbl": "link"}
PARTS = ("train", "valid", "test")
_OTHER_NAMES = {"raw/node_species.csv.gz": "raw/species.csv.gz"}  # ogb renames it when it reads it
_MAG_RELATIONS = (
    "author___affiliated_with___institution",
    "author___writes___paper",
    "paper___cites___paper",
    "paper___has_topic___field_of_study",
)
_MAG = (
    "num-node-dict",
    "triplet-type-list",
    "nodetype-has-label",
    "node-feat/paper/node-feat",
    "node-feat/paper/node_year",
    "node-label/paper/node-label",
    *(f"relations/{relation}/{part}" for relation in _MAG_RELATIONS for part in ("edge", "num-edge-list")),
)


@dataclass(frozen=True)
class Layout:
    """The files of a data set, as paths within its folder.

    Attributes:
        name: Such as "ogbn-arxiv".
        level: What is labelled.
        files: Release note, raw tables and whatever else is read.
        split_files: The tables of the split.
        split_dict: The file that ogb reads instead of these where it is there.
    """

    name: str
    level: Level
    files: tuple[str, ...]
    split_files: tuple[str, ...]
    split_dict: str

    @property
    def package(self) -> ModuleType:
        """Ogb's package for data sets of this level."""
        return ogb_module(f"ogb.{self.level}proppred")

    def folder(self, root: Path) -> Path:
        """The folder that ogb will use: older releases put ``_pyg`` behind the name."""
        folder = root / self.name.replace("-", "_")
        older = root / f"{folder.name}_pyg"
        return older if older.exists() else folder

    def missing(self, folder: Path) -> list[str]:
        """The files that are not there."""
        # ogb downloads where a raw file is missing, even if the processed graphs are there.
        needed = self.files if (folder / self.split_dict).exists() else self.files + self.split_files
        return [
            file
            for file in needed
            if not (folder / file).exists() and not (folder / _OTHER_NAMES.get(file, file)).exists()
        ]


def layout(name: str) -> Layout:
    """The files of the data set `name`.

    Example:
        >>> layout("ogbl-ddi").split_files
        ('split/target/train.pt', 'split/target/valid.pt', 'split/target/test.pt')
    """
    level = _LEVELS[name[:4]]
    row = _master(level, name)
    split = f"split/{row['split']}"
    files = [f"RELEASE_v{row['version']}.txt", *(f"raw/{table}.csv.gz" for table in _raw_tables(name, level, row))]
    if name == "ogbg-code2":
        files += ["mapping/typeidx2type.csv.gz", "mapping/attridx2attr.csv.gz"]
    if name == "ogbn-mag":
        split_files = [f"{split}/nodetype-has-split.csv.gz", *(f"{split}/paper/{part}.csv.gz" for part in PARTS)]
    else:
        split_files = [f"{split}/{part}.{'pt' if level == 'link' else 'csv.gz'}" for part in PARTS]
    return Layout(name, level, tuple(files), tuple(split_files), f"{split}/split_dict.pt")


def _master(level: Level, name: str) -> dict[str, str]:
    package = ogb_module(f"ogb.{level}proppred")
    import pandas

    path = Path(str(package.__file__)).with_name("master.csv")
    return pandas.read_csv(path, index_col=0, keep_default_na=False, dtype=str)[name].to_dict()


def _raw_tables(name: str, level: Level, row: dict[str, str]) -> list[str]:
    if name == "ogbn-mag":
        return list(_MAG)
    tables = ["edge", "num-node-list", "num-edge-list"]
    for kind in ("node", "edge"):
        more = row[f"additional {kind} files"]
        tables += [f"{kind}-feat"] if row[f"has_{kind}_attr"] == "True" else []
        tables += more.split(",") if more != "None" else []
    return tables if level == "link" else [*tables, f"{level}-label"]
