"""Live delivery: wire protocols (sans-I/O), detached connections, and the node that fans out to them."""
