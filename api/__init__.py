"""gRPC in, Temporal out: services, watching, errors, configuration, and the command line."""
