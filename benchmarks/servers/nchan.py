"""nginx with the nchan module, where both are installed: one worker, configured in a temporary folder, our child."""

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks import machine
from benchmarks.load import Clients, Publishers
from benchmarks.servers.candidate import PLAIN_BODY, Candidate, folder, start
from hub.children import Launch
from hub.supervisor import free_port

NAME = "nginx + nchan"
MODULES = ("usr/lib/nginx/modules", "usr/lib64/nginx/modules", "usr/local/nginx/modules", "etc/nginx/modules")

# Buffered messages are nchan's default; new clients begin with the next message, as the other candidates do.
_CONFIG = """\
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
# Beyond fifteen sixteenths nginx begins to close connections; the limit of open files comes first.
events {{ worker_connections {slots}; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 512m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = / {{ return 200; }}
        location = /pub {{ nchan_publisher; nchan_channel_id bench; }}
        location = /sub {{
            nchan_subscriber websocket eventsource;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


def find() -> tuple[Path, Path] | None:
    """The program and the module, or None where one of them is missing."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    modules = [Path("/") / place / "ngx_nchan_module.so" for place in MODULES]
    module = next((path for path in modules if path.exists()), None)
    return (Path(nginx), module) if nginx and module else None


async def nchan(stack: AsyncExitStack) -> Candidate | None:
    """A running nginx with nchan, or None where it is not installed."""
    found = find()
    if found is None:
        return None
    nginx, module = found
    home, port = folder(stack), free_port()
    home.chmod(0o755)  # started by root, nginx works as somebody else
    config = home / "nginx.conf"
    files = machine.most_connections() + machine.SPARE_FILES
    config.write_text(_CONFIG.format(module=module, folder=home, port=port, files=files, slots=files * 2))
    command = (str(nginx), "-c", str(config), "-p", str(home), "-e", str(home / "error.log"))
    pid = await start(stack, Launch(command), home, "nginx", port)
    return Candidate(
        NAME,
        {NAME: machine.family(pid)},
        Clients(port, "/sub"),
        Clients(port, "/sub", is_sse=True),
        Publishers([PLAIN_BODY], "/pub"),
    )
