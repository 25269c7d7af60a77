"""A client for KubeRay's RayService: `python -m kuberay`, or `RayServiceApi` from Python.

The manifests that it deploys are in this folder too.
"""
