"""The tokens of a reply: drawn, stopped, decoded. Chat, sample prompts and the proof of an export share it."""
