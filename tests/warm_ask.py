"""What the file that `warm_python` returns runs: it asks the warm process, and stands for the fork. Imports little."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn


def send(connection: socket.socket, content: Any, *files: int) -> None:
    line = json.dumps(content).encode() + b"\n"
    line = line[socket.send_fds(connection, [line], files) :]
    if line:
        connection.sendall(line)


def receive(connection: socket.socket, num_files: int = 0) -> tuple[Any, list[int]]:
    line, files, _, _ = socket.recv_fds(connection, 1 << 16, num_files)
    while not line.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            raise EOFError
        line += more
    return json.loads(line), files


def ask(address: str) -> NoReturn:
    """Have the warm process run what the command line says, and end with its exit code or by its signal."""
    umask = os.umask(0)
    os.umask(umask)
    words = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = {"words": words, "folder": os.path.realpath("."), "umask": umask, "environment": dict(os.environ)}
        send(connection, request | {"program": sys.argv[0]}, 0, 1, 2)
        pid, _ = receive(connection)
        if pid is None:
            os.execv(sys.executable, [sys.executable, *words])

        def hand_on(number: int, _: object) -> None:
            os.kill(pid, number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, hand_on)
        code, _ = receive(connection)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
