"""Live delivery: protocol cores, connections, fan-out."""
