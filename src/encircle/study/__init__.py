"""Many audits as one study: a grid of cases, their shared pieces done once, every cell judged among all."""
