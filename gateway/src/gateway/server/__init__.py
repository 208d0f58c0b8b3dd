"""The client's side of the wire: connections, request heads, request bodies, the answers' bytes, and the checks of
`Host` and `Origin`. It does not know what a request means: `ClientRequest.handler`, set from outside, answers it."""
