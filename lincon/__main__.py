"""The command line, as `python -m lincon`."""

from lincon.cli import main

if __name__ == "__main__":
    main()
