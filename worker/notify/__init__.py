"""Who is told of a job's end."""
