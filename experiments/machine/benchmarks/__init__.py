"""A file a benchmark of `spraylab bench`."""
