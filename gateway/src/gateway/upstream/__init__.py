"""The worker's side of the wire: connections and response heads. It does not know what an answer means."""
