"""Files that list flows, as other tools write them: a file a format."""
