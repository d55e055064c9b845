"""What lays one node down on one disk, in two ways.

The direct installer, ``python3 -m installer``, runs inside our own medium's initramfs and does all of it. On
Ubuntu's live system ``python3 -m installer.pick`` chooses node and disk before subiquity looks at either,
``python3 -m installer.curthook`` is what curtin runs last, and ``python3 -m installer.place`` finishes the node
that subiquity has installed.

Standard library only, relative imports only: the package is copied to where it runs. ``__main__``, ``pick``,
``curthook`` and ``place`` are the recipes; ``guard``, ``identify``, ``layout`` and ``report`` are pure and decide;
the other modules read the machine or change it.
"""
