"""Changes of a RayService: apply manifests, edit the spec, delete everything."""
