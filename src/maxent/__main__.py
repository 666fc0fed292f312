"""Where the process of the command begins: `maxent`, or `python -m maxent`."""

import sys

from maxent.command import startup


def main() -> None:
    """Run the command, and exit with its code."""
    startup.begins()
    from maxent import cli  # what it needs takes a moment, in which a Ctrl-C is understood by now

    sys.exit(cli.main())


if __name__ == "__main__":
    main()
