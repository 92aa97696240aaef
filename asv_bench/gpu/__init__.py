"""What the command `ref-bioplaus gpu` times: from outside, `timing.lines`."""
