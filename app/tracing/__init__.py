"""What a request leaves for its trace: declared, collected without OpenTelemetry, and sent by it."""
