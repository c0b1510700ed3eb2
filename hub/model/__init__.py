"""The pure core: what events mean and what follows from them. No I/O, no clock, no import of ours but `errors`."""
