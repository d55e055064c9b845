"""The documents that drive Ubuntu's own installer (subiquity): one for each node, and one that starts them all.

Pure. ``document`` is what installs a node; ``bootstrap`` only runs the picker, which finds out which node the
machine is and puts that node's document in place; ``live_seed`` is what the live system itself is told. Facts: the
sources of subiquity 24.04.4.1 and 26.04.1, and of the curtin that each of them carries.
"""

from builder.autoinstall.documents import LIVE, bootstrap, document, live_seed
from builder.autoinstall.storage import besides

__all__ = ["LIVE", "besides", "bootstrap", "document", "live_seed"]
