"""Where files come from: the hub, mirrors, other nodes, directories and archives, and the way to each over HTTP. What a
source brings is not trusted here: `storage.verify` reads it back. Only `modelscope` imports the ModelScope SDK."""
