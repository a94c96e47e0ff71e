"""accelerate configurations: pass one with `accelerate launch --config_file`."""
