"""arq workers: deliveries on every channel that is not a live connection, and the periodic work."""
