"""What machines under construction say over HTTP: the call home, and the tokens that permit it."""
