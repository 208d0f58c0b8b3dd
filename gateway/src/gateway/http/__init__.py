"""What both sides of the wire use: headers, framing, sockets, writing, turns of the loop, the tables of states.

It knows no other room.
"""
