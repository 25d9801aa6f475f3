"""Who wants to hear of a job's end."""
