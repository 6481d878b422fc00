"""What all suites share."""

from __future__ import annotations

import os

# Set before anything imports gRPC. Some suites serve and call gRPC in this process, and libvirt forks in it to start an
# SSH client: gRPC's fork handlers then disturb the child before it becomes that client.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
