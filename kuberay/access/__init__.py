"""Access to the Kubernetes API: connections, requests, objects of any kind."""
