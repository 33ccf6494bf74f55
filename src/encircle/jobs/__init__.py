"""Tasks named by a hash of their content and done once: by worker processes or a cluster, safe in any crash."""
