"""What `clarion up` keeps alive: Valkey where the settings name no Redis, nodes on one port, generators, senders.

Every process answers on a loopback port of its own as well. There a node is asked whether it is ready, which the shared
port cannot tell of one of several; and nodes fetch the metrics of all the others, so that one address has the machine's.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from hub.children import Launch
from hub.supervisor import Part, free_port, http_ready
from hub.wiring import embedded_redis

if TYPE_CHECKING:
    from hub.config import Settings


def parts_of(config: "Settings", nodes: int, generators: int, senders: int = 1) -> list[Part]:
    """The parts of one machine. Raises `ConfigError` when no port is left for one of them."""
    parts: list[Part] = []
    shared: dict[str, str] = {}
    if config.is_embedded_redis:
        valkey = embedded_redis(config)
        shared["CLARION_REDIS_URL"] = valkey.url
        parts.append(
            Part(
                "valkey",
                valkey.launch,
                ready=valkey.is_ready,
                stage=0,
                output=valkey.log_path,
                explain=valkey.last_words,
            )
        )
    ports = _ports(nodes + generators + senders)
    names = [*_names("node", nodes), *_names("generator", generators), *_names("sender", senders)]
    for number, (name, port) in enumerate(zip(names, ports, strict=True)):
        own = shared | ({"CLARION_PROCESS_NAME": name} if max(nodes, generators, senders) > 1 else {})
        if number < nodes:
            peers = [f"http://127.0.0.1:{one}/metrics?peers=false" for one in ports if one != port]
            own |= {
                "CLARION_HOST": config.host,
                "CLARION_PORT": str(config.port),
                "CLARION_DIRECT_PORT": str(port),
                "CLARION_METRICS_PEERS": " ".join(peers),
            }
            parts.append(Part(name, _launcher("node", own), ready=http_ready("127.0.0.1", port)))
        else:
            own |= {"CLARION_HOST": "127.0.0.1", "CLARION_METRICS_PORT": str(port)}
            command = "generate" if number < nodes + generators else "work"
            parts.append(Part(name, _launcher(command, own)))
    return parts


def _names(kind: str, count: int) -> list[str]:
    return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]


def _ports(count: int) -> list[int]:
    """Free ports, each another."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[free_port()] = None
    return list(found)


def _launcher(command: str, environment: dict[str, str]) -> Callable[[], Launch]:
    return lambda: Launch((sys.executable, "-m", "hub", command), environment)
