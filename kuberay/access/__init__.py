"""The Kubernetes API: where it is, requests, objects of any kind."""
