"""What every task script shares: flags, device, the training loop, the run folder, metrics."""
