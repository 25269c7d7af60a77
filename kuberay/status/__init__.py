"""Observes, diagnoses and waits for a RayService. Only the modules that watch have I/O."""
