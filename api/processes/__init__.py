"""The processes of a deployment: how each is started, watched, logged and stopped."""
