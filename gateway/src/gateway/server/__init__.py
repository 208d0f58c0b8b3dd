"""The client's side of the wire: connections, heads, requests and their answers, and who may ask at all. What a
request means is not known here: `ClientRequest.handler` answers it."""
