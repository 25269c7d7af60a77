"""`python -m kuberay`: manage a RayService from the command line; `--help` lists the commands."""

import sys

try:
    from kuberay.commands import commands
except ModuleNotFoundError as exc:
    sys.exit(f"{exc.name} is not installed: run pip install '.[kuberay]'")


def main() -> None:
    commands(prog_name="python -m kuberay")


if __name__ == "__main__":
    main()
