"""Every side effect: the activities, and the rooms that they call (inventory, images, drivers, boot server)."""
