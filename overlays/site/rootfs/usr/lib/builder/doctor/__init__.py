"""The node's own tools: builder-join, which watches who is in the cluster, and node-doctor, which says why not.

Standard library only. Decisions (checks, firewall, scrub, watch) are pure functions; effects live in commands
(processes), net (sockets), facts (gathering), bundle and join (files). What varies by engine is in engines/.
"""
