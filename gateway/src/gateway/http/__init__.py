"""What both sides of the wire use: headers, framing, sockets, writing, the tables of states. It knows no other room."""
