"""The command ``ptmt serve``, which answers HTTP requests with a trained model."""

from __future__ import annotations

import argparse

from ptmt_lightning.commands.arguments import add_model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt serve`` to its parser."""
    add_model_arguments(parser)
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: whoever can reach this machine (default: itself)")
    parser.add_argument(
        "--max-pending", type=int, default=64, help="requests waiting, before 503 (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a request may wait (default: %(default)s)")
    parser.add_argument(
        "--max-connections", type=int, default=512, help="half of them from one address (default: %(default)s)"
    )
    parser.add_argument(
        "--allowed-hosts", nargs="+", metavar="HOST", default=[],
        help="names that clients use for this server (default: those of this machine itself and --host; any where "
        "--host is 0.0.0.0 or ::)",
    )  # fmt: skip
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    try:
        from ptmt_lightning.serving.server import serve
    except ImportError as error:
        raise ValueError(f"{error}; install it with pip install 'ptmt_lightning[serve]'") from error
    serve(
        options.model, host=options.host, port=options.port, device=options.device, precision=options.precision,
        batch_size=options.batch_size, max_pending=options.max_pending, timeout=options.timeout, trust=options.trust,
        max_connections=options.max_connections, allowed_hosts=options.allowed_hosts,
    )  # fmt: skip
