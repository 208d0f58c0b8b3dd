"""`python3 -m launcher [vLLM arguments]` runs a worker; `python3 -m launcher health` asks after it. See `main`."""

import signal
import sys

if __name__ == "__main__":
    # Before anything else is even imported: what comes now is obeyed as soon as it can be.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from launcher.main import main

    sys.exit(main(sys.argv[1:]))
