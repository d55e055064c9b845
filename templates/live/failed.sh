#!/bin/sh
# Ubuntu's installer runs this when it has failed: the end of its logs on every console of the machine, and then time
# for a person to read. The power goes off when this ends; whoever comes in by ssh keeps it on with
#     touch /run/builder-stay
# Usage: failed.sh [ROOT [SECONDS]], both for tests.
root=${1-}
seconds=${2-600}
stay=/run/builder-stay

consoles() {
	for name in $(cat "$root/sys/class/tty/console/active"); do
		# tty0 is whichever screen is shown, so the first one stands for it.
		[ "$name" = tty0 ] && name=tty1
		echo "$root/dev/$name"
	done
}

report() {
	echo
	echo "builder: the install failed. This machine powers off in $((seconds / 60)) minutes, unless $stay is there."
	for log in subiquity-server-debug.log curtin-install.log; do
		[ -s "$root/var/log/installer/$log" ] || continue
		echo "---- the end of /var/log/installer/$log"
		tail -n 60 "$root/var/log/installer/$log"
	done
	echo "---- what went wrong is above, or further up: a line with builder-failed says it in short"
}

text=$(report)
case " $(cat "$root/proc/cmdline" 2>/dev/null) " in
*" builder.order="*) PYTHONPATH=/cdrom/builder/live timeout 60 python3 -B -m installer.live & ;;
esac
for console in $(consoles); do
	printf '%s\n' "$text" >"$console"
done
sleep "$seconds"
while [ -e "$root$stay" ]; do
	sleep 10
done
