"""`python3 -m launcher [vLLM arguments]` runs a worker; `python3 -m launcher health` checks it. See `main`."""

import signal
import sys

if __name__ == "__main__":
    # Before any other import: a stop signal that comes now waits until `Init` can handle it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from launcher.main import main

    sys.exit(main(sys.argv[1:]))
