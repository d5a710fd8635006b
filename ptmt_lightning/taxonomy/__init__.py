"""The taxonomy: a tree or DAG of labels, its files, and the paths through it."""

from ptmt_lightning.taxonomy.edges import ROOT
from ptmt_lightning.taxonomy.taxonomy import Taxonomy

__all__ = ["ROOT", "Taxonomy"]
