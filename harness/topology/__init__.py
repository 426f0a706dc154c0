"""What the network looks like: model, loader, address plan, drawing."""
