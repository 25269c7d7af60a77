# Login shells begin with their own PATH.
PATH=/opt/shim:/opt/venv/bin:$PATH
