"""The candidates: what is started, how clients reach it, which processes serve."""
