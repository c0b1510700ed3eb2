"""Addresses of Redis and of databases: what is accepted, and the form that the libraries want. Pure."""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_SQLITE_SCHEMES = ("sqlite", "sqlite+aiosqlite")


def redis_url_problem(url: str) -> str | None:
    """What is wrong with a Redis address, without showing it; None when it can be used."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the port is not a number up to 65535"
    if parts.scheme not in _REDIS_SCHEMES:
        return f"the scheme is {parts.scheme or 'missing'}"
    if parts.scheme == "unix":
        return None if parts.path.startswith("/") else "a socket needs an absolute path"
    if not parts.hostname or port == 0:
        return "the host is missing"
    return None if re.fullmatch(r"/?\d{0,4}", parts.path) else "the database is not a number"


def database_url_problem(url: str) -> str | None:
    """What is wrong with a database address, without showing it; None when it can be used."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "the port is not a number up to 65535"
    if parts.scheme in _SQLITE_SCHEMES:
        return None if len(parts.path) > 1 and not parts.netloc else "the path is missing"
    if parts.scheme not in _POSTGRES_SCHEMES:
        return f"the scheme is {parts.scheme or 'missing'}"
    return None if len(parts.path) > 1 else "the database's name is missing"


def sqlalchemy_url(url: str) -> str:
    """An accepted database address with the asyncio driver that serves it."""
    parts = urlsplit(url)
    if parts.scheme in _SQLITE_SCHEMES:
        # Four slashes are an absolute path, three a relative one.
        return f"sqlite+aiosqlite://{url.split('://', 1)[1]}"
    # libpq's sslmode is called ssl by asyncpg and takes the same words.
    query = [("ssl" if key == "sslmode" else key, value) for key, value in parse_qsl(parts.query)]
    tail = f"?{urlencode(query)}" if query else ""
    return f"postgresql+asyncpg://{parts.netloc}{parts.path}{tail}"
