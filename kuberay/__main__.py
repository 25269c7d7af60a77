"""`python -m kuberay`: a RayService from the command line; `--help` says what there is."""

from kuberay.commands import commands

if __name__ == "__main__":
    commands(prog_name="python -m kuberay")
