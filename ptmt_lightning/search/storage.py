"""The storage in which Optuna keeps studies, an SQL database."""

from __future__ import annotations

import itertools
import time

from optuna.storages import RDBStorage
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from ptmt_lightning.utils.secrets import mask

PRUNED = "pruned_after_epoch"  # name of a trial's attribute
HEARTBEAT_SECONDS = 60  # time between a running trial's signs of life


def open_storage(url: str) -> RDBStorage:
    """Open the storage of studies at a URL of SQLAlchemy; a new database gets its tables.

    Raises:
        ValueError: the storage can't be opened.
    """
    wait = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}  # seconds to wait for a lock
    for attempt in itertools.count(1):
        try:
            return RDBStorage(
                url,
                engine_kwargs=wait,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=5 * HEARTBEAT_SECONDS,
            )
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if attempt == 4:
                raise _unusable(url, error) from error
            time.sleep(1)  # another machine may be making the tables of a new database
        except (ImportError, SQLAlchemyError) as error:
            raise _unusable(url, error) from error
    raise AssertionError


def _unusable(url: str, error: Exception) -> ValueError:
    return ValueError(
        f"hydra.sweeper.storage={mask(url)}: {mask(str(error)).splitlines()[0]}; expected a URL of SQLAlchemy, as "
        "postgresql://USER@HOST/DATABASE, with the package that it needs installed"
    )
