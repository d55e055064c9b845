#!/bin/sh
# Ubuntu's installer runs this when it has failed, and then has the power go off. Serial ports get the logs, what tells
# most last, and as much of their end as the port takes in two minutes; screens, which cannot be scrolled back, get the
# reason alone. Then a person has time to read; whoever comes in by ssh finds it all in /run/builder/failed.txt, and keeps
# the power on with
#     touch /run/builder-stay
# Names of logs: subiquity 24.04.4.1 and 26.04.1 (server/controllers/install.py, subiquitycore/log.py,
# common/errorreport.py). Usage: failed.sh [ROOT [SECONDS]], both for tests.
root=${1-}
seconds=${2-600}
stay=/run/builder-stay
logs=$root/var/log/installer
ours=$root/run/builder/install.log
report=$root/run/builder/failed.txt
KIB=1024

consoles() {
	for name in $(cat "$root/sys/class/tty/console/active"); do
		# tty0 is whichever screen is shown, so the first one stands for it.
		[ "$name" = tty0 ] && name=tty1
		echo "$root/dev/$name"
	done
}

# The end of a log. Usage: log FILE KIB
log() {
	[ -s "$1" ] && [ ! -L "$1" ] || return
	echo
	echo "---- ${1#"$root"}"
	tail -c $(($2 * KIB)) "$1"
}

# A crash report without the files in it: the logs are here anyway, and curtin's configuration holds the passphrase.
crash() {
	echo
	echo "---- ${1#"$root"}"
	awk '/^[^ ]/ { trace = /^Traceback:/ } trace || (/^[A-Za-z]+: ./ && !/: base64$/)' "$1"
}

everything() {
	for name in cloud-init-output.log cloud-init.log; do
		log "$root/var/log/$name" 128
	done
	echo
	echo "---- journal"
	journalctl --root="${root:-/}" --boot --no-pager --output=short-monotonic 2>&1 | tail -c $((256 * KIB))
	log "$logs/block/discover.log" 64
	# The name ends with the server's process; without, it is a link to the last.
	for file in "$logs/subiquity-server-debug.log" "$logs/subiquity-server-debug.log".*; do
		log "$file" 512
	done
	log "$logs/curtin-install.log" 512
	for file in "$root"/var/crash/*.crash; do
		[ -s "$file" ] && crash "$file"
	done
	log "$logs/subiquity-traceback.txt" 64
	log "$ours" 128
}

# Why, on half a screen: in our own words if we stopped it, with what the machine is; else by the ends of their logs.
reason() {
	echo
	if grep -q builder-failed "$ours" 2>/dev/null; then
		sed 's/^\[[^]]*\] //' "$ours" | awk '/builder-failed/ { text = "" } { text = text $0 "\n" } END { printf "%s", text }'
	else
		for file in "$logs/subiquity-server-info.log" "$logs/curtin-install.log" "$logs/subiquity-traceback.txt"; do
			[ -s "$file" ] && tail -n 12 "$file" | cut -c -240
		done
	fi
	echo
	echo "builder: this machine powers off in $((seconds / 60)) minutes, unless $stay is there; ${report#"$root"} has all logs"
	echo "builder: the install failed"
}

# Control characters of a log would be commands to the terminal.
plain() {
	tr -d '\000-\010\013-\037\177'
}

# Usage: tell CONSOLE. No port that takes nothing may keep the power on.
tell() {
	case "${1##*/}" in
		tty[0-9]*) reason ;;
		*)
			speed=$(stty -F "$1" speed 2>/dev/null)
			case "$speed" in '' | 0 | *[!0-9]*) speed=115200 ;; esac
			# Ten bits a byte, 120 seconds.
			tail -c $((speed * 12)) "$report"
			;;
	# Where another program has made it raw, a line feed moves to no new column.
	esac | plain | if stty -F "$1" -a 2>/dev/null | grep -q -e -opost; then sed 's/$/\r/'; else cat; fi |
		timeout 300 sh -c 'exec cat >"$0"' "$1"
}

umask 077
mkdir -p "${report%/*}"
{ everything; reason; } >"$report"
case " $(cat "$root/proc/cmdline" 2>/dev/null) " in
	*" builder.order="*) PYTHONPATH=/cdrom/builder/live timeout 60 python3 -B -m installer.live & ;;
esac
for console in $(consoles); do
	tell "$console" &
done
wait
sleep "$seconds"
while [ -e "$root$stay" ]; do
	sleep 10
done
