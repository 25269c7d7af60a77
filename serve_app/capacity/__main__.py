"""`python -m serve_app.capacity`: measure, plan, simulate and tune."""

from serve_app.capacity.commands import capacity

if __name__ == "__main__":
    capacity(prog_name="python -m serve_app.capacity")
