"""Tasks known by their content, done once each by worker processes or a cluster, and found again after any crash."""
