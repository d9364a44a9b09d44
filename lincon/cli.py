"""The command line of `lincon.tasks.commands`, as `python -m lincon.cli` or by `torchrun -m`."""

try:
    from lincon.tasks.commands.cli import main as main
except ModuleNotFoundError as error:
    raise SystemExit(f"lincon: {error}") from None

if __name__ == "__main__":
    main()
