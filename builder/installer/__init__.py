"""The direct installer: runs inside the medium's initramfs and lays one node down on one disk.

Standard library only, relative imports only: the package is copied into the initramfs and started there as
``python3 -m installer``. ``__main__`` is the recipe; ``guard``, ``identify``, ``layout`` and ``report`` are
pure and decide; the other modules read the machine or change it.
"""
