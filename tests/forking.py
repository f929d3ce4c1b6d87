"""Runs ``seeking`` at once, in forks of a process that has imported everything already.

    python tests/forking.py SOCKET

serves; ``python -S -E CLIENT SOCKET COMMAND...`` (``client`` gives the program) runs one command, with the client's
folder, environment and standard streams, and ends with its exit code.
"""

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CLIENT = """#!{python} -SE
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    answer = server.recv(1)
sys.exit(answer[0] if answer else 70)
"""


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve, and give the address."""
    address = str(folder / "socket")
    program = subprocess.Popen([sys.executable, __file__, address])
    try:
        while not Path(address).exists():
            assert program.poll() is None, "the server has ended"
            time.sleep(0.01)
        yield address
    finally:
        program.terminate()
        program.wait()


def client(address: str) -> str:
    """A program that is ``seeking``."""
    return CLIENT.format(python=sys.executable, address=address)


def serve(address: str) -> None:
    """Fork for every request."""
    for module in ("datasets", "matplotlib.pyplot", "timm.optim", "torchvision", "seeking.cli", "seeking.report.plots"):
        importlib.import_module(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(8)
    Path(address + ".new").rename(address)
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            answer(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def answer(connection: socket.socket) -> None:
    """Run what is asked for in a process of its own, and say how it ended."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += connection.recv(1 << 20)
    arguments, folder, environment = json.loads(request)
    child = os.fork()
    if not child:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.closerange(3, max(streams) + 1)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        run(arguments)
    _, status = os.waitpid(child, 0)
    connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 255]))
    os._exit(0)


def run(arguments: Sequence[str]) -> None:
    """Be the program."""
    code: object = 70
    try:
        import seeking.cli

        importlib.reload(seeking.cli)  # It looks at the environment as it is imported.
        code = seeking.cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else bool(code))


if __name__ == "__main__":
    serve(sys.argv[1])
