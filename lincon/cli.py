"""The command line of `lincon.tasks.commands`, as `python -m lincon.cli` or by `torchrun -m`."""

from lincon.tasks.commands.cli import main as main

if __name__ == "__main__":
    main()
