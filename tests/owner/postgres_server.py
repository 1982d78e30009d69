"""A PostgreSQL server of the tests' own, with a standby and a pooler if a test wants them.

It listens on a socket in a folder of its own. Its binaries are looked for where distributions keep
them.
"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg


def binaries() -> Path | None:
    """Find the folder of initdb; None if no server is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))  # Debian: not on the PATH
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve())
    return found[0].parent if found else None


class Server:
    """A server in a folder, or a standby that follows another one."""

    def __init__(self, programs: Path, folder: Path, follows: "Server | None" = None) -> None:
        self.programs = programs
        self.folder = folder
        self.user = None
        if os.geteuid() == 0:  # which the server refuses
            self.user = "nobody"
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, -1)
        self.process: subprocess.Popen[bytes] | None = None
        self.databases = 0
        if follows is None:
            self.run("initdb", "-D", "data", "-U", "owner", "-A", "trust", "-E", "UTF8").wait()
        else:
            source = f"host={follows.folder} user=owner application_name={folder.name}"
            self.run("pg_basebackup", "-D", "data", "-R", "-c", "fast", "-d", source).wait()

    def run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        program = self.programs / name
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(program if program.exists() else name), *arguments],
                user=self.user,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def start(self, *settings: str) -> None:
        given = ("listen_addresses=", f"unix_socket_directories={self.folder}", *settings)
        options = (part for setting in given for part in ("-c", setting))
        self.process = self.run("postgres", "-D", "data", *options)
        self.wait_for(self.url("postgres"))

    def wait_for(self, url: str) -> None:
        for _ in range(600):
            try:
                with psycopg.connect(url) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; SIGINT is a fast shutdown: clients are cut off. SIGQUIT is a crash."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()
        self.process = None

    def promote(self) -> None:
        """Make a standby the primary server."""
        self.run("pg_ctl", "promote", "-w", "-D", "data").wait()

    def url(self, database: str, user: str = "owner") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        self.databases += 1
        name = f"keys{self.databases}"
        self.tell(f"CREATE DATABASE {name}")
        return self.url(name)

    def tell(self, *statements: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


class Pooler:
    """pgbouncer before a server, in transaction mode."""

    def __init__(self, program: str, folder: Path, server: Server, connections: int) -> None:
        self.folder = folder
        os.chown(folder, folder.stat().st_uid, -1)
        (folder / "users").write_text('"owner" ""\n')
        (folder / "ini").write_text(f"""
            [databases]
            * = host={server.folder} user=owner
            [pgbouncer]
            pool_mode = transaction
            listen_addr =
            unix_socket_dir = {folder}
            listen_port = 6432
            auth_type = any
            auth_file = {folder}/users
            default_pool_size = {connections}
            max_client_conn = 500
            server_login_retry = 1
            query_wait_timeout = 5
            logfile = {folder}/log
        """)
        if server.user:
            for path in (folder, *folder.iterdir()):
                os.chown(path, pwd.getpwnam(server.user).pw_uid, -1)
        self.process = subprocess.Popen(
            [program, "-q", str(folder / "ini")], user=server.user, cwd=folder
        )
        server.wait_for(self.url("postgres"))

    def url(self, database: str) -> str:
        return f"postgresql://owner@:6432/{database}?host={self.folder}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
