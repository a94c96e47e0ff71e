"""Entry points and YAML; no logic of their own."""
