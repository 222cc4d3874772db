"""From a catalogue to pictures and metadata on disk: polite, safe against any server, resumable."""
