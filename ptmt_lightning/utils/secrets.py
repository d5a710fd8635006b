"""Secrets in settings and texts: passwords of URLs, and settings that are called a password, token or key."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

_HIDDEN = "***"
# What stands between ``://USER:`` and the last ``@``. A port is no password, and what is masked or a reference stays.
_URL_PASSWORD = re.compile(r"(://[^:/@\s'\"]*):(?!\d+[/?])(?!\*{3}@|\$\{)[^\s'\"]+@")
_URL_TOKEN = re.compile(
    r"(?i)(https?://)(?!\*{3}@|\$\{)[^:/@\s'\"]+@"
)  # http://TOKEN@HOST: there are no plain users there
_PARAMETER = re.compile(
    r"([?&;#](?:(?:ssl)?password|passwd|pwd|token|access_token|auth|api_?key|secret|sig|X-Amz-Signature)=)(?!\*{3}|\$\{)[^&;\s'\"]+",
    re.I,
)
_SECRET_KEY = re.compile(
    r"(^|[_-])(passwords?|passphrase|passwd|pwd|pass|secrets?|token|(api|access|secret|private)[_-]?key|auth|authorization|"
    r"credentials?|cookie)$",
    re.I,
)


def mask(text: str) -> str:
    """Return a text in which ``***`` stands for each password or token of a URL.

    Example:
        >>> mask("no connection to postgresql://ann:pass@host/db")
        'no connection to postgresql://ann:***@host/db'
    """
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", text)
        text = _URL_TOKEN.sub(rf"\1{_HIDDEN}@", text)
        text = _PARAMETER.sub(rf"\1{_HIDDEN}", text)
    return text


def is_secret(key: str, value: object) -> bool:
    """Return whether a setting holds a secret: by its last name, or as a URL with a password."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or str(value).startswith("${"):
        return False
    return bool(str(value) and _SECRET_KEY.search(key.rpartition(".")[2])) or mask(str(value)) != str(value)


def masked(content: Any, key: str = "") -> Any:
    """Return settings, plain types, with ``***`` for each secret.

    Args:
        content: a mapping, a list, or a value.
        key: name of the setting that ``content`` is the value of.
    """
    if isinstance(content, dict):
        return {mask(name) if isinstance(name, str) else name: masked(v, str(name)) for name, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [masked(value, key) for value in content]
    if not is_secret(key, content):
        return content
    return mask(content) if isinstance(content, str) and mask(content) != content else _HIDDEN


def in_environment(key: str, secret: str) -> str:
    """Put a secret into the environment, which child processes inherit, and return a reference to it.

    Command lines, configurations and logs then hold the reference, ``${oc.env:PTMT_SECRET_...}``, which OmegaConf
    resolves where the setting is used.

    Args:
        key: the setting; it names the variable, so that the same command gives the same reference.
        secret: its value.
    """
    name = f"PTMT_SECRET_{re.sub(r'[^A-Z0-9]+', '_', key.upper()).strip('_')}"
    os.environ[name] = secret
    return f"${{oc.env:{name}}}"


def mask_logs() -> None:
    """Mask the messages of all loggers of this process."""
    make = logging.getLogRecordFactory()

    def masking(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        message = record.getMessage()
        if mask(message) != message:
            record.msg, record.args = mask(message), ()
        return record

    if make.__name__ != masking.__name__:  # once a process
        logging.setLogRecordFactory(masking)
