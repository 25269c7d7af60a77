"""What can be done to a RayService: manifests applied, specs edited, all of it deleted."""
