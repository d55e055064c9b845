"""The squashfs layers of a node's root file system, lowest first: base, site. One module each."""
