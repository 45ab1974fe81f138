"""The people's side: the command line, reports and what watches a run."""
