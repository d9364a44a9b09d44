"""`python -m lincon.cli`, `torchrun -m lincon.cli`: the command line, which is
`lincon.tasks.commands`."""

from lincon.tasks.commands.cli import main as main

if __name__ == "__main__":
    main()
