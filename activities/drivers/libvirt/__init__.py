"""Virtual machines on one hypervisor, near or far, through libvirt.

`driver` satisfies the Protocols. Behind it `link` holds the connection and its threads, `faults` the errors, `marks`
names and ownership; `pools`, `transfer`, `bases` and `disks` are the storage; `definition` and `computers` the domain;
`console`, `networks` and `addresses` what can be seen of it; `accelerator` and `inspection` what a hypervisor can do;
`daemons` starts libvirt's own.
"""
