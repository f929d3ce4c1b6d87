"""Runs programs at once, in forks of a process that has imported everything already.

    python tests/forking.py SOCKET

serves. What ``client`` gives is a program that runs another, ``seeking`` or a Python file, with its own folder,
environment and standard streams, and ends with its exit code; once, or as several processes of one job as torchrun
does:

    client [--processes N] seeking|FILE ARGUMENTS...
"""

import contextlib
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MODULES = ("datasets", "sklearn.datasets", "timm.optim", "torch._dynamo", "torchvision")
MODULES += ("seeking.cli", "seeking.run_commands", "seeking.model_commands", "seeking.report.plots")
"""What programs import."""

CLIENT = """#!{python} -SE
import json, os, socket, sys

given, environments = sys.argv[1:], [dict(os.environ)]
if given[0] == "--processes":
    count, given = given[1], given[2:]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job = {{"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}}
    job.update(WORLD_SIZE=count, LOCAL_WORLD_SIZE=count)
    environments = [{{**os.environ, **job, "RANK": str(n), "LOCAL_RANK": str(n)}} for n in range(int(count))]
servers = []
for environment in environments:
    server = socket.socket(socket.AF_UNIX)
    server.connect({address!r})
    request = json.dumps([given, os.getcwd(), environment]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    servers.append(server)
sys.exit(max((server.recv(1) or b"F")[0] for server in servers))
"""


@contextlib.contextmanager
def client(folder: Path) -> Iterator[str]:
    """Serve, and give the path of the client."""
    address, program = folder / "socket", folder / "client"
    program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)])
    try:
        while not address.exists():
            assert server.poll() is None, "the server has ended"
            time.sleep(0.01)
        yield str(program)
    finally:
        server.terminate()
        server.wait()


def serve(address: Path) -> None:
    """Fork for every request."""
    for module in MODULES:
        importlib.import_module(module)
    listener = socket.socket(socket.AF_UNIX)
    unready = address.with_name("unready")
    listener.bind(str(unready))
    listener.listen(8)
    unready.rename(address)
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
        run(*arguments)
    _, status = os.waitpid(child, 0)
    connection.sendall(bytes([os.waitstatus_to_exitcode(status) & 255]))
    os._exit(0)


def run(program: str, *arguments: str) -> None:
    """Be the program."""
    code: object = 1
    try:
        if "NO_CURVES" in os.environ:  # They take longer than a run of a few steps.
            from seeking.report import plots

            plots.draw = lambda *given: None
        if program == "seeking":
            import seeking.cli

            code = seeking.cli.main(arguments)
        else:
            sys.argv = [program, *arguments]
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
            code = 0
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else bool(code))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
