"""The systems whose saved models can be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ptmt_lightning.models.networks.cls import CLSNetwork
from ptmt_lightning.models.networks.frozen import FrozenNetwork
from ptmt_lightning.models.networks.gacaps import GACapsNetwork
from ptmt_lightning.models.networks.hbgl import HBGLNetwork
from ptmt_lightning.models.networks.hpt import HPTNetwork
from ptmt_lightning.models.saved.encoder import SavedEncoder
from ptmt_lightning.models.saved.ptmt import SavedPTMT
from ptmt_lightning.models.saved.system import SavedSystem
from ptmt_lightning.taxonomy import Taxonomy

# By name, what reads the settings in ``<name>.json``. One more with an encoder and a head takes a line here, and a
# class of layers that its training class derives from.
SYSTEMS: dict[str, Callable[[Mapping[str, Any], Taxonomy], SavedSystem]] = {
    "ptmt": SavedPTMT.read,
    "bert": partial(SavedEncoder.read, CLSNetwork),
    "bert_ml": partial(SavedEncoder.read, CLSNetwork),
    "frozen": partial(SavedEncoder.read, FrozenNetwork),
    "gacaps": partial(SavedEncoder.read, GACapsNetwork),
    "hbgl": partial(SavedEncoder.read, HBGLNetwork),
    "hpt": partial(SavedEncoder.read, HPTNetwork),
}
