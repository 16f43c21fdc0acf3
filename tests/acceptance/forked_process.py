"""
Processes that are forked from one that has imported the whole program.

Importing takes most of the time of a short command. A forked process has its own pid, streams, environment and
working directory, and ends and is killed as any other; only its imports are done. What happens while the program
starts is tested with processes that start it from nothing.

This module is also the program that forks.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).parents[2]
_MOST_BYTES_OF_A_REQUEST = 1 << 20


class ForkedProcess:
    """
    A process that calls a function without arguments; it may be ended by a signal.

    Attributes:
        stdin: Given `PIPE`, as of `subprocess`; otherwise None.
        stdout: Likewise.
        stderr: Likewise.
        returncode: None until the process was waited for.
    """

    def __init__(
        self,
        function: str,
        arguments: Sequence[str],
        environ: dict[str, str],
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
    ) -> None:
        """
        Fork a process in the working directory.

        Args:
            function: As `module:name`, of a module whose imports are done beforehand.
            arguments: What follows the name of the program in `sys.argv`.
        """
        own: list[IO[str] | None] = []
        theirs: list[int] = []
        for number, stream in enumerate((stdin, stdout, stderr)):
            if stream == subprocess.PIPE:
                reader, writer = os.pipe()
                own.append(open(writer, "w") if number == 0 else open(reader))  # noqa: SIM115
                theirs.append(reader if number == 0 else writer)
            else:
                own.append(None)
                is_null = stream == subprocess.DEVNULL
                theirs.append(os.open(os.devnull, os.O_RDWR) if is_null else os.dup(_number(stream)))
        self.stdin, self.stdout, self.stderr = own
        reader, writer = os.pipe()
        request = {"function": function, "arguments": arguments, "environ": environ, "cwd": os.getcwd()}
        socket.send_fds(_forking_process(), [json.dumps(request).encode()], [*theirs, writer])
        for descriptor in (*theirs, writer):
            os.close(descriptor)
        self._reports = open(reader)  # noqa: SIM115
        self.pid = int(self._reports.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or the negative number of the signal, or None while the process runs."""
        if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end of the process, and return as `poll`; TimeoutError if it takes longer."""
        if self.returncode is None:
            if not select.select([self._reports], [], [], timeout_s)[0]:
                raise TimeoutError(f"process {self.pid} did not end within {timeout_s} s")
            self.returncode = int(self._reports.readline())
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Return what comes from stdout and stderr until they end, one after the other, and wait for the process."""
        texts = ["" if stream is None else stream.read() for stream in (self.stdout, self.stderr)]
        self.wait()
        return texts[0], texts[1]

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has ended."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()
        self._reports.close()


def _number(stream: int | IO[Any]) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


@functools.cache
def _forking_process() -> socket.socket:
    """Start the process that forks, which ends with this one, and return the socket for requests."""
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES_OF_A_REQUEST)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.forked_process", str(theirs.fileno())],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    @atexit.register
    def end() -> None:
        """End the process; it ends too if this one is killed, which closes the socket."""
        own.close()
        process.wait()

    return own


# What follows runs in the other process.


def _main(requests: socket.socket) -> None:
    import runner.cli

    for module in pkgutil.iter_modules(runner.cli.__path__, "runner.cli."):
        importlib.import_module(module.name)
    for name in ("api.run", "report.page", "results.failed_manifest", "simulator.server"):
        importlib.import_module(f"runner.{name}")
    for name in ("crash_harness", "simulator_process"):
        importlib.import_module(f"tests.acceptance.{name}")
    children: set[int] = set()
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _MOST_BYTES_OF_A_REQUEST, 4)
        children -= {child for child in children if os.waitpid(child, os.WNOHANG)[0]}
        if not request:
            return
        child = os.fork()
        children.add(child)
        if child == 0:
            _report(requests, json.loads(request), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _report(requests: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """Fork the process, wait for its end, and write its pid and its exit code to the last of the descriptors."""
    requests.close()
    *streams, reports = descriptors
    child = os.fork()
    if child:
        for descriptor in streams:
            os.close(descriptor)
        os.write(reports, b"%d\n" % child)
        os.write(reports, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(reports)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["cwd"])
    module, name = request["function"].split(":")
    sys.argv = [module, *request["arguments"]]
    getattr(importlib.import_module(module), name)()


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
