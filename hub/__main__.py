"""The `clarion` command (also `python -m hub`)."""


def main() -> None:
    """Run the command line."""
    from hub.cli.app import run

    run(_load)


def _load() -> None:
    # Imported for their commands, in the order in which `--help` shows them.
    from hub.cli import run, talk, define, administer, replay, links  # noqa: F401, I001


if __name__ == "__main__":
    main()
