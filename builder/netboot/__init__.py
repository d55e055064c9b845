"""Booting and installing nodes over the network: the tree, what serves it, and who may be installed when."""
