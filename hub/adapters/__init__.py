"""The outside world: Redis, SQL, arq and the embedded servers. Only `hub.wiring` imports from here."""
