"""A client of KubeRay's RayService: `python -m kuberay`, or `RayServiceApi` from Python.

Beside it lie the manifests that it deploys.
"""
