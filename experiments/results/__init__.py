"""From a row a run to an answer: the folder, the verdict, the report."""
