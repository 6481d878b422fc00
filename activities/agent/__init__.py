"""The deploy agent: a small boot image that writes and erases the disks of bare-metal servers, and how it is built."""
