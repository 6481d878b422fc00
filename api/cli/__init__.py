"""`mulligan`, the command line: a client of the API, and the commands that start the processes."""
