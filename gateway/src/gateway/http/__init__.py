"""What connections to clients and to workers share: headers, body framing, socket queries, writing, turns of the
event loop, and the tables of states. It imports no other room."""
