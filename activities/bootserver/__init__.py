"""What machines under construction fetch and say over HTTP: calls home and the deploy agent's jobs, and tokens."""
