"""Published experiments, run again and shown beside what was published."""
