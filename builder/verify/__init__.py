"""The boot test: boots a finished medium in QEMU, installs a node, boots that node and checks it.

:func:`builder.verify.boottest.boot_test` is the way in. A test passes on positive proof only: what the
machine says about itself. Silence and power-off prove nothing.
"""
