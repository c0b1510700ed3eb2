"""The `clarion` command (also `python -m hub`)."""


def main() -> None:
    """Run the command line."""
    from hub.cli import administer, links, run, talk  # noqa: F401 - their commands register themselves
    from hub.cli.app import run as run_command

    run_command()


if __name__ == "__main__":
    main()
