"""From a catalogue to images and metadata on disk: polite, safe against any server, resumable."""
