"""The deploy agent's program, as it runs on the server: writes or erases its disks as its run says, and nothing else.

Nothing here imports Mulligan or anything beside Python's own library: the machine has no more. It is started as
`python3 -m agent.main` from the folder above.
"""
