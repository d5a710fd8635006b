"""Names of models on a hub, with or without a revision, and whether the hub can be reached."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

_SECONDS = 5  # to wait for the hub's first answer


class HubSource(NamedTuple):
    """Where the files of a model are looked for: the arguments that libraries of hubs take."""

    name: str  # of the repository, or a local folder
    revision: str | None
    local_files_only: bool  # the hub can't be reached: only what was downloaded before
    problem: str | None  # why it can't be reached

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained`` and ``snapshot_download``."""
        return {"revision": self.revision, "local_files_only": self.local_files_only}

    def commit(self) -> str | None:
        """Return the commit of the hub that the revision stood for when it was downloaded; None of a local folder."""
        if Path(self.name).exists():
            return None
        from huggingface_hub import constants, try_to_load_from_cache

        found = try_to_load_from_cache(self.name, "config.json", constants.HF_HUB_CACHE, self.revision)
        return Path(found).parent.name if isinstance(found, str) else None

    def file(self, name: str, *, commit: str | None) -> Path | None:
        """Return the path of one of the model's files, downloaded if it is on a hub; None if it has no such file.

        Args:
            name: of the file.
            commit: of the hub, from which the model's other files are.
        """
        if Path(self.name).exists():
            path = Path(self.name, name)
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            revision = commit or self.revision
            return Path(hf_hub_download(self.name, name, revision=revision, local_files_only=self.local_files_only))
        except EntryNotFoundError:
            return None

    def tell(self) -> None:
        """Log that the model was found among what was downloaded before, as the hub can't be reached."""
        if self.problem:
            log.warning(
                "%s is taken as it was downloaded before: no connection to the hub (%s)", self.name, self.problem
            )

    @property
    def hint(self) -> str:
        """End of the message that there is no such model; empty if the hub was asked."""
        return f"; the hub can't be reached ({self.problem}), and it was not downloaded before" if self.problem else ""


def hub_source(name: str) -> HubSource:
    """Return where the model ``name`` is, a local folder, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` of a hub.

    The hub is asked once and shortly whether it answers; libraries would repeat each of their requests for a minute.
    """
    is_path = name.startswith((".", "~", "/")) or name.count("/") > 1  # of a folder, which may be missing
    if is_path or Path(name).exists():
        return HubSource(str(Path(name).expanduser()), None, local_files_only=False, problem=None)
    repository, _, revision = name.partition("@")
    from huggingface_hub import constants, get_session  # imported only here, as local folders do not need it
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    problem = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None
    if problem is None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=_SECONDS).status_code
            problem = f"{constants.ENDPOINT}: status {status}" if status >= 500 else None  # of a proxy before it, too
        except (HTTPError, OfflineModeIsEnabled, OSError) as error:
            problem = f"{constants.ENDPOINT}: {' '.join(str(error).split()) or type(error).__name__}"
    return HubSource(repository, revision or None, local_files_only=problem is not None, problem=problem)
