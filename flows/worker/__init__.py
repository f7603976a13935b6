"""The worker side: the task that runs attempts, group commit and drain, and the bootstep with heartbeat and sweep."""
