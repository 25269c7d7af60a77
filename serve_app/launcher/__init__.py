"""What `make run` needs beside the service: the proxy of this machine, and a readable screen."""
