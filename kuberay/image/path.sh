# Login shells begin with a PATH of their own.
PATH=/opt/shim:/opt/venv/bin:$PATH
