"""Runs a command until the standard input ends: until whoever started this closes it, or is killed."""

import subprocess
import sys
import threading


def main(command: list[str]) -> None:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    watch = threading.Thread(target=_kill_at_end_of_input, args=(process,), daemon=True)
    watch.start()
    sys.exit(process.wait())


def _kill_at_end_of_input(process: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    process.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
