"""One small Protocol per capability, and the drivers that satisfy them."""
