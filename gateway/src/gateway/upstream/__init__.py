"""The worker's side of the wire: connections, their pool, heads of answers. What an answer means is not known here."""
