"""The evidence of a verdict: what it rests on, as JSON and as a page. See docs/evidence.md."""
