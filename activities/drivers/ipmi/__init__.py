"""Servers behind BMCs that speak IPMI 2.0: their power, what they boot from next, and who made them.

pyghmi speaks the protocol, in a process of its own per BMC (`child`), because it blocks, keeps a thread and sockets
for the whole process, and can be stopped from outside in no other way. `conversation` starts that process, asks it, and
ends it; `driver` is what the rest of Mulligan sees. Nothing is imported before an `ipmi://` provider is opened.
"""
