"""One question to vLLM: does `/health` answer 200?"""

from __future__ import annotations

import http.client


def problem(port: int, timeout_s: float) -> str | None:
    """None if vLLM on 127.0.0.1:`port` answers 200 in time, else what it did instead, in a few words."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return (error.strerror or str(error) or type(error).__name__).lower()
    except http.client.HTTPException as error:
        return f"not HTTP: {type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"/health answers {status}"
