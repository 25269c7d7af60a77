"""Parts of `make run` beside the service: its proxy on this machine, and a readable screen."""
