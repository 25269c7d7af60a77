"""What a RayService is doing: observed, diagnosed by rules, waited for. Only watching has I/O."""
