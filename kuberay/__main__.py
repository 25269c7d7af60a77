"""`python -m kuberay`: manage a RayService from the command line; `--help` lists the commands."""

from kuberay.commands import commands

if __name__ == "__main__":
    commands(prog_name="python -m kuberay")
